//! The decisions by scenario, and the operator killed after every single effect that it has.

mod behind;
mod cluster;
mod disks;
mod faults;
mod join;
mod kills;
mod leftovers;
mod refusals;
mod renew;
mod stop;

use std::collections::BTreeMap;
use std::time::Duration;

use understudy_core::engine::api::{Generation, Member, Role, Stage, VolumeId};
use understudy_core::units::ByteLen;
use understudy_crds::conditions::{FAILED_OVER, PROTECTED, RECONCILED};
use understudy_crds::replication_group::AppliedPolicy;
use understudy_crds::{BlockReplicationStatus, ReplicationGroupSpec};

use crate::desired::{Desired, FailoverOrder, ObjectName, SourceVolume, Wish};
use crate::fake::World;
use crate::observe::{Failure, Nodes, Place};
use crate::reconcile::pass;
use crate::store::{Pod, Volume};

/// A world and what is wanted of it.
struct Bench {
    world: World,
    desired: Desired,
}

impl Bench {
    fn new() -> Self {
        let name = ObjectName { namespace: "shop".to_owned(), name: "web".to_owned() };
        let volume = |name: &str, node: Option<&str>| SourceVolume {
            member: Member { volume: name.parse().unwrap(), size: ByteLen(1 << 20) },
            node: node.map(str::to_owned),
        };
        Self {
            world: World::new(&["a", "b", "c"]),
            desired: Desired {
                group: name.group().unwrap(),
                name,
                observed_generation: Some(1),
                wish: Wish::Run,
                volumes: Ok(vec![volume("root", Some("a")), volume("data", None)]),
                policy: AppliedPolicy {
                    synchronous: false,
                    interval_millis: 1000,
                    undo_limit_bytes: 256 << 20,
                    window_bytes: 8 << 20,
                    max_delay_millis: 5000,
                    ..AppliedPolicy::default()
                },
                checkpoint_trigger: None,
                primary: None,
                secondary: Some("b".to_owned()),
                failover: None,
                abandoned: false,
                refused: None,
            },
        }
    }

    /// The same where volumes are kept: the CSI driver has made both on a, each solo.
    fn cluster() -> Self {
        let bench = Self::new();
        *bench.world.volumes.lock().unwrap() = Some(BTreeMap::new());
        bench.make_volume("root", "a", 1);
        bench.make_volume("data", "a", 4);
        let status = BlockReplicationStatus::default();
        bench.world.statuses.lock().unwrap().insert(bench.desired.name.clone(), status);
        bench
    }

    /// What the volumes say, as text to compare.
    fn volumes(&self) -> Vec<String> {
        let all = self.world.volumes.lock().unwrap();
        let one = |(name, v): (&VolumeId, &Volume)| {
            let number = v.generation.map(|g| g.number);
            format!("{name} on {:?} at {number:?} in {:?}", v.spec.node, v.spec.group)
        };
        all.iter().flatten().map(one).collect()
    }

    fn add_pod(&self, name: &str, node: &str) {
        self.world.pods.lock().unwrap().push(Pod {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            node: Some(node.to_owned()),
            deleting: None,
        });
    }

    /// One pass, cut short if the operator dies in it.
    async fn once(&self) {
        self.pass_after(None).await;
    }

    /// The same after a pass whose action failed.
    async fn pass_after(&self, failure: Option<Failure>) {
        let nodes: Nodes = self
            .world
            .machines()
            .iter()
            .map(|(name, machine)| {
                let (link, closed) = (Some(machine.link.clone()), machine.closed_node.clone());
                (name.clone(), Place { link, ready: machine.up, closed })
            })
            .collect();
        let pass = pass(&self.desired, &nodes, &self.world, &self.world, failure);
        // In the fake only death takes time.
        if let Ok(outcome) = tokio::time::timeout(Duration::from_millis(5), pass).await {
            outcome.unwrap();
        }
    }

    /// Passes until nothing is left to do.
    async fn run(&self) {
        for _ in 0..4 {
            self.once().await;
            if self.world.dead() {
                return;
            }
            self.world.settle();
        }
        self.once().await;
    }

