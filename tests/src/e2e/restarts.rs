//! understudyd is killed again and again under a pod's load: its I/O waits, it never fails.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::world::{World, manifests, text};
use super::{install, shop};
use crate::cluster::image::TESTS;

/// How often it is killed.
const KILLS: u32 = 20;

pub(super) fn play(world: &World) -> Result<()> {
    let mut objects = manifests(std::path::Path::new("examples/cluster/statefulset.yaml"))?;
    let set = objects.iter_mut().find(|object| object["kind"] == "StatefulSet");
    let container =
        &mut set.context("no StatefulSet")?["spec"]["template"]["spec"]["containers"][0];
    container["image"] = json!(TESTS);
    container["command"] = json!(["sh", "-c", "while [ ! -e /tmp/done ]; do sleep 1; done"]);
    world.apply(&objects)?;
    let pod = shop::wait_for_pod(world, |_| true)?;
    world.apply(&manifests(std::path::Path::new("examples/cluster/replication.yaml"))?)?;
    shop::wait_for_state(world, "Running")?;
    world.step("a protected pod runs");

    exec(
        world,
        "fio --name=verify --filename=/dev/data --direct=1 --ioengine=libaio --iodepth=8 \
        --rw=randwrite --bs=4k --verify=crc32c --verify_backlog=256 --verify_fatal=1 \
        --time_based --runtime=3600 --output-format=json --output=/tmp/fio.json \
        >/tmp/fio.log 2>&1 & echo $! >/tmp/fio.pid",
    )?;
    let mut restarts = restart_count(world, &pod.node)?;
    for kill in 1..=KILLS {
        std::thread::sleep(Duration::from_millis(u64::from(kill % 5) * 200));
        world.provider.exec(&pod.node, &["sh", "-c", KILL])?;
        restarts = world.wait("understudyd is back", Duration::from_secs(120), || {
            let now = restart_count(world, &pod.node)?;
            Ok((now > restarts && engine_is_ready(world, &pod.node)?).then_some(now))
        })?;
        let alive = exec(world, "kill -0 $(cat /tmp/fio.pid) && echo yes || cat /tmp/fio.log")?;
        ensure!(alive.trim() == "yes", "fio ended after kill {kill}: {alive}");
    }
    world.step(&format!("understudyd was killed {KILLS} times"));
    shop::wait_for_state(world, "Running")?;
    exec(
        world,
        "kill -INT $(cat /tmp/fio.pid); while kill -0 $(cat /tmp/fio.pid) 2>/dev/null; do sleep 0.2; done",
    )?;
    let report = exec(world, "cat /tmp/fio.json")?;
    let stall = judge(&report)?;
    world.step(&format!("0 I/O errors; the longest stall was {stall:.1} s"));
    exec(world, "touch /tmp/done")?;
    shop::remove(world)
}

/// By its exact name, inside the node's own pid namespace.
const KILL: &str = "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = understudyd ] && \
    kill -9 ${p#/proc/}; done; true";

fn exec(world: &World, script: &str) -> Result<String> {
    world.kubectl.run(["exec", "-n", shop::NAMESPACE, "web-0", "--", "sh", "-c", script])
}

fn engine_pod(world: &World, node: &str) -> Result<Value> {
    let pods = world.list(&format!("/api/v1/namespaces/{}/pods", install::NAMESPACE))?;
    let is = |pod: &Value| {
        pod["metadata"]["labels"]["app.kubernetes.io/name"] == "understudy-engine"
            && text(&pod["spec"]["nodeName"]) == node
    };
    pods.into_iter().find(is).with_context(|| format!("no engine on {node}"))
}

fn container(world: &World, node: &str) -> Result<Value> {
    let pod = engine_pod(world, node)?;
    let containers = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    let engine = containers.into_iter().find(|container| container["name"] == "engine");
    engine.context("the engine's container is gone")
}

fn restart_count(world: &World, node: &str) -> Result<u64> {
    Ok(container(world, node)?["restartCount"].as_u64().unwrap_or(0))
}

fn engine_is_ready(world: &World, node: &str) -> Result<bool> {
    Ok(container(world, node)?["ready"] == true)
}

/// fio's own word: no error, and the longest completion in seconds.
fn judge(report: &str) -> Result<f64> {
    // fio puts its notes before the JSON.
    let json = report.find('{').map_or("", |at| &report[at..]);
    let report: Value = serde_json::from_str(json).context("fio left no report")?;
    let jobs = report["jobs"].as_array().context("fio reports no jobs")?;
    let mut longest: f64 = 0.0;
    for job in jobs {
        if job["error"] != 0 {
            bail!("fio: error {}", job["error"]);
        }
        for direction in ["read", "write"] {
            longest = longest.max(job[direction]["clat_ns"]["max"].as_f64().unwrap_or(0.0));
        }
        ensure!(job["write"]["total_ios"].as_u64() > Some(0), "fio wrote nothing");
    }
    Ok(longest / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_fio_is_one_of_ours() {
        let report = |error: u32| {
            format!(
                r#"fio: note
{{"jobs":[{{"error":{error},"write":{{"total_ios":5,"clat_ns":{{"max":2500000000}}}},"read":{{}}}}]}}"#
            )
        };
        assert!((judge(&report(0)).unwrap() - 2.5).abs() < 1e-9);
        assert!(judge(&report(5)).is_err());
        assert!(judge("").is_err());
    }
}
