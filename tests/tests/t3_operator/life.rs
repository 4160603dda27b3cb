//! From live volumes to a replication and back, through the loss of a node.

use std::time::Duration;

use serde_json::json;
use understudy_core::engine::api::{LinkState, Role, Stage as EngineStage};
use understudy_crds::conditions::{FAILED_OVER, PROTECTED, RECONCILED};
use understudy_tests::harness::nbd::Client;
use understudy_tests::harness::nbd_address::Export;

use super::objects::{message, reason};
use super::stage::{Stage, is_possible};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_lives_through_start_checkpoint_loss_return_growth_and_end() {
    if !is_possible("the life of a BlockReplication") {
        return;
    }
    let mut stage = Stage::start(&["a", "b"]).await;
    stage.claim("root", "a", 4 * MIB).await;
    stage.claim("data", "a", 8 * MIB).await;
    stage.pod("db-0", "a", "data");
    stage.replicate("web", &["root", "data"], &json!({ "checkpoint": { "interval": "200ms" } }));

    let running = stage
        .until("web", "running", |o| {
            reason(o, PROTECTED) == "Running" && reason(o, RECONCILED) == "Settled"
        })
        .await;
    let status = running.status.unwrap();
    assert_eq!((status.primary.as_deref(), status.secondary.as_deref()), (Some("a"), Some("b")));
    assert_eq!(stage.volume("pvc-data").await.spec.group.as_deref(), Some("shop.web"));
    assert!(status.generation.as_ref().unwrap().starts_with("2-"), "above the volumes' own");
    let engine = stage.engine("a").await.unwrap();
    assert_eq!(engine.groups.len(), 1, "the solo groups were taken over");

    // Nothing is written when nothing happens but checkpoints; figures follow now and then.
    let version = stage.group("shop.web").await.unwrap().metadata.resource_version;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(stage.group("shop.web").await.unwrap().metadata.resource_version, version);

    stage.patch("web", json!({ "spec": { "checkpoint": { "trigger": "now" } } })).await;
    stage
        .until("web", "the trigger repeated", |o| {
            o.status.as_ref().and_then(|s| s.trigger.as_ref()).is_some_and(|t| t.token == "now")
        })
        .await;

    // The node is lost; its pod with it.
    stage.lose("a").await;
    let lost = stage.until("web", "lost", |o| reason(o, PROTECTED) == "PrimaryUnreachable").await;
    let generation = lost.status.unwrap().generation.unwrap();
    let order = json!({ "generation": generation, "target": "b" });
    stage.patch("web", json!({ "spec": { "failover": { "trigger": order } } })).await;
    stage.until("web", "promoted", |o| reason(o, FAILED_OVER) == "Promoted").await;
    // The pod of the dead node is removed by force, a moment after the promotion.
    let began = std::time::Instant::now();
    while !stage.kubectl.run(["get", "pods", "-n", "shop", "-o", "name"]).unwrap().is_empty() {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "the pod of the dead node is still there"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    // A pod of after the promotion stays.
    stage.pod("db-0", "b", "data");
    stage.bring_back("a").await;
    let back = stage
        .until("web", "protected again", |o| {
            reason(o, PROTECTED) == "Running" && reason(o, RECONCILED) == "Settled"
        })
        .await;
    let status = back.status.unwrap();
    assert_eq!((status.primary.as_deref(), status.secondary.as_deref()), (Some("b"), Some("a")));
    let pods = stage.kubectl.run(["get", "pods", "-n", "shop", "-o", "name"]).unwrap();
    assert_eq!(pods.trim(), "pod/db-0");

    // The volume is to be larger, as the CSI driver would say last.
    stage
        .kubectl
        .run([
            "patch",
            "rvol",
            "pvc-data",
            "--type=merge",
            "-p",
            r#"{"spec":{"sizeBytes":16777216}}"#,
        ])
        .unwrap();
    stage.until("web", "settled after the growth", |o| reason(o, RECONCILED) == "Settled").await;
    for _ in 0..100 {
        let large = stage.group("shop.web").await.unwrap().spec.members[1].size_bytes == 16 << 20;
        let mut sizes = Vec::new();
        for node in ["a", "b"] {
            let engine = stage.engine(node).await.unwrap();
            sizes.push(engine.replica(&"pvc-data".parse().unwrap()).unwrap().size.0);
        }
        if large && sizes == [16 << 20, 16 << 20] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let engine = stage.engine("a").await.unwrap();
    assert_eq!(engine.replica(&"pvc-data".parse().unwrap()).unwrap().size.0, 16 << 20);

    let said = stage.events("web").await;
    for event in
        ["Running", "CheckpointCompleted", "PrimaryUnreachable", "FailoverBegun", "Promoted"]
    {
        assert!(said.iter().any(|e| e == event), "no event {event} in {said:?}");
    }

    stage.kubectl.run(["delete", "br", "-n", "shop", "web", "--wait=false"]).unwrap();
    stage.until_gone("web").await;
    assert!(stage.group("shop.web").await.is_none());
    for (volume, size) in [("pvc-root", 4 * MIB), ("pvc-data", 16 * MIB)] {
        let spec = stage.volume(volume).await.spec;
        assert_eq!((spec.node.as_deref(), spec.group), (Some("b"), None));
        assert!(spec.generation.unwrap().starts_with("4-"));
        assert_eq!(u64::try_from(spec.size_bytes).unwrap(), size);
    }
    let copy = stage.engine("a").await.unwrap();
    assert_eq!(copy.replicas, [], "the copy is deleted");
    let engine = stage.engine("b").await.unwrap();
    let group = &engine.groups[0];
    assert_eq!((group.role, group.link), (Some(Role::Primary), LinkState::Solo));
    assert_ne!(group.stage, EngineStage::None, "it serves on");

    // And again, from where the volumes are now.
    stage.replicate("again", &["root", "data"], &json!({}));
    let again = stage.until("again", "running", |o| reason(o, PROTECTED) == "Running").await;
    assert_eq!(again.status.unwrap().primary.as_deref(), Some("b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_copy_is_given_up_at_once_though_both_engines_answer_and_begins_again_when_asked() {
    if !is_possible("a first copy that is given up") {
        return;
    }
    let stage = Stage::start(&["a", "b"]).await;
    stage.claim("root", "a", 64 * MIB).await;
    let engine = stage.engine("a").await.unwrap();
    let export = Export::unix(stage.path("a-nbd.sock"), &engine.groups[0].exports[0].name);
    tokio::task::block_in_place(|| {
        let mut client = Client::connect(&export).unwrap();
        for piece in 0..48 {
            client.write(piece * MIB, &vec![0x5a; 1 << 20]).unwrap();
        }
        client.flush().unwrap();
    });
    // By itself the copy would take a minute and a half.
    let slow = json!({ "resync": { "floor": "64Ki", "ceiling": "512Ki" } });
    stage.replicate("web", &["root"], &slow);
    stage.until("web", "being copied", |o| reason(o, PROTECTED) == "Syncing").await;
    let began = std::time::Instant::now();
    stage.patch("web", json!({ "spec": { "state": "Stopped" } })).await;
    stage
        .until("web", "stopped", |o| {
            reason(o, PROTECTED) == "Stopped" && reason(o, RECONCILED) == "Settled"
        })
        .await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(stage.engine("b").await.is_some_and(|e| e.groups.len() == 1), "it answers, and has it");

    let fast = json!({ "state": "Running", "resync": { "ceiling": null } });
    stage.patch("web", json!({ "spec": fast })).await;
    stage.until("web", "running", |o| reason(o, PROTECTED) == "Running").await;
    // A first copy is in the way of no end either.
    stage.patch("web", json!({ "spec": { "state": "Stopped" } })).await;
    stage.until("web", "stopped again", |o| reason(o, PROTECTED) == "Stopped").await;
    stage.patch("web", json!({ "spec": { "state": "Running", "resync": slow["resync"] } })).await;
    stage.until("web", "being copied again", |o| reason(o, PROTECTED) == "Syncing").await;
    stage.kubectl.run(["delete", "br", "-n", "shop", "web", "--wait=false"]).unwrap();
    stage.until_gone("web").await;
    assert!(stage.engine("b").await.unwrap().replicas.is_empty(), "the copy is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_escape_hatch_needs_no_engine() {
    if !is_possible("the escape hatch") {
        return;
    }
    let mut stage = Stage::start(&["a", "b"]).await;
    stage.claim("root", "a", 4 * MIB).await;
    stage.replicate("web", &["root"], &json!({}));
    stage.until("web", "running", |o| reason(o, PROTECTED) == "Running").await;
    stage.lose("a").await;
    stage.kubectl.run(["delete", "br", "-n", "shop", "web", "--wait=false"]).unwrap();
    let stuck = stage
        .until("web", "the hatch named", |o| message(o, RECONCILED).contains("abandon=true"))
        .await;
    assert!(stuck.metadata.deletion_timestamp.is_some());
    stage
        .kubectl
        .run(["annotate", "br", "-n", "shop", "web", "understudy.dev/abandon=true"])
        .unwrap();
    stage.until_gone("web").await;
    assert_eq!(stage.volume("pvc-root").await.spec.node.as_deref(), Some("a"));
    assert_eq!(stage.volume("pvc-root").await.spec.group, None);
}
