//! A failover while a volume joins: what is left behind, who serves it then, and how it comes back.

use understudy_core::engine::api::Role;
use understudy_crds::conditions::{ACCEPTED, FAILED_OVER, PROTECTED, RECONCILED};

use super::Bench;
use super::disks::HALF;

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
    assert_eq!(
        (bench.reason(ACCEPTED), bench.reason(PROTECTED)),
        ("Accepted".into(), "Running".into())
    );
}

#[tokio::test]
async fn a_volume_that_was_left_behind_and_is_being_deleted_is_not_served_again() {
    let mut bench = Bench::cluster();
    bench.run().await;
    bench.add_disk("extra", "a", 3);
    bench.unsent(HALF);
    bench.run().await;
    bench.up("a", false);
    bench.order_failover("b");
    bench.run().await;
    {
        let mut all = bench.world.volumes.lock().unwrap();
        let extra = all.as_mut().unwrap().get_mut(&"extra".parse().unwrap()).unwrap();
        (extra.generation, extra.spec.generation) = (None, None);
    }
    bench.up("a", true);
    bench.run().await;
    assert_eq!(bench.volume("extra"), "extra on Some(\"a\") at None in None");
    assert_eq!(bench.at("a", "extra").map(|(group, _)| group), None, "in no group any more");
    assert_eq!(bench.reason(PROTECTED), "Running", "{}", bench.message(RECONCILED));
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
