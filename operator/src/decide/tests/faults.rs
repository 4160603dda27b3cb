//! Engines that are gone, are not the ones that are meant, or know more than the group object.

use understudy_core::engine::api::{Generation, Uuid};
use understudy_crds::conditions::{ENGINES_REACHABLE, PROTECTED, RECONCILED};

use super::Bench;
use crate::desired::Wish;

#[tokio::test]
async fn another_pool_at_a_nodes_address_is_not_taken_for_the_replica() {
    let mut bench = Bench::new();
    bench.run().await;
    {
        let mut machines = bench.world.machines();
        let b = machines.get_mut("b").unwrap();
        b.pool = Uuid(99);
        b.groups.clear();
        b.replicas.clear();
    }
    bench.run().await;
    assert_eq!(bench.reason(ENGINES_REACHABLE), "WrongPool");
    assert!(bench.message(ENGINES_REACHABLE).contains("correct the address"));
    assert!(bench.world.machines()["b"].replicas.is_empty(), "nothing is made in it");
    bench.order_failover("b");
    bench.run().await;
    assert_eq!(bench.generation().number, 1);
}

#[tokio::test]
async fn a_replica_ahead_of_the_group_object_puts_everything_on_hold() {
    let mut bench = Bench::new();
    bench.run().await;
    {
        let mut machines = bench.world.machines();
        let held = machines.get_mut("b").unwrap().groups.values_mut().next().unwrap();
        held.generation = Generation { number: 5, id: 1 };
    }
    bench.desired.wish = Wish::Stop;
    let engines = bench.engines();
    bench.run().await;
    assert_eq!(bench.reason(RECONCILED), "ReplicaAhead");
    assert!(bench.message(RECONCILED).contains("nothing is touched"));
    assert_eq!(bench.engines(), engines);
}

#[tokio::test]
async fn replicas_without_a_group_object_are_not_taken_over() {
    let bench = Bench::new();
    bench.run().await;
    bench.world.groups.lock().unwrap().clear();
    bench.run().await;
    assert_eq!(bench.reason(RECONCILED), "ReplicaAhead");
    assert!(bench.message(RECONCILED).contains("put the group object back"));
}

#[tokio::test]
async fn a_primary_that_lost_its_replicas_gets_no_empty_ones_in_their_place() {
    let bench = Bench::new();
    bench.run().await;
    {
        let mut machines = bench.world.machines();
        let a = machines.get_mut("a").unwrap();
        a.replicas.clear();
        a.groups.clear();
    }
    bench.run().await;
    assert!(bench.world.machines()["a"].replicas.is_empty());
    assert!(bench.message(RECONCILED).contains("has lost replicas"));
    assert_eq!(bench.reason(PROTECTED), "PrimaryUnreachable");
}

#[tokio::test]
async fn a_stop_waits_for_a_secondary_that_is_away_and_then_goes_on_without() {
    let mut bench = Bench::new();
    bench.run().await;
    bench.world.machines().get_mut("b").unwrap().up = false;
    bench.desired.wish = Wish::Stop;
    bench.run().await;
    assert!(bench.message(RECONCILED).contains("after 30 s it is stopped without"));
    {
        let mut statuses = bench.world.statuses.lock().unwrap();
        let status = statuses.get_mut(&bench.desired.name).unwrap();
        for condition in &mut status.conditions {
            condition.last_transition_time.0 -= std::time::Duration::from_secs(31);
        }
    }
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Stopped");
}

#[tokio::test]
async fn an_action_that_fails_is_named_and_tried_again() {
    let bench = Bench::new();
    // Another group's primary keeps the replica from fitting: the engine refuses to start.
    bench.once().await;
    {
        let mut machines = bench.world.machines();
        let b = machines.get_mut("b").unwrap();
        b.groups.clear();
        // Too large: replicas grow, but never shrink.
        let size = understudy_core::units::ByteLen(2 << 20);
        b.replicas.insert("data".parse().unwrap(), size);
        machines.get_mut("a").unwrap().groups.values_mut().for_each(|h| h.peer = None);
    }
    bench.once().await;
    assert_eq!(bench.reason(RECONCILED), "ActionFailed");
    assert!(bench.message(RECONCILED).contains("starting b as secondary failed"));
    {
        let size = understudy_core::units::ByteLen(1 << 20);
        let mut machines = bench.world.machines();
        machines.get_mut("b").unwrap().replicas.insert("data".parse().unwrap(), size);
    }
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Running");
}

#[tokio::test]
async fn a_group_that_is_closed_for_a_moment_is_no_reason_to_do_anything() {
    for (wish, node) in [
        (Wish::Run, "a"),
        (Wish::Run, "b"),
        (Wish::Stop, "a"),
        (Wish::Delete, "a"),
        (Wish::Delete, "b"),
    ] {
        let mut bench = Bench::cluster();
        bench.run().await;
        let (engines, status) = (bench.engines(), bench.status());
        bench.world.machines().get_mut(node).unwrap().closed = true;
        bench.desired.wish = wish;
        bench.once().await;
        assert_eq!(bench.engines(), engines, "{wish:?}, {node} closed");
        assert_eq!(bench.status(), status, "nothing is said of half a look");
        bench.world.machines().get_mut(node).unwrap().closed = false;
        bench.run().await;
        assert_eq!(bench.group_if_any().is_none(), wish == Wish::Delete, "then it goes on");
    }
}
