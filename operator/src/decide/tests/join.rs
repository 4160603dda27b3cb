//! A volume joins a running group: what it takes, what is in its way, and what a failover meanwhile
//! leaves behind.

use understudy_core::engine::api::{Generation, Role, Stage, VolumeId};
use understudy_core::units::ByteLen;
use understudy_crds::conditions::{ACCEPTED, FAILED_OVER, PROTECTED, RECONCILED};

use super::Bench;
use crate::decide::leftovers::leftovers;
use crate::desired::Wish;
use crate::engines::Engines;
use crate::store::Store;

/// Half of a volume that joins is not sent.
const HALF: u64 = 1 << 19;

impl Bench {
    fn unsent(&self, bytes: u64) {
        *self.world.unsent.lock().unwrap() = bytes;
    }

    fn up(&self, node: &str, up: bool) {
        self.world.machines().get_mut(node).unwrap().up = up;
    }

    /// The group's members as the group object has them; `+` joins.
    fn members(&self) -> Vec<String> {
        let mark = |joins: bool| if joins { "+" } else { "" };
        let all = self.group().members;
        all.iter().map(|m| format!("{}{}", mark(m.joining.is_some()), m.volume)).collect()
    }

    /// In which of the engine's groups a volume is, and at which number.
    fn at(&self, node: &str, volume: &str) -> Option<(String, u64)> {
        let volume: VolumeId = volume.parse().unwrap();
        let machine = self.world.machines()[node].clone();
        let (name, held) =
            machine.groups.iter().find(|(_, h)| h.members.iter().any(|m| m.volume == volume))?;
        Some((name.to_string(), held.generation.number))
    }

    fn volume(&self, name: &str) -> String {
        self.volumes().into_iter().find(|v| v.starts_with(name)).unwrap()
    }

    async fn left_over(&self) -> Vec<String> {
        let mut engines = std::collections::BTreeMap::new();
        for node in ["a", "b", "c"] {
            if let Ok(status) = Engines::status(&self.world, node).await {
                engines.insert(node.to_owned(), status);
            }
        }
        let volumes = self.world.volumes.lock().unwrap().clone().unwrap();
        let found = leftovers(&volumes, &self.world.groups().await.unwrap(), &engines);
        found.iter().map(|l| format!("{} on {}", l.volume, l.node)).collect()
    }
}

#[tokio::test]
async fn a_volume_joins_a_running_group_and_a_checkpoint_covers_it_then() {
    for make in [Bench::new, Bench::cluster] {
        let mut bench = make();
        bench.run().await;
        let generation = bench.generation();
        bench.add_disk("extra", "a", 3);
        bench.unsent(HALF);
        bench.run().await;
        assert_eq!(bench.members(), ["root", "data", "+extra"]);
        assert_eq!((bench.reason(ACCEPTED), bench.reason(PROTECTED)), ("Accepted".into(), "Running".into()));
        assert_eq!(
            bench.message(PROTECTED),
            "checkpoints complete; volume extra joins: 50 % sent, a failover now would leave it behind"
        );
        assert_eq!(
            bench.message(RECONCILED),
            "waiting for a checkpoint that covers volume extra: 50 % sent"
        );
        let joining = bench.status().joining;
        assert_eq!((joining[0].volume.as_str(), joining[0].sent_percent), ("extra", Some(50)));
        for node in ["a", "b"] {
            assert_eq!(bench.at(node, "extra").unwrap().0, "shop.web", "{node}");
        }
        bench.unsent(0);
        bench.run().await;
        assert_eq!(bench.members(), ["root", "data", "extra"]);
        assert_eq!(bench.reason(RECONCILED), "Settled", "{}", bench.message(RECONCILED));
        assert_eq!(bench.status().joining, []);
        assert_eq!(bench.generation(), generation, "nobody had to let go of anything");
        let version = bench.world.groups.lock().unwrap()[&bench.desired.group].version.clone();
        bench.run().await;
        let again = bench.world.groups.lock().unwrap()[&bench.desired.group].version.clone();
        assert_eq!(version, again, "nothing is written when nothing is left to do");
        // From now on a failover takes it along.
        bench.order_failover("b");
        bench.run().await;
        assert_eq!(bench.members(), ["root", "data", "extra"]);
        assert_eq!(bench.at("b", "extra").unwrap().0, "shop.web");
        assert_eq!((bench.reason(PROTECTED), bench.group().left_behind), ("Running".into(), vec![]));
    }
}

