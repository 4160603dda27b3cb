//! The workload: the example's StatefulSet, whose pod keeps a ledger over its two block volumes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::world::{World, manifests, text};
use crate::cluster::image::TESTS;
use crate::cluster::programs;
use crate::harness::tools;
use crate::ledger::{Journal, Plan};

/// The namespace of the examples.
pub(super) const NAMESPACE: &str = "shop";
/// The pod.
pub(super) const POD: &str = "/api/v1/namespaces/shop/pods/web-0";
/// The replication.
pub(super) const REPLICATION: &str =
    "/apis/understudy.dev/v1alpha1/namespaces/shop/blockreplications/web";
/// Where a node keeps what the ledger notes.
const JOURNALS: &str = "/var/lib/understudy-e2e";
/// How long things of a busy machine may take.
const LONG: Duration = Duration::from_secs(120);
/// The identity of the ledger.
const RUN: u64 = 0x5107;

/// A pod at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) uid: String,
    pub(super) node: String,
    pub(super) ready: bool,
}

/// Applies the example as it stands but for what its container does.
pub(super) fn apply(world: &World) -> Result<()> {
    let mut objects = manifests(Path::new("examples/cluster/statefulset.yaml"))?;
    let set = objects.iter_mut().find(|object| object["kind"] == "StatefulSet");
    let set = set.context("the example holds no StatefulSet")?;
    let spec = &mut set["spec"]["template"]["spec"];
    spec["volumes"] = json!([{
        "name": "journals", "hostPath": { "path": JOURNALS, "type": "DirectoryOrCreate" },
    }]);
    // A deleted pod goes on for a while: what its device does then is part of what is asked.
    spec["terminationGracePeriodSeconds"] = json!(20);
    let container = &mut spec["containers"][0];
    container["image"] = json!(TESTS);
    container["command"] = json!([
        "understudy-tests",
        "ledger",
        "keep",
        "/dev/system",
        "/dev/data",
        "--journals",
        "/journals",
        "--run",
        RUN.to_string(),
    ]);
    container["volumeMounts"] = json!([{ "name": "journals", "mountPath": "/journals" }]);
    container["securityContext"] = json!({ "privileged": false });
    world.apply(&objects)?;
    wait_for_pod(world, |_| true)?;
    world.step("two claims are bound and the pod writes its ledger");
    Ok(())
}

/// Protects it, and waits until checkpoints complete.
pub(super) fn protect(world: &World) -> Result<()> {
    world.apply(&manifests(Path::new("examples/cluster/replication.yaml"))?)?;
    wait_for_state(world, "Running")?;
    world.step("the replication is Running");
    let first = epoch(world)?;
    world.wait("checkpoints complete each second", LONG, || {
        Ok((epoch(world)? >= first + 3).then_some(()))
    })?;
    world.step("three checkpoints later");
    Ok(())
}

/// The replication's status.
pub(super) fn status(world: &World) -> Result<Value> {
    let object = world.get(REPLICATION)?.context("the BlockReplication is gone")?;
    Ok(object["status"].clone())
}

fn epoch(world: &World) -> Result<i64> {
    Ok(status(world)?["checkpoint"]["epoch"].as_i64().unwrap_or(0))
}

pub(super) fn wait_for_state(world: &World, state: &str) -> Result<()> {
    world.wait(&format!("the replication is {state}"), LONG, || {
        Ok((status(world)?["state"] == state).then_some(()))
    })
}

/// Waits for a pod that runs and is one that is wanted.
pub(super) fn wait_for_pod(world: &World, wanted: impl Fn(&Pod) -> bool) -> Result<Pod> {
    world.wait("the pod runs", LONG, || {
        let Some(pod) = world.get(POD)? else { return Ok(None) };
        let pod = Pod {
            uid: text(&pod["metadata"]["uid"]),
            node: text(&pod["spec"]["nodeName"]),
            ready: pod["status"]["containerStatuses"][0]["ready"] == true
                && pod["metadata"].get("deletionTimestamp").is_none(),
        };
        Ok((pod.ready && wanted(&pod)).then_some(pod))
    })
}

