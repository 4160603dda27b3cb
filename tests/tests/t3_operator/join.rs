//! A disk is added to a VM whose disks are replicated: it joins, and what a failover makes of it before
//! and after a checkpoint covers it.

use serde_json::json;
use understudy_core::engine::api::{EngineStatus, GroupStatus, LinkState, Role};
use understudy_crds::BlockReplication;
use understudy_crds::conditions::{ACCEPTED, FAILED_OVER, PROTECTED, RECONCILED};

use super::objects::{message, reason};
use super::stage::{Stage, is_possible};

const MIB: u64 = 1 << 20;

impl Stage {
    /// A person adds a claim to the source.
    async fn add_claim(&self, name: &str, claims: &[&str]) {
        let claims: Vec<_> = claims.iter().map(|c| json!({ "name": c })).collect();
        let source = json!({ "source": { "persistentVolumeClaims": claims } });
        self.patch(name, json!({ "spec": source })).await;
    }

    async fn set_interval(&self, name: &str, interval: &str) {
        self.patch(name, json!({ "spec": { "checkpoint": { "interval": interval } } })).await;
    }

    async fn fail_over(&self, name: &str, target: &str) {
        let generation = self.group(&format!("shop.{name}")).await.unwrap().spec.generation;
        let order = json!({ "generation": generation, "target": target });
        self.patch(name, json!({ "spec": { "failover": { "trigger": order } } })).await;
    }

    /// The members as the group object has them; `+` joins.
    async fn members(&self, name: &str) -> Vec<String> {
        let members = self.group(&format!("shop.{name}")).await.unwrap().spec.members;
        let mark = |joins: bool| if joins { "+" } else { "" };
        members.iter().map(|m| format!("{}{}", mark(m.joining.is_some()), m.volume)).collect()
    }
}

/// The engine's group that a volume is in.
fn holder<'a>(engine: &'a EngineStatus, volume: &str) -> Option<&'a GroupStatus> {
    let replica = engine.replica(&volume.parse().unwrap())?;
    engine.group(replica.group.as_ref()?)
}