#[tokio::test]
async fn a_volume_that_joins_says_so_and_is_served_as_before_meanwhile() {
    let mut bench = Bench::cluster();
    bench.run().await;
    bench.add_disk("extra", "a", 3);
    bench.unsent(HALF);
    bench.run().await;
    assert_eq!(bench.volume("extra"), "extra on Some(\"a\") at Some(3) in Some(\"shop.web\")");
    assert_eq!(bench.at("a", "extra"), Some(("shop.web".to_owned(), 5)), "out of its own group");
    assert_eq!(bench.left_over().await, [""; 0]);
}

#[tokio::test]
async fn what_can_not_join_is_refused_with_the_reason_and_the_group_goes_on() {
    type Change = fn(&mut Bench);
    fn rvol(bench: &Bench, change: impl Fn(&mut crate::store::Volume)) {
        let mut all = bench.world.volumes.lock().unwrap();
        change(all.as_mut().unwrap().get_mut(&"extra".parse().unwrap()).unwrap());
    }
    let table: [(Change, &str, &str); 7] = [
        (|b| b.add_disk("extra", "c", 1), "MembersChanged", "volume extra is on c, the primary is a"),
        (|b| b.add_disk("extra", "b", 1), "MembersChanged", "it joins once b is the primary"),
        (
            |b| b.add_disk("extra", "a", 5),
            "MembersChanged",
            "has generation 5-0000000000000009, which is not below the group's, 5-",
        ),
        (
            |b| {
                b.add_disk("extra", "a", 1);
                rvol(b, |v| v.spec.group = Some("shop.other".to_owned()));
            },
            "SourceConflict",
            "in group shop.other: a volume is in one group",
        ),
        (
            |b| {
                b.add_disk("extra", "a", 1);
                rvol(b, |v| v.spec.pool = Some("x".to_owned()));
            },
            "MembersChanged",
            "lies in pool x",
        ),
        (
            |b| {
                b.add_disk("extra", "a", 3);
                rvol(b, |v| v.generation = Some(Generation { number: 2, id: 9 }));
            },
            "MembersChanged",
            "obeys generation 3-0000000000000009",
        ),
        (
            |b| {
                b.add_disk("extra", "a", 3);
                let mut machines = b.world.machines();
                let groups = &mut machines.get_mut("a").unwrap().groups;
                groups.get_mut(&"extra".parse().unwrap()).unwrap().stage = Stage::Failover;
            },
            "MembersChanged",
            "still merges a roll-back",
        ),
    ];
    for (change, reason, words) in table {
        let mut bench = Bench::cluster();
        bench.run().await;
        let engines = bench.engines();
        change(&mut bench);
        bench.once().await;
        assert_eq!(bench.reason(ACCEPTED), reason, "{words}");
        let said = bench.message(ACCEPTED);
        assert!(said.contains(words) && said.contains("the group goes on"), "{words:?} in {said}");
        assert_eq!(bench.members(), ["root", "data"], "{words}");
        let mine = |e: &String| e.split(" replicas=").next().unwrap().to_owned();
        let now: Vec<_> = bench.engines().iter().map(mine).collect();
        assert_eq!(now, engines.iter().map(mine).collect::<Vec<_>>(), "{words}");
        assert_eq!(bench.reason(PROTECTED), "Running", "{words}");
    }
}

#[tokio::test]
async fn what_is_refused_keeps_nobody_else_from_joining() {
    let mut bench = Bench::cluster();
    bench.run().await;
    bench.add_disk("elsewhere", "c", 1);
    bench.add_disk("extra", "a", 3);
    bench.run().await;
    assert_eq!(bench.members(), ["root", "data", "extra"]);
    assert!(bench.message(ACCEPTED).contains("elsewhere is on c"), "{}", bench.message(ACCEPTED));
}

