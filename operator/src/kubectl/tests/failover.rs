//! What can be ordered, and how an order ends.

use serde_json::{Value, json};

use super::{condition, lost, name, replication};
use crate::kubectl::failover::{Order, order, outcome};

#[test]
fn a_failover_that_can_not_be_is_not_ordered() {
    let status = lost("web").status.unwrap();
    let words = |change: fn(&mut understudy_crds::BlockReplicationStatus), target: Option<&str>| {
        let mut status = status.clone();
        change(&mut status);
        order(&name(), &status, target).unwrap_err()
    };
    assert!(words(|_| {}, Some("node-c")).contains("its secondary is node-b"));
    assert!(words(|s| s.secondary = None, None).contains("only copy"));
    assert!(words(|s| s.checkpoint = None, None).contains("no complete checkpoint"));
    assert!(words(|s| s.generation = None, None).contains("has not begun"));
}

#[test]
fn the_outcome_of_an_order_is_told_from_that_of_an_earlier_one() {
    let this = Order { generation: "3-00000000000000aa".into(), target: "node-b".into() };
    let with = |failover: Value, good: bool, reason: &str, words: &str| {
        let object = replication("web", |o| {
            o["status"]["failover"] = failover.clone();
            let told = condition("FailedOver", good, reason, words);
            o["status"]["conditions"].as_array_mut().unwrap().push(told);
        });
        outcome(&object.status.unwrap(), &this)
    };
    let done = |replaced: &str| json!({ "replaced": replaced, "from": "node-a", "target": "node-b", "checkpoint": 812 });
    let ours = done("3-00000000000000aa");
    assert!(with(ours.clone(), true, "Merging", "").unwrap().unwrap().contains("serves"));
    assert_eq!(with(ours, false, "Promoting", ""), None);
    assert_eq!(with(done("1-00000000000000bb"), true, "Promoted", ""), None, "an earlier one");
    assert_eq!(with(json!(null), false, "StaleGeneration", "1-00000000000000bb"), None);
    let stale = with(json!(null), false, "StaleGeneration", "3-00000000000000aa is gone");
    assert!(stale.unwrap().unwrap_err().contains("StaleGeneration"));
    assert_eq!(with(json!(null), false, "TargetUnreachable", "node-b"), None, "it stands");
}
