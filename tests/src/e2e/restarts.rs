//! understudyd is killed again and again under a pod's load: its I/O waits, it never fails.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::world::{World, manifests, text};
use super::{install, shop};
use crate::cluster::image::TESTS;
use crate::harness::fio;

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
    let pod = shop::WEB.wait_for_pod(world, |_| true)?;
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
    let before = container_restarts(world, &pod.node)?;
    let mut last = String::new();
    for kill in 1..=KILLS {
        let engine = World::wait("understudyd is back", Duration::from_mins(2), || {
            let engine = world.provider.exec(&pod.node, &["sh", "-c", ENGINE])?.trim().to_owned();
            Ok((!engine.is_empty() && engine != last && serves(world, &pod.node)).then_some(engine))
        })?;
        let alive = exec(world, "kill -0 $(cat /tmp/fio.pid) && echo yes || cat /tmp/fio.log")?;
        ensure!(alive.trim() == "yes", "fio ended before kill {kill}: {alive}");
        // Short lives and long ones: the pause before a restart grows with the short ones.
        std::thread::sleep(Duration::from_millis(u64::from(kill % 5) * 800));
        world.provider.exec(&pod.node, &["kill", "-9", &engine])?;
        last = engine;
    }
    world.step(&format!("understudyd was killed {KILLS} times"));
    shop::wait_for_state(world, "Running")?;
    let restarts = container_restarts(world, &pod.node)? - before;
    ensure!(restarts == 0, "the engine's container was started again, {restarts} times");
    exec(
        world,
        "kill -INT $(cat /tmp/fio.pid); while kill -0 $(cat /tmp/fio.pid) 2>/dev/null; do sleep 0.2; done",
    )?;
    let report = exec(world, "cat /tmp/fio.json")?;
    let stall = fio::judge(&report)?.longest;
    world.step(&format!("0 I/O errors; the longest stall was {stall:.1?}"));
    exec(world, "touch /tmp/done")?;
    shop::remove(world)
}

/// The engine's process: of the supervisor that is the first of the engine's container, the child. Probes
/// have the same name, and another parent.
const ENGINE: &str = r#"
for process in /proc/[0-9]*; do
    [ "$(cat $process/comm 2>/dev/null)" = understudyd ] || continue
    parent=$(sed -n 's/^PPid:[[:space:]]*//p' $process/status 2>/dev/null)
    [ "$(cat /proc/$parent/comm 2>/dev/null)" = understudy-init ] && echo ${process#/proc/}
done
true"#;

fn exec(world: &World, script: &str) -> Result<String> {
    world.kubectl.run(["exec", "-n", shop::NAMESPACE, "web-0", "--", "sh", "-c", script])
}

fn engine_pod(world: &World, node: &str) -> Result<Value> {
    let pods = world.list(&format!("/api/v1/namespaces/{}/pods", install::NAMESPACE))?;
    let is = |pod: &Value| {
        pod["metadata"]["labels"]["app.kubernetes.io/component"] == "engine"
            && text(&pod["spec"]["nodeName"]) == node
    };
    pods.into_iter().find(is).with_context(|| format!("no engine on {node}"))
}

/// How often the kubelet has started the engine's container again.
fn container_restarts(world: &World, node: &str) -> Result<u64> {
    let pod = engine_pod(world, node)?;
    let containers = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    let engine = containers.into_iter().find(|container| container["name"] == "engine");
    let engine = engine.context("the engine's container is gone")?;
    engine["restartCount"].as_u64().context("no restartCount")
}

/// Whether the engine says that it serves.
fn serves(world: &World, node: &str) -> bool {
    let asked = engine_pod(world, node).and_then(|pod| {
        let name = text(&pod["metadata"]["name"]);
        let health = ["understudyd", "health", "--api=unix:/run/understudy/engine.sock"];
        let words = ["exec", "-n", install::NAMESPACE, &name, "-c", "engine", "--"];
        world.kubectl.run(words.into_iter().chain(health))
    });
    asked.is_ok()
}
