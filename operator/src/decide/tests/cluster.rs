//! Where volumes are kept: they enter a group, grow, are taken over by another node, and leave.

use understudy_core::engine::api::{Generation, Stage};
use understudy_core::units::ByteLen;
use understudy_crds::conditions::{ACCEPTED, FAILED_OVER, PROTECTED, RECONCILED};

use super::Bench;
use crate::desired::Wish;

#[tokio::test]
async fn live_volumes_are_taken_into_a_group_above_all_their_generations() {
    let bench = Bench::cluster();
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Running", "{}", bench.message(RECONCILED));
    assert_eq!(bench.generation().number, 5);
    assert_eq!(
        bench.volumes(),
        [
            "data on Some(\"a\") at Some(4) in Some(\"shop.web\")",
            "root on Some(\"a\") at Some(1) in Some(\"shop.web\")",
        ]
    );
    // The solo groups are empty and gone.
    assert_eq!(bench.world.machines()["a"].groups.len(), 1);
}

#[tokio::test]
async fn after_the_end_the_volumes_say_who_serves_them_and_can_be_taken_in_again() {
    let mut bench = Bench::cluster();
    bench.run().await;
    bench.order_failover("b");
    bench.run().await;
    let number = bench.generation().number;
    bench.desired.failover = None;
    bench.desired.wish = Wish::Delete;
    bench.run().await;
    assert_eq!(bench.group_if_any(), None);
    let on_b = |name| format!("{name} on Some(\"b\") at Some({number}) in None");
    assert_eq!(bench.volumes(), [on_b("data"), on_b("root")]);
    assert!(bench.world.statuses.lock().unwrap().is_empty(), "let go of");
    assert_eq!(bench.world.machines()["a"].replicas.len(), 0, "the copy is deleted");
    // Again, under the same name, from where they are now.
    bench.desired.wish = Wish::Run;
    bench.desired.secondary = Some("a".to_owned());
    for volume in bench.desired.volumes.as_mut().unwrap() {
        volume.node = Some("b".to_owned());
    }
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Running", "{}", bench.message(RECONCILED));
    assert_eq!(bench.generation().number, number + 1);
    assert_eq!(bench.group().primary.node, "b");
}

