//! The workload: the example's StatefulSet, whose pod keeps a ledger over its two block volumes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::ledger::Ledger;
use super::world::{World, manifests};
use crate::cluster::image::TESTS;
use crate::cluster::programs;
use crate::harness::tools;
use crate::ledger::Plan;

/// The namespace of the examples.
pub(super) const NAMESPACE: &str = "shop";
/// The pod of the StatefulSet.
pub(super) const WEB: Ledger = Ledger { pod: "web-0", journals: "/var/lib/understudy-e2e/web" };
/// The replication.
pub(super) const REPLICATION: &str =
    "/apis/understudy.dev/v1alpha1/namespaces/shop/blockreplications/web";
/// Where a node keeps what the ledgers note.
const JOURNALS: &str = "/var/lib/understudy-e2e";
/// How long things of a busy machine may take.
pub(super) const LONG: Duration = Duration::from_mins(2);
/// The identity of the ledger.
const RUN: u64 = 0x5107;

/// Applies the example as it stands but for what its container does.
pub(super) fn apply(world: &World) -> Result<()> {
    let mut objects = manifests(Path::new("examples/cluster/statefulset.yaml"))?;
    let set = objects.iter_mut().find(|object| object["kind"] == "StatefulSet");
    let set = set.context("the example holds no StatefulSet")?;
    let spec = &mut set["spec"]["template"]["spec"];
    spec["volumes"] = json!([{
        "name": "journals", "hostPath": { "path": WEB.journals, "type": "DirectoryOrCreate" },
    }]);
    // A deleted pod goes on for a while: what its device does then is part of what is asked.
    spec["terminationGracePeriodSeconds"] = json!(20);
    let container = &mut spec["containers"][0];
    container["image"] = json!(TESTS);
    container["command"] = keep(&["/dev/system", "/dev/data"]);
    container["volumeMounts"] = json!([{ "name": "journals", "mountPath": "/journals" }]);
    container["securityContext"] = json!({ "privileged": false });
    world.apply(&objects)?;
    WEB.wait_for_pod(world, |_| true)?;
    world.step("two claims are bound and the pod writes its ledger");
    Ok(())
}

/// The command of a container that keeps a ledger over these devices.
pub(super) fn keep(devices: &[&str]) -> Value {
    let run = RUN.to_string();
    let options = ["--journals", "/journals", "--run", &run];
    json!([&["understudy-tests", "ledger", "keep"][..], devices, &options[..]].concat())
}

/// Protects it, and waits until checkpoints complete.
pub(super) fn protect(world: &World) -> Result<()> {
    world.apply(&manifests(Path::new("examples/cluster/replication.yaml"))?)?;
    wait_for_state(world, "Running")?;
    world.step("the replication is Running");
    three_checkpoints(world)
}

/// Waits for three that complete from now on.
pub(super) fn three_checkpoints(world: &World) -> Result<()> {
    let first = epoch(world)?;
    World::wait("checkpoints complete each second", LONG, || {
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
    World::wait(&format!("the replication is {state}"), LONG, || {
        Ok((status(world)?["state"] == state).then_some(()))
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
        World::wait(&format!("no {what} are left"), LONG, || {
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
