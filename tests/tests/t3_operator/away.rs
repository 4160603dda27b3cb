//! The API server is away, the operator is away, another operator takes over.

use std::time::Duration;

use serde_json::json;
use understudy_crds::conditions::PROTECTED;

use super::objects::reason;
use super::stage::{Stage, is_possible};

async fn record(stage: &Stage) -> u64 {
    let engine = stage.engine("a").await.unwrap();
    engine.group(&"shop.web".parse().unwrap()).unwrap().record.0
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_server_is_away_checkpoints_go_on_and_afterwards_so_does_the_operator() {
    if !is_possible("the API server away") {
        return;
    }
    let mut stage = Stage::start(&["a", "b"]).await;
    stage.claim("root", "a", 4 << 20).await;
    stage.replicate("web", &["root"], &json!({ "checkpoint": { "interval": "200ms" } }));
    stage.until("web", "running", |o| reason(o, PROTECTED) == "Running").await;
    stage.bench.stop_api();
    let before = record(&stage).await;
    // Longer than the operator leads without a renewal.
    tokio::time::sleep(Duration::from_secs(18)).await;
    let after = record(&stage).await;
    assert!(after >= before + 30, "{before} to {after}");
    assert!(stage.operators.get_mut("first").unwrap().is_running(), "it pauses, it does not end");
    stage.bench.start_api().unwrap();
    stage.patch("web", json!({ "spec": { "checkpoint": { "trigger": "after" } } })).await;
    stage
        .until("web", "the trigger repeated", |o| {
            o.status.as_ref().and_then(|s| s.trigger.as_ref()).is_some_and(|t| t.token == "after")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_one_works_and_the_other_takes_over() {
    if !is_possible("two operators") {
        return;
    }
    let mut stage = Stage::start(&["a", "b"]).await;
    stage.operator("second");
    stage.claim("root", "a", 4 << 20).await;
    stage.replicate("web", &["root"], &json!({}));
    stage.until("web", "running", |o| reason(o, PROTECTED) == "Running").await;
    let held = stage.log("operator-second");
    assert!(held.contains("first leads") && !held.contains("leading"), "{held}");
    // At once after a graceful end, for the lease is given back.
    let mut first = stage.operators.remove("first").unwrap();
    first.signal("TERM").unwrap();
    assert!(first.wait(Duration::from_secs(10)).unwrap().success());
    stage.patch("web", json!({ "spec": { "checkpoint": { "trigger": "one" } } })).await;
    stage
        .until("web", "the trigger repeated", |o| {
            o.status.as_ref().and_then(|s| s.trigger.as_ref()).is_some_and(|t| t.token == "one")
        })
        .await;
    // After a kill, when the lease has run out.
    stage.operator("third");
    tokio::time::sleep(Duration::from_secs(4)).await;
    stage.operators.remove("second");
    stage.patch("web", json!({ "spec": { "checkpoint": { "trigger": "two" } } })).await;
    stage
        .until("web", "the trigger repeated", |o| {
            o.status.as_ref().and_then(|s| s.trigger.as_ref()).is_some_and(|t| t.token == "two")
        })
        .await;
}
