//! A disk is added to what runs and is protected; the node is lost; the disk comes back with the others.

use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::ledger::Ledger;
use super::world::{World, text};
use super::{node_loss, shop};
use crate::cluster::image::TESTS;

/// The pod that keeps a ledger of its own on the disk that is added.
const EXTRA: Ledger = Ledger { pod: "extra", journals: "/var/lib/understudy-e2e/extra" };
/// The claim of that disk.
const CLAIM: &str = "extra";

pub(super) fn play(world: &World) -> Result<()> {
    shop::apply(world)?;
    let old = shop::WEB.wait_for_pod(world, |_| true)?;
    shop::WEB.wait_for_writes(world, &old.node, 100)?;
    shop::protect(world)?;

    world.apply(&[claim(), pod(&old.node)])?;
    EXTRA.wait_for_pod(world, |_| true)?;
    EXTRA.wait_for_writes(world, &old.node, 100)?;
    world.step("a third disk is written on the same node, not protected yet");
    join(world)?;
    let running = shop::WEB.wait_for_pod(world, |_| true)?;
    ensure!(running.uid == old.uid, "the pod was restarted for a disk that joined");

    let before = shop::status(world)?;
    world.provider.kill(&old.node)?;
    world.step(&format!("{} has lost its power", old.node));
    world.wait_for_node(&old.node, false)?;
    let (new, prefix) = node_loss::fail_over(world, &old)?;
    World::wait("the old pod of the third disk is gone", shop::LONG, || {
        let pod =
            world.get(&format!("/api/v1/namespaces/{}/pods/{}", shop::NAMESPACE, EXTRA.pod))?;
        Ok(pod.is_none().then_some(()))
    })?;
    world.apply(&[pod(&new.node)])?;
    EXTRA.wait_for_pod(world, |_| true)?;
    let extra = EXTRA.found(world)?;
    world.step(&format!("the third disk is there too and holds the records up to {extra}"));

    world.provider.start(&old.node)?;
    world.wait_for_node(&old.node, true)?;
    let cut: Timestamp = text(&before["checkpoint"]["cutTime"]).parse().context("no cut time")?;
    node_loss::judge(world, shop::WEB, &old.node, prefix, Some(cut))?;
    node_loss::judge(world, EXTRA, &old.node, extra, Some(cut))?;
    node_loss::come_back(world, &old, &new)?;
    shop::remove(world)
}

/// Names the claim in the source, and waits until checkpoints cover it.
fn join(world: &World) -> Result<()> {
    let claims = ["system-web-0", "data-web-0", CLAIM].map(|name| json!({ "name": name }));
    let source = json!({ "persistentVolumeClaims": claims });
    world.patch(shop::REPLICATION, &json!({ "spec": { "source": source } }))?;
    World::wait("the volume has joined", shop::LONG, || {
        let groups = world.list("/apis/understudy.dev/v1alpha1/replicationgroups")?;
        let members = groups.first().and_then(|group| group["spec"]["members"].as_array());
        let covered = members.is_some_and(|all| {
            all.len() == claims.len() && all.iter().all(|m| m.get("joining").is_none())
        });
        Ok(covered.then_some(()))
    })?;
    world.step("it has joined the running group");
    shop::three_checkpoints(world)
}

fn claim() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": { "name": CLAIM, "namespace": shop::NAMESPACE },
        "spec": {
            "storageClassName": "understudy",
            "volumeMode": "Block",
            "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": "64Mi" } },
        },
    })
}

fn pod(node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": EXTRA.pod, "namespace": shop::NAMESPACE },
        "spec": {
            "nodeSelector": { "kubernetes.io/hostname": node },
            "terminationGracePeriodSeconds": 5,
            "volumes": [
                { "name": "disk", "persistentVolumeClaim": { "claimName": CLAIM } },
                {
                    "name": "journals",
                    "hostPath": { "path": EXTRA.journals, "type": "DirectoryOrCreate" },
                },
            ],
            "containers": [{
                "name": "extra",
                "image": TESTS,
                "imagePullPolicy": "Never",
                "command": shop::keep(&["/dev/extra"]),
                "volumeDevices": [{ "name": "disk", "devicePath": "/dev/extra" }],
                "volumeMounts": [{ "name": "journals", "mountPath": "/journals" }],
            }],
        },
    })
}
