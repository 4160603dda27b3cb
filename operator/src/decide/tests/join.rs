//! A volume joins a running group: what it takes, and what is in its way.

use understudy_core::engine::api::{Generation, Stage};
use understudy_core::units::ByteLen;
use understudy_crds::conditions::{ACCEPTED, PROTECTED, RECONCILED};

use super::Bench;
use super::disks::HALF;
use crate::desired::Wish;

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
        assert_eq!(
            (bench.reason(ACCEPTED), bench.reason(PROTECTED)),
            ("Accepted".into(), "Running".into())
        );
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
        assert_eq!(
            (bench.reason(PROTECTED), bench.group().left_behind),
            ("Running".into(), vec![])
        );
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
        (
            |b| b.add_disk("extra", "c", 1),
            "MembersChanged",
            "volume extra is on c, the primary is a",
        ),
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
        (
            |b| b.up("b", false),
            |b| b.up("b", true),
            "the engine of b, the secondary, to answer and to follow",
        ),
        (
            |b| {
                let mut all = b.world.volumes.lock().unwrap();
                all.as_mut().unwrap().remove(&"extra".parse().unwrap());
            },
            |b| b.make_volume("extra", "a", 3),
            "the ReplicatedVolume extra to be there",
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
async fn a_primary_alone_takes_nothing_in_before_a_copy_follows() {
    type Change = fn(&mut Bench);
    let table: [(Change, bool); 2] = [
        // Never had one; or one that keeps a checkpoint, and could be failed over to.
        (|b| b.up("b", false), false),
        (
            |b| {
                b.up("b", false);
                let mut machines = b.world.machines();
                let held = machines.get_mut("a").unwrap().groups.get_mut(&b.desired.group);
                held.unwrap().peer = None;
            },
            true,
        ),
    ];
    for make in [Bench::new, Bench::cluster] {
        for (lose, before) in table {
            let mut bench = make();
            if before {
                bench.run().await;
            }
            lose(&mut bench);
            bench.run().await;
            bench.add_disk("extra", "a", 3);
            bench.run().await;
            assert_eq!(
                (bench.reason(PROTECTED), bench.reason(ACCEPTED)),
                ("Solo".into(), "Accepted".into())
            );
            assert_eq!(bench.members(), ["root", "data"]);
            bench.up("b", true);
            bench.run().await;
            bench.run().await;
            assert_eq!(bench.members(), ["root", "data", "extra"]);
            assert_eq!(bench.reason(PROTECTED), "Running", "{}", bench.message(RECONCILED));
            assert_eq!(bench.at("b", "extra").unwrap().0, "shop.web");
        }
    }
}

#[tokio::test]
async fn a_group_that_is_stopped_while_a_volume_joins_goes_on_with_it() {
    for effects in 1..8 {
        let mut bench = Bench::cluster();
        bench.run().await;
        bench.add_disk("extra", "a", 3);
        bench.unsent(HALF);
        *bench.world.fuse.lock().unwrap() = Some(effects);
        bench.run().await;
        *bench.world.fuse.lock().unwrap() = None;
        bench.desired.wish = Wish::Stop;
        bench.run().await;
        assert_eq!(bench.reason(PROTECTED), "Stopped", "{effects}");
        bench.desired.wish = Wish::Run;
        bench.unsent(0);
        bench.run().await;
        bench.run().await;
        assert_eq!(bench.members(), ["root", "data", "extra"], "{effects}");
        assert_eq!(bench.reason(RECONCILED), "Settled", "{effects}: {}", bench.message(RECONCILED));
    }
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
    assert_eq!(
        (bench.reason(ACCEPTED), bench.reason(RECONCILED)),
        ("Accepted".into(), "Settled".into())
    );
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