fn settled(object: &BlockReplication) -> bool {
    reason(object, PROTECTED) == "Running" && reason(object, RECONCILED) == "Settled"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_added_joins_without_a_new_generation_and_a_failover_takes_it_along() {
    if !is_possible("a disk that is added") {
        return;
    }
    let mut stage = Stage::start(&["a", "b"]).await;
    stage.claim("root", "a", 4 * MIB).await;
    stage.claim("elsewhere", "b", 4 * MIB).await;
    stage.replicate("web", &["root"], &json!({ "checkpoint": { "interval": "200ms" } }));
    let before = stage.until("web", "running", settled).await.status.unwrap();

    stage.claim("extra", "a", 32 * MIB).await;
    stage.add_claim("web", &["root", "extra"]).await;
    let joined = |o: &BlockReplication| {
        settled(o) && o.status.as_ref().is_some_and(|s| s.joining.is_empty())
    };
    let end = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while stage.members("web").await != ["pvc-root", "pvc-extra"] {
        assert!(std::time::Instant::now() < end, "{:?}", stage.members("web").await);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let after = stage.until("web", "joined", joined).await.status.unwrap();
    assert_eq!(after.generation, before.generation, "nobody had to let go of anything");
    assert_eq!(stage.volume("pvc-extra").await.spec.group.as_deref(), Some("shop.web"));
    let engine = stage.engine("a").await.unwrap();
    assert_eq!(engine.groups.len(), 1, "it has left its own group");
    let said = stage.events("web").await;
    assert!(said.iter().any(|e| e == "VolumeJoins"), "{said:?}");

    // One that lies elsewhere is refused, and nothing else changes.
    stage.add_claim("web", &["root", "extra", "elsewhere"]).await;
    let refused = stage.until("web", "refused", |o| reason(o, ACCEPTED) == "MembersChanged").await;
    assert!(message(&refused, ACCEPTED).contains("volume pvc-elsewhere is on b, the primary is a"));
    stage.add_claim("web", &["root", "extra"]).await;
    stage.until("web", "accepted", |o| reason(o, ACCEPTED) == "Accepted" && settled(o)).await;

    stage.lose("a").await;
    stage.fail_over("web", "b").await;
    stage.until("web", "promoted", |o| reason(o, FAILED_OVER) == "Promoted").await;
    assert_eq!(stage.members("web").await, ["pvc-root", "pvc-extra"]);
    stage.bring_back("a").await;
    let back = stage.until("web", "protected again", joined).await.status.unwrap();
    assert_eq!((back.primary.as_deref(), back.left_behind), (Some("b"), vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_no_checkpoint_covers_is_left_behind_served_alone_and_joins_again() {
    if !is_possible("a disk that is left behind") {
        return;
    }
    let mut stage = Stage::start(&["a", "b"]).await;
    stage.claim("root", "a", 4 * MIB).await;
    stage.replicate("web", &["root"], &json!({ "checkpoint": { "interval": "200ms" } }));
    stage.until("web", "running", settled).await;
    // No checkpoint comes by itself any more.
    stage.set_interval("web", "0s").await;
    stage.until("web", "settled", settled).await;
    stage.claim("extra", "a", 4 * MIB).await;
    stage.add_claim("web", &["root", "extra"]).await;
    let words = "volume pvc-extra joins: 100 % sent, a failover now would leave it behind";
    stage.until("web", "all sent", |o| message(o, PROTECTED).contains(words)).await;
    assert_eq!(stage.members("web").await, ["pvc-root", "+pvc-extra"]);

    stage.lose("a").await;
    stage.until("web", "lost", |o| reason(o, PROTECTED) == "PrimaryUnreachable").await;
    stage.fail_over("web", "b").await;
    let left = stage
        .until("web", "left behind", |o| {
            reason(o, FAILED_OVER) == "Promoted" && reason(o, ACCEPTED) == "MembersChanged"
        })
        .await;
    assert!(message(&left, ACCEPTED).contains("left behind on a when b took over"));
    let status = left.status.unwrap();
    assert_eq!(
        (status.left_behind[0].volume.as_str(), status.left_behind[0].node.as_str()),
        ("pvc-extra", "a")
    );
    assert_eq!(stage.members("web").await, ["pvc-root"]);
    let spec = stage.volume("pvc-extra").await.spec;
    assert_eq!((spec.node.as_deref(), spec.group), (Some("a"), None));
    let said = stage.events("web").await;
    assert!(said.iter().any(|e| e == "VolumeLeftBehind"), "{said:?}");

    // Its node comes back: it serves that volume alone, and keeps the copy of the others.
    stage.bring_back("a").await;
    stage.set_interval("web", "200ms").await;
    stage.until("web", "protected again", settled).await;
    let engine = stage.engine("a").await.unwrap();
    let alone = holder(&engine, "pvc-extra").unwrap();
    assert_eq!(alone.group.as_str(), "pvc-extra");
    assert_eq!((alone.role, alone.link), (Some(Role::Primary), LinkState::Solo));
    let said = stage.volume("pvc-extra").await.spec.generation;
    assert_eq!(Some(alone.generation.to_string()), said, "as its object says");
    assert_eq!(holder(&engine, "pvc-root").unwrap().role, Some(Role::Secondary));

    stage.fail_over("web", "a").await;
    let again = stage
        .until("web", "joined again", |o| {
            let status = o.status.clone().unwrap_or_default();
            settled(o)
                && reason(o, ACCEPTED) == "Accepted"
                && status.primary.as_deref() == Some("a")
                && status.joining.is_empty()
        })
        .await;
    assert_eq!(again.status.unwrap().left_behind, []);
    assert_eq!(stage.members("web").await, ["pvc-root", "pvc-extra"]);
}