#[tokio::test]
async fn a_volume_waits_for_what_has_to_be_before_it_joins() {
    type Change = fn(&mut Bench);
    let table: [(Change, Change, &str); 4] = [
        (|b| b.up("b", false), |b| b.up("b", true), "the engine of b, the secondary, to answer"),
        (
            |b| drop(b.world.volumes.lock().unwrap().as_mut().unwrap().pop_first()),
            |b| b.make_volume("data", "a", 3),
            "the ReplicatedVolume data to be put back",
        ),
        (
            |b| {
                let mut all = b.world.volumes.lock().unwrap();
                let extra = all.as_mut().unwrap().get_mut(&"extra".parse().unwrap()).unwrap();
                (extra.generation, extra.spec.generation) = (None, None);
            },
            |b| b.make_volume("extra", "a", 3),
            "the volume extra to be made by the CSI driver",
        ),
        (
            |b| {
                let mut machines = b.world.machines();
                let held = machines.get_mut("a").unwrap().groups.get_mut(&b.desired.group);
                held.unwrap().record = 0;
                let held = machines.get_mut("b").unwrap().groups.get_mut(&b.desired.group);
                held.unwrap().record = 0;
            },
            |b| b.world.settle(),
            "the first checkpoint, before volume extra can join",
        ),
    ];
    for (change, mend, words) in table {
        let mut bench = Bench::cluster();
        bench.run().await;
        bench.add_disk("extra", "a", 3);
        change(&mut bench);
        bench.once().await;
        let said = bench.message(RECONCILED);
        assert!(said.contains(words), "wanted {words:?} in {said}");
        assert_eq!(bench.reason(ACCEPTED), "Accepted", "{words}");
        mend(&mut bench);
        bench.run().await;
        assert_eq!(bench.members(), ["root", "data", "extra"], "{words}");
    }
}

#[tokio::test]
async fn a_primary_that_never_had_a_copy_takes_a_volume_in_at_once() {
    for make in [Bench::new, Bench::cluster] {
        let mut bench = make();
        bench.up("b", false);
        bench.run().await;
        bench.add_disk("extra", "a", 3);
        bench.run().await;
        assert_eq!(bench.members(), ["root", "data", "extra"]);
        assert_eq!(bench.reason(PROTECTED), "Solo");
        assert_eq!(bench.at("a", "extra").unwrap().0, "shop.web");
        bench.up("b", true);
        bench.run().await;
        assert_eq!(bench.reason(PROTECTED), "Running", "{}", bench.message(RECONCILED));
        assert_eq!(bench.at("b", "extra").unwrap().0, "shop.web");
    }
}

#[tokio::test]
async fn a_primary_whose_copy_holds_a_checkpoint_and_is_away_waits_for_it() {
    let mut bench = Bench::cluster();
    bench.run().await;
    bench.desired.wish = Wish::Stop;
    bench.run().await;
    bench.desired.wish = Wish::Run;
    bench.up("b", false);
    bench.add_disk("extra", "a", 3);
    bench.run().await;
    // The copy could still be failed over to: it must not lack what the group object calls covered.
    assert_eq!(bench.members(), ["root", "data"]);
    bench.up("b", true);
    bench.run().await;
    assert_eq!(bench.members(), ["root", "data", "extra"]);
    assert_eq!(bench.reason(PROTECTED), "Running");
}

#[tokio::test]
async fn a_volume_that_no_engine_has_yet_can_be_taken_back() {
    let mut bench = Bench::cluster();
    bench.run().await;
    bench.add_disk("extra", "a", 3);
    // Killed once the group object and the volume say so.
    *bench.world.fuse.lock().unwrap() = Some(2);
    bench.once().await;
    *bench.world.fuse.lock().unwrap() = None;
    assert_eq!(bench.members(), ["root", "data", "+extra"]);
    assert!(bench.volume("extra").ends_with("in Some(\"shop.web\")"));
    bench.desired.volumes.as_mut().unwrap().pop();
    bench.run().await;
    assert_eq!(bench.members(), ["root", "data"]);
    assert_eq!(bench.volume("extra"), "extra on Some(\"a\") at Some(3) in None");
    assert_eq!((bench.reason(ACCEPTED), bench.reason(RECONCILED)), ("Accepted".into(), "Settled".into()));
}