    fn group(&self) -> ReplicationGroupSpec {
        self.group_if_any().unwrap()
    }

    fn group_if_any(&self) -> Option<ReplicationGroupSpec> {
        self.world.groups.lock().unwrap().get(&self.desired.group).map(|g| g.spec.clone())
    }

    fn status(&self) -> BlockReplicationStatus {
        self.world.statuses.lock().unwrap().get(&self.desired.name).cloned().unwrap_or_default()
    }

    fn reason(&self, condition: &str) -> String {
        let status = self.status();
        let found = status.conditions.iter().find(|c| c.type_ == condition);
        found.map_or("(none)".to_owned(), |c| c.reason.clone())
    }

    fn message(&self, condition: &str) -> String {
        let status = self.status();
        let found = status.conditions.iter().find(|c| c.type_ == condition);
        found.map_or("(none)".to_owned(), |c| c.message.clone())
    }

    fn generation(&self) -> Generation {
        self.group().generation.parse().unwrap()
    }

    fn order_failover(&mut self, target: &str) {
        self.desired.failover =
            Some(FailoverOrder { replace: self.generation(), target: target.to_owned() });
    }

    /// Role, stage and link of every replica of the group, as text to compare.
    fn engines(&self) -> Vec<String> {
        let generation = self.generation();
        self.world
            .machines()
            .iter()
            .filter_map(|(name, machine)| {
                let held = machine.groups.get(&self.desired.group)?;
                let current = if held.generation == generation { "current" } else { "old" };
                Some(format!(
                    "{name} {:?} {:?} {current} peer={:?} interval={:?} replicas={}",
                    held.role,
                    held.stage,
                    held.peer.as_ref().map(ToString::to_string),
                    held.policy.checkpoint_interval,
                    machine.replicas.len(),
                ))
            })
            .collect()
    }
}

#[tokio::test]
async fn a_fresh_group_comes_to_running_with_the_secondary_started_first() {
    let bench = Bench::new();
    bench.run().await;
    assert_eq!(
        bench.engines(),
        [
            "a Primary Running current peer=Some(\"tcp:127.0.0.1:7002\") interval=Some(1s) replicas=2",
            "b Secondary Running current peer=None interval=Some(1s) replicas=2",
        ]
    );
    assert_eq!(bench.reason(PROTECTED), "Running");
    assert_eq!(bench.reason(RECONCILED), "Settled");
    let version = bench.world.groups.lock().unwrap()[&bench.desired.group].version.clone();
    bench.run().await;
    let again = bench.world.groups.lock().unwrap()[&bench.desired.group].version.clone();
    assert_eq!(version, again, "nothing is written when nothing is left to do");
}

#[tokio::test]
async fn a_primary_need_not_wait_for_its_secondary() {
    let bench = Bench::new();
    bench.world.machines().get_mut("b").unwrap().up = false;
    bench.run().await;
    assert_eq!(bench.engines().len(), 1);
    assert_eq!(bench.reason(PROTECTED), "Solo");
    assert!(bench.message(RECONCILED).contains("the engine of b"), "{}", bench.message(RECONCILED));
    bench.world.machines().get_mut("b").unwrap().up = true;
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Running");
}

#[tokio::test]
async fn a_trigger_makes_one_checkpoint_and_is_repeated_in_the_status() {
    let mut bench = Bench::new();
    bench.run().await;
    bench.desired.checkpoint_trigger = Some("before the update".to_owned());
    bench.run().await;
    bench.run().await;
    assert_eq!(bench.world.machines()["a"].checkpoints, 1);
    assert_eq!(bench.status().trigger.unwrap().token, "before the update");
    bench.desired.checkpoint_trigger = Some("and another".to_owned());
    bench.run().await;
    assert_eq!(bench.world.machines()["a"].checkpoints, 2);
}

#[tokio::test]
async fn a_changed_policy_reaches_both_engines() {
    let mut bench = Bench::new();
    bench.run().await;
    bench.desired.policy.interval_millis = 0;
    bench.run().await;
    assert!(bench.engines().iter().all(|e| e.contains("interval=None")), "{:?}", bench.engines());
}