/// Which prefix the pod found at its start.
pub(super) fn found(world: &World) -> Result<u64> {
    world.wait("the ledger has been read", LONG, || {
        let log = world.kubectl.run(["logs", "-n", NAMESPACE, "web-0"])?;
        if let Some(line) = log.lines().find(|line| line.contains("hold no legal prefix")) {
            bail!("{line}\n{log}");
        }
        let words = log.lines().find_map(|line| line.strip_prefix("found: "));
        let Some(words) = words else { return Ok(None) };
        let number = words.strip_prefix("exactly the records up to ").context(words.to_owned())?;
        Ok(number.split(',').next().and_then(|number| number.parse().ok()))
    })
}

/// The newest journal on a node, and the aftermath of the same life, if there was one.
pub(super) fn notes(world: &World, node: &str) -> Result<(Journal, Option<String>)> {
    let list = world.provider.exec(node, &["ls", JOURNALS])?;
    let last = list.lines().filter(|name| name.ends_with(".journal")).max();
    let last = last.with_context(|| format!("no journal on {node}"))?;
    let mut text = world.provider.exec(node, &["cat", &format!("{JOURNALS}/{last}")])?;
    // The last line of a node that lost power may be cut short.
    if !text.ends_with('\n') {
        text.truncate(text.rfind('\n').map_or(0, |at| at + 1));
    }
    let aftermath = format!("{JOURNALS}/{}", last.replace(".journal", ".aftermath"));
    Ok((Journal::parse(&text)?, world.provider.exec(node, &["cat", &aftermath]).ok()))
}

/// Waits until the ledger on this node has grown.
pub(super) fn wait_for_writes(world: &World, node: &str, more: u64) -> Result<u64> {
    let before = notes(world, node).map_or(0, |(journal, _)| journal.last());
    world.wait("the ledger grows", LONG, || {
        let last = notes(world, node)?.0.last();
        Ok((last >= before + more).then_some(last))
    })
}

/// `kubectl understudy …`, as people type it.
pub(super) fn understudy(world: &World, words: &[&str]) -> Result<String> {
    let plugin = tools::own("kubectl-understudy")?;
    let folder = plugin.parent().context("a file without a folder")?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(programs::find("kubectl")?);
    command.arg("understudy").args(words).env("KUBECONFIG", world.kubeconfig());
    command.env("PATH", format!("{}:{path}", folder.display()));
    let output = command.output()?;
    let [out, err] =
        [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
    ensure!(output.status.success(), "kubectl understudy {words:?}: {out}{err}");
    Ok(out)
}

/// The layout of the ledger.
pub(super) fn plan() -> Result<Plan> {
    Plan::new(RUN, 2, 4096, 512, 0)
}

/// Deletes all of it, and waits until the volumes are gone.
pub(super) fn remove(world: &World) -> Result<()> {
    let delete = |words: &[&str]| {
        let common = ["delete", "--ignore-not-found", "--timeout=120s", "-n", NAMESPACE];
        world.kubectl.run([&common[..], words].concat())
    };
    delete(&["blockreplication", "--all"])?;
    world.step("the replication is deleted");
    delete(&["statefulset", "--all"])?;
    delete(&["pod", "--all"])?;
    delete(&["pvc", "--all"])?;
    for (what, path) in [
        ("persistent volumes", "/api/v1/persistentvolumes"),
        ("ReplicatedVolumes", "/apis/understudy.dev/v1alpha1/replicatedvolumes"),
        ("ReplicationGroups", "/apis/understudy.dev/v1alpha1/replicationgroups"),
    ] {
        world.wait(&format!("no {what} are left"), LONG, || {
            Ok(world.list(path)?.is_empty().then_some(()))
        })?;
    }
    for (node, ready) in world.nodes()? {
        if ready {
            world.provider.exec(&node, &["sh", "-c", &format!("rm -rf {JOURNALS}/*")])?;
        }
    }
    world.kubectl.run(["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s"])?;
    world.step("pod, claims and volumes are deleted");
    Ok(())
}