#[tokio::test]
async fn a_volume_that_engines_have_does_not_leave() {
    let mut bench = Bench::cluster();
    bench.run().await;
    bench.add_disk("extra", "a", 3);
    bench.unsent(HALF);
    bench.run().await;
    bench.desired.volumes.as_mut().unwrap().pop();
    bench.run().await;
    assert_eq!(bench.members(), ["root", "data", "+extra"]);
    let said = bench.message(ACCEPTED);
    assert!(said.contains("a volume can't leave a running group yet: put it back"), "{said}");
    bench.unsent(0);
    bench.run().await;
    assert_eq!(bench.members(), ["root", "data", "extra"], "and is taken in all the same");
}

#[tokio::test]
async fn a_failover_leaves_behind_what_joins_and_its_node_serves_it_alone_when_it_is_back() {
    let mut bench = Bench::cluster();
    bench.run().await;
    bench.add_disk("extra", "a", 3);
    bench.unsent(HALF);
    bench.run().await;
    bench.up("a", false);
    bench.run().await;
    let said = bench.message(PROTECTED);
    assert!(said.contains("leaves volume extra behind, which no checkpoint covers"), "{said}");
    bench.add_pod("vm", "a");
    bench.order_failover("b");
    bench.run().await;
    assert_eq!(bench.reason(FAILED_OVER), "Promoted");
    let said = bench.message(FAILED_OVER);
    assert!(said.contains("no checkpoint covered it yet: extra on a"), "{said}");
    assert_eq!(bench.members(), ["root", "data"]);
    assert_eq!(bench.volume("extra"), "extra on Some(\"a\") at Some(3) in None");
    let left = bench.status().left_behind;
    assert_eq!((left[0].volume.as_str(), left[0].node.as_str()), ("extra", "a"));
    assert!(bench.message(ACCEPTED).contains("left behind on a when b took over"));
    assert_eq!(bench.left_over().await, ["extra on b"], "a part of it, of no use to anybody");

    bench.up("a", true);
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Running", "{}", bench.message(RECONCILED));
    assert_eq!(bench.at("a", "extra"), Some(("extra".to_owned(), 6)), "alone, and goes on");
    assert_eq!(bench.volume("extra"), "extra on Some(\"a\") at Some(6) in None");
    let a = bench.world.machines()["a"].clone();
    let group = &a.groups[&bench.desired.group];
    assert_eq!((group.role, group.members.len()), (Role::Secondary, 2));
    assert_eq!(a.replicas.len(), 3);
    assert!(!bench.left_over().await.contains(&"extra on a".to_owned()));

    // Back where it is, it joins again.
    bench.unsent(0);
    bench.order_failover("a");
    bench.run().await;
    bench.run().await;
    assert_eq!(bench.members(), ["root", "data", "extra"]);
    assert_eq!(bench.group().left_behind, []);
    assert_eq!((bench.reason(ACCEPTED), bench.reason(PROTECTED)), ("Accepted".into(), "Running".into()));
}

#[tokio::test]
async fn without_a_csi_driver_what_is_left_behind_is_served_alone_too_and_joins_again() {
    let mut bench = Bench::new();
    bench.run().await;
    bench.add_disk("extra", "a", 0);
    bench.unsent(HALF);
    bench.run().await;
    bench.order_failover("b");
    bench.run().await;
    bench.run().await;
    assert_eq!(bench.members(), ["root", "data"]);
    assert_eq!(bench.at("a", "extra"), Some(("extra".to_owned(), 2)));
    assert_eq!(bench.reason(PROTECTED), "Running", "{}", bench.message(RECONCILED));
    assert!(bench.message(ACCEPTED).contains("it joins once a is the primary"));
    bench.unsent(0);
    bench.order_failover("a");
    bench.run().await;
    bench.run().await;
    assert_eq!(bench.members(), ["root", "data", "extra"], "{}", bench.message(ACCEPTED));
}