#[tokio::test]
async fn stop_leaves_the_primary_alone_with_the_copy_kept_and_run_takes_it_up_again() {
    let mut bench = Bench::new();
    bench.run().await;
    bench.desired.wish = Wish::Stop;
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Stopped");
    assert!(bench.engines()[0].contains("peer=None"));
    assert_eq!(bench.world.machines()["b"].replicas.len(), 2);
    bench.desired.wish = Wish::Run;
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Running");
}

#[tokio::test]
async fn a_failover_raises_the_generation_by_two_and_promotes_the_secondary() {
    let mut bench = Bench::new();
    bench.run().await;
    bench.world.machines().get_mut("a").unwrap().up = false;
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "PrimaryUnreachable");
    let message = bench.message(PROTECTED);
    assert!(
        message.contains("target: b") && message.contains(&bench.group().generation),
        "{message}"
    );
    bench.order_failover("b");
    bench.run().await;
    assert_eq!(bench.generation().number, 3);
    assert_eq!(bench.reason(FAILED_OVER), "Promoted");
    let status = bench.status();
    assert_eq!(status.primary.as_deref(), Some("b"));
    assert_eq!((status.failover.unwrap().checkpoint, status.secondary), (1, None));
    assert!(bench.engines()[1].starts_with("b Primary Done current"), "{:?}", bench.engines());
}

#[tokio::test]
async fn the_old_primary_becomes_the_secondary_when_it_returns() {
    let mut bench = Bench::new();
    bench.run().await;
    bench.world.machines().get_mut("a").unwrap().up = false;
    bench.order_failover("b");
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Solo");
    bench.world.machines().get_mut("a").unwrap().up = true;
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Running");
    let engines = bench.engines();
    assert!(engines[0].starts_with("a Secondary Running current"), "{engines:?}");
    assert!(engines[1].starts_with("b Primary Running current"), "{engines:?}");
    // And back: the order that was obeyed is over, a new one names the new generation.
    bench.order_failover("a");
    bench.run().await;
    assert_eq!(bench.status().primary.as_deref(), Some("a"));
    assert_eq!(bench.generation().number, 5);
}

#[tokio::test]
async fn another_secondary_takes_over_after_a_last_checkpoint_with_the_old_one() {
    let mut bench = Bench::new();
    bench.run().await;
    bench.desired.secondary = Some("c".to_owned());
    bench.run().await;
    assert_eq!(bench.group().secondary.unwrap().node, "c");
    assert_eq!(bench.reason(PROTECTED), "Running");
    let held = bench.world.machines()["c"].groups[&bench.desired.group].clone();
    assert_eq!((held.role, held.stage), (Role::Secondary, Stage::Running));
}

#[tokio::test]
async fn a_secondary_that_still_follows_an_older_generation_gives_it_up_and_joins() {
    let mut bench = Bench::new();
    bench.run().await;
    // c once was a secondary of generation 1 and never heard that it no longer is.
    let old = bench.world.machines()["b"].clone();
    bench.order_failover("b");
    bench.run().await;
    {
        let mut machines = bench.world.machines();
        let c = machines.get_mut("c").unwrap();
        c.groups = old.groups;
        c.replicas = old.replicas;
    }
    bench.desired.secondary = Some("c".to_owned());
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Running");
    assert!(bench.engines()[2].starts_with("c Secondary Running current"), "{:?}", bench.engines());
}

#[tokio::test]
async fn deletion_removes_the_copy_and_the_status_but_not_the_primary_or_the_group_object() {
    let mut bench = Bench::new();
    bench.run().await;
    bench.desired.wish = Wish::Delete;
    bench.run().await;
    assert_eq!(bench.world.machines()["a"].replicas.len(), 2);
    assert_eq!(bench.world.machines()["b"].replicas.len(), 0);
    assert_eq!(bench.group().secondary, None);
    assert_eq!(bench.status(), BlockReplicationStatus::default());
    // Asked for again, it goes on under the same group object.
    bench.desired.wish = Wish::Run;
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Running");
}