#[tokio::test]
async fn the_escape_hatch_asks_no_engine() {
    let mut bench = Bench::cluster();
    bench.run().await;
    for machine in bench.world.machines().values_mut() {
        machine.up = false;
    }
    bench.desired.wish = Wish::Delete;
    bench.run().await;
    assert!(bench.message(RECONCILED).contains("understudy.dev/abandon=true"));
    assert!(bench.group_if_any().is_some());
    bench.desired.abandoned = true;
    bench.run().await;
    assert_eq!(bench.group_if_any(), None);
    assert_eq!(bench.volumes()[0], "data on Some(\"a\") at Some(5) in None");
    assert!(bench.world.statuses.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_group_that_no_engine_heard_of_ends_without_one() {
    let mut bench = Bench::cluster();
    *bench.world.fuse.lock().unwrap() = Some(1);
    let _killed = bench.once().await;
    *bench.world.fuse.lock().unwrap() = None;
    bench.world.machines().get_mut("a").unwrap().up = false;
    bench.desired.wish = Wish::Delete;
    bench.run().await;
    assert_eq!(bench.group_if_any(), None);
    assert_eq!(bench.volumes()[0], "data on Some(\"a\") at Some(4) in None");
}

#[tokio::test]
async fn volumes_that_can_not_be_taken_in_are_named_and_nothing_is_made() {
    type Change = fn(&mut Bench);
    let table: [(Change, &str, &str, &str); 5] = [
        (
            |b| {
                let mut all = b.world.volumes.lock().unwrap();
                let volume = all.as_mut().unwrap().values_mut().next().unwrap();
                volume.spec.group = Some("shop.other".to_owned());
            },
            ACCEPTED,
            "SourceConflict",
            "in group shop.other",
        ),
        (
            |b| {
                let mut all = b.world.volumes.lock().unwrap();
                all.as_mut().unwrap().values_mut().next().unwrap().generation = None;
            },
            RECONCILED,
            "Progressing",
            "to be made by the CSI driver",
        ),
        (
            |b| {
                let mut all = b.world.volumes.lock().unwrap();
                all.as_mut().unwrap().values_mut().next().unwrap().spec.pool = Some("x".to_owned());
            },
            RECONCILED,
            "ReplicaAhead",
            "give that engine its pool back",
        ),
        (
            |b| {
                let mut machines = b.world.machines();
                let held = machines.get_mut("a").unwrap().groups.values_mut().next().unwrap();
                held.generation = Generation { number: 8, id: 1 };
            },
            RECONCILED,
            "ReplicaAhead",
            "obeys generation 8-",
        ),
        (
            |b| {
                let mut all = b.world.volumes.lock().unwrap();
                let volume = all.as_mut().unwrap().values_mut().next().unwrap();
                volume.spec.group = Some("shop.web".to_owned());
            },
            RECONCILED,
            "ReplicaAhead",
            "Put the group object back",
        ),
    ];
    for (change, condition, reason, words) in table {
        let mut bench = Bench::cluster();
        change(&mut bench);
        bench.run().await;
        assert_eq!(bench.reason(condition), reason, "{words}");
        let said = bench.message(condition);
        assert!(said.contains(words), "wanted {words:?} in {said}");
        assert_eq!(bench.group_if_any(), None);
        assert!(bench.world.machines()["b"].replicas.is_empty());
    }
}

#[tokio::test]
async fn a_larger_volume_grows_at_the_secondary_then_at_the_primary() {
    let mut bench = Bench::cluster();
    bench.run().await;
    bench.world.machines().get_mut("b").unwrap().up = false;
    bench.desired.volumes.as_mut().unwrap()[0].member.size = ByteLen(4 << 20);
    bench.run().await;
    let size = |node: &str| bench.world.machines()[node].replicas[&"root".parse().unwrap()];
    assert_eq!(bench.group().members[0].size_bytes, 4 << 20);
    assert_eq!(size("a"), ByteLen(1 << 20), "not before its secondary");
    bench.world.machines().get_mut("b").unwrap().up = true;
    bench.run().await;
    assert_eq!((size("a"), size("b")), (ByteLen(4 << 20), ByteLen(4 << 20)));
    assert_eq!(bench.reason(PROTECTED), "Running");
}

#[tokio::test]
async fn a_new_secondary_of_a_volume_that_is_yet_to_grow_gets_the_size_that_the_primary_has() {
    let mut bench = Bench::cluster();
    bench.world.machines().get_mut("b").unwrap().up = false;
    bench.run().await;
    bench.desired.volumes.as_mut().unwrap()[0].member.size = ByteLen(4 << 20);
    bench.run().await;
    bench.world.machines().get_mut("b").unwrap().up = true;
    bench.run().await;
    let size = |node: &str| bench.world.machines()[node].replicas[&"root".parse().unwrap()];
    assert_eq!((size("a"), size("b")), (ByteLen(4 << 20), ByteLen(4 << 20)));
    assert_eq!(bench.reason(PROTECTED), "Running", "{}", bench.message(RECONCILED));
}

#[tokio::test]
async fn pods_that_used_the_volumes_are_deleted_after_a_promotion_and_later_ones_are_not() {
    let mut bench = Bench::cluster();
    bench.run().await;
    bench.add_pod("db-0", "a");
    bench.add_pod("reader", "c");
    bench.world.machines().get_mut("a").unwrap().up = false;
    bench.order_failover("b");
    bench.run().await;
    assert_eq!(bench.reason(FAILED_OVER), "Promoted");
    assert_eq!(*bench.world.deleted.lock().unwrap(), ["db-0!", "reader"]);
    assert_eq!(bench.group().promotion.unwrap().pods, Some(vec![]));
    bench.add_pod("db-0", "b");
    bench.run().await;
    assert_eq!(bench.world.pods.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_pod_that_never_ends_on_a_node_that_dies_later_is_removed_by_force() {
    let mut bench = Bench::cluster();
    bench.run().await;
    bench.add_pod("db-0", "c");
    bench.world.pods.lock().unwrap()[0].deleting = Some(30);
    bench.order_failover("b");
    bench.run().await;
    assert!(bench.world.deleted.lock().unwrap().is_empty(), "asked for already");
    assert!(bench.message(RECONCILED).contains("pod shop/db-0 to end"));
    bench.world.machines().get_mut("c").unwrap().up = false;
    bench.run().await;
    assert_eq!(*bench.world.deleted.lock().unwrap(), ["db-0!"]);
}

#[tokio::test]
async fn what_an_older_group_left_on_the_new_secondary_is_removed_first() {
    let bench = Bench::cluster();
    {
        let mut machines = bench.world.machines();
        let a = machines["a"].clone();
        let b = machines.get_mut("b").unwrap();
        b.replicas = a.replicas;
        b.groups = a.groups;
        for held in b.groups.values_mut() {
            held.generation.number = 1;
            held.generation.id = 9;
            held.stage = Stage::None;
        }
        b.replicas.insert("data".parse().unwrap(), ByteLen(512));
    }
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Running", "{}", bench.message(RECONCILED));
    assert_eq!(bench.world.machines()["b"].groups.len(), 1);
}

#[tokio::test]
async fn where_nobody_names_a_secondary_the_one_with_the_most_space_is_taken() {
    let mut bench = Bench::cluster();
    bench.desired.secondary = None;
    bench.world.machines().get_mut("b").unwrap().available = Some(ByteLen(1 << 30));
    bench.world.machines().get_mut("c").unwrap().available = Some(ByteLen(1 << 40));
    bench.run().await;
    assert_eq!(bench.group().secondary.unwrap().node, "c");
}