#[tokio::test]
async fn what_the_promoted_engine_has_stays_though_the_group_object_had_not_heard_of_it() {
    let mut bench = Bench::cluster();
    bench.run().await;
    bench.add_disk("extra", "a", 3);
    bench.unsent(HALF);
    bench.run().await;
    // Covered, and the primary dies before the operator looks.
    for machine in bench.world.machines().values_mut() {
        machine.groups.values_mut().for_each(|h| h.joining.clear());
    }
    bench.up("a", false);
    bench.order_failover("b");
    bench.run().await;
    assert_eq!(bench.members(), ["root", "data", "extra"]);
    assert_eq!(bench.group().left_behind, []);
    assert!(bench.volume("extra").ends_with("in Some(\"shop.web\")"));
}

#[tokio::test]
async fn what_only_the_secondary_had_is_left_with_who_served_it_all_along() {
    let mut bench = Bench::cluster();
    bench.run().await;
    bench.add_disk("extra", "a", 3);
    // Group object, volume, replica, secondary's start: killed before the primary's.
    *bench.world.fuse.lock().unwrap() = Some(4);
    bench.once().await;
    *bench.world.fuse.lock().unwrap() = None;
    assert_eq!(bench.at("b", "extra").unwrap().0, "shop.web");
    assert_eq!(bench.at("a", "extra"), Some(("extra".to_owned(), 3)));
    bench.order_failover("b");
    bench.run().await;
    bench.run().await;
    assert_eq!(bench.members(), ["root", "data"]);
    assert_eq!(bench.at("a", "extra"), Some(("extra".to_owned(), 3)), "it has noticed nothing");
    assert_eq!(bench.volume("extra"), "extra on Some(\"a\") at Some(3) in None");
    assert_eq!(bench.reason(PROTECTED), "Running", "{}", bench.message(RECONCILED));
}

#[tokio::test]
async fn pods_that_use_only_what_was_left_behind_are_not_deleted() {
    let mut bench = Bench::cluster();
    bench.run().await;
    bench.add_disk("extra", "a", 3);
    bench.unsent(HALF);
    bench.run().await;
    bench.order_failover("b");
    bench.run().await;
    assert_eq!(*bench.world.asked_pods_of.lock().unwrap(), "root data");
}

#[tokio::test]
async fn the_end_while_a_volume_joins_leaves_each_to_who_serves_it() {
    for (effects, number) in [(2, 3), (4, 3), (usize::MAX, 5)] {
        let mut bench = Bench::cluster();
        bench.run().await;
        bench.add_disk("extra", "a", 3);
        bench.unsent(HALF);
        *bench.world.fuse.lock().unwrap() = Some(effects);
        bench.run().await;
        *bench.world.fuse.lock().unwrap() = None;
        bench.desired.wish = Wish::Delete;
        bench.run().await;
        assert_eq!(bench.group_if_any(), None, "{effects}");
        let alone = format!("extra on Some(\"a\") at Some({number}) in None");
        assert_eq!(bench.volume("extra"), alone, "{effects}");
        assert_eq!(bench.at("a", "extra").unwrap().1, number, "{effects}");
        assert_eq!(bench.world.machines()["b"].replicas.len(), 0, "{effects}");
    }
}

#[tokio::test]
async fn an_old_copy_of_fewer_volumes_is_made_anew() {
    let mut bench = Bench::cluster();
    bench.run().await;
    bench.desired.secondary = Some("c".to_owned());
    bench.run().await;
    bench.add_disk("extra", "a", 3);
    bench.run().await;
    assert_eq!(bench.members(), ["root", "data", "extra"]);
    bench.desired.secondary = Some("b".to_owned());
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Running", "{}", bench.message(RECONCILED));
    assert_eq!(bench.world.machines()["b"].replicas.len(), 3);
    assert_eq!(bench.world.machines()["b"].replicas[&"extra".parse().unwrap()], ByteLen(1 << 20));
}
