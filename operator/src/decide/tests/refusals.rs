//! What can't be done is said, with the remedy, and nothing is touched.

use understudy_core::engine::api::Member;
use understudy_core::units::ByteLen;
use understudy_crds::conditions::{ACCEPTED, FAILED_OVER, RECONCILED};

use super::Bench;
use crate::desired::{FailoverOrder, Refusal, SourceVolume, Wish};

/// A change, the reason and a word of the remedy.
type Row = (fn(&mut Bench), &'static str, &'static str);

#[tokio::test]
async fn a_group_that_can_not_be_started_says_why_before_anything_is_made() {
    let table: [Row; 10] = [
        (|b| b.desired.secondary = Some("z".to_owned()), "UnknownNode", "known are a, b, c"),
        (|b| b.desired.primary = Some("z".to_owned()), "UnknownNode", "spec.primary.node"),
        (|b| b.desired.secondary = None, "SecondaryUnknown", "spec.secondary.node; known are b, c"),
        (
            |b| {
                b.desired.secondary = None;
                let mut machines = b.world.machines();
                machines.get_mut("b").unwrap().closed_node = Some("is cordoned".to_owned());
                machines.get_mut("c").unwrap().closed_node = Some("has the taint x:y".to_owned());
            },
            "SecondaryUnknown",
            "(b is cordoned, c has the taint x:y): uncordon or add one, or name one of them",
        ),
        (|b| b.desired.secondary = Some("a".to_owned()), "SecondaryUnknown", "name another node"),
        (|b| b.desired.primary = Some("c".to_owned()), "PrimaryUnknown", "move it first"),
        (
            |b| b.desired.volumes.as_mut().unwrap()[0].node = None,
            "PrimaryUnknown",
            "spec.primary.node",
        ),
        (
            |b| {
                let mut machines = b.world.machines();
                let b = machines.get_mut("b").unwrap();
                b.replicas.insert("root".parse().unwrap(), ByteLen(512));
            },
            "SizeMismatch",
            "its replica on b has 512",
        ),
        (
            |b| b.desired.volumes = Err(Refusal::new("SourceNotFound", "there is no claim")),
            "SourceNotFound",
            "there is no claim",
        ),
        (|b| b.world.machines().clear(), "UnknownNode", "known are"),
    ];
    for (change, reason, remedy) in table {
        let mut bench = Bench::new();
        change(&mut bench);
        bench.run().await;
        assert_eq!(bench.reason(ACCEPTED), reason);
        assert!(bench.message(ACCEPTED).contains(remedy), "{}", bench.message(ACCEPTED));
        assert!(bench.world.groups.lock().unwrap().is_empty());
        assert!(bench.world.machines().values().all(|m| m.groups.is_empty()));
    }
}

#[tokio::test]
async fn a_group_goes_on_when_its_source_changes_or_is_lost() {
    let changes: [Row; 3] = [
        (|b| drop(b.desired.volumes.as_mut().unwrap().pop()), "MembersChanged", "data is missing"),
        (
            |b| b.desired.volumes.as_mut().unwrap()[0].member.size = ByteLen(1 << 19),
            "SizeMismatch",
            "a volume never shrinks",
        ),
        (
            |b| b.desired.volumes = Err(Refusal::new("SourceNotFound", "no claim")),
            "SourceNotFound",
            "no claim",
        ),
    ];
    for (change, reason, remedy) in changes {
        let mut bench = Bench::new();
        bench.run().await;
        let engines = bench.engines();
        change(&mut bench);
        bench.run().await;
        assert_eq!(bench.reason(ACCEPTED), reason);
        assert!(bench.message(ACCEPTED).contains(remedy), "{}", bench.message(ACCEPTED));
        assert_eq!(bench.engines(), engines);
        // A failover does not need the source.
        bench.order_failover("b");
        bench.run().await;
        assert_eq!(bench.reason(FAILED_OVER), "Promoted");
    }
}

#[tokio::test]
async fn an_order_to_fail_over_that_was_not_meant_for_this_is_refused() {
    let table: [Row; 5] = [
        (
            |b| {
                b.desired.failover = Some(FailoverOrder {
                    replace: "7-00000000000000ff".parse().unwrap(),
                    target: "b".to_owned(),
                });
            },
            "StaleGeneration",
            "if it is still meant, name 1-",
        ),
        (|b| b.order_failover("c"), "TargetIsNotSecondary", "b is"),
        (|b| b.order_failover("a"), "TargetIsNotSecondary", "only the secondary has a copy"),
        (
            |b| {
                b.order_failover("b");
                b.world.machines().get_mut("b").unwrap().up = false;
            },
            "TargetUnreachable",
            "the order stands",
        ),
        (
            |b| {
                b.order_failover("b");
                let mut machines = b.world.machines();
                machines.get_mut("a").unwrap().up = false;
                let held = machines.get_mut("b").unwrap().groups.values_mut().next().unwrap();
                held.record = 0;
            },
            "NothingToPromote",
            "Let the first checkpoint complete",
        ),
    ];
    for (change, reason, remedy) in table {
        let mut bench = Bench::new();
        bench.run().await;
        let before = bench.group().generation;
        change(&mut bench);
        bench.run().await;
        assert_eq!(bench.reason(FAILED_OVER), reason);
        assert!(bench.message(FAILED_OVER).contains(remedy), "{}", bench.message(FAILED_OVER));
        assert_eq!(bench.group().generation, before);
    }
}

#[tokio::test]
async fn a_group_whose_manifest_has_become_wrong_goes_on_and_says_so() {
    let mut bench = Bench::new();
    bench.run().await;
    let engines = bench.engines();
    bench.desired.refused = Some(Refusal::new("InvalidManifest", "no such field"));
    bench.run().await;
    assert_eq!(bench.reason(ACCEPTED), "InvalidManifest");
    assert_eq!(bench.engines(), engines);
}

#[tokio::test]
async fn a_node_that_is_cordoned_or_tainted_holds_a_copy_only_if_it_is_named() {
    for (asked, chosen) in [(None, "c"), (Some("b".to_owned()), "b")] {
        let mut bench = Bench::new();
        bench.desired.secondary = asked;
        {
            let mut machines = bench.world.machines();
            let b = machines.get_mut("b").unwrap();
            (b.available, b.closed_node) = (Some(ByteLen(100)), Some("is cordoned".to_owned()));
            machines.get_mut("c").unwrap().available = Some(ByteLen(1));
        }
        bench.run().await;
        assert_eq!(bench.group().secondary.unwrap().node, chosen);
        // One that has a copy keeps it.
        bench.world.machines().get_mut(chosen).unwrap().closed_node = Some("is cordoned".into());
        bench.run().await;
        assert_eq!(bench.group().secondary.unwrap().node, chosen);
        assert_eq!(bench.reason(ACCEPTED), "Accepted");
    }
}

#[tokio::test]
async fn another_primary_in_the_manifest_moves_nothing_and_is_not_called_accepted() {
    for wish in [Wish::Run, Wish::Stop] {
        let mut bench = Bench::new();
        bench.desired.primary = Some("a".to_owned());
        bench.run().await;
        bench.desired.wish = wish;
        bench.run().await;
        assert_eq!(bench.reason(ACCEPTED), "Accepted");
        let engines = bench.engines();
        bench.desired.primary = Some("c".to_owned());
        bench.run().await;
        assert_eq!(bench.reason(ACCEPTED), "PrimaryChanged");
        let words = bench.message(ACCEPTED);
        assert!(words.contains("kubectl understudy failover web -n shop"), "{words}");
        assert_eq!(bench.engines(), engines);
    }
}

#[tokio::test]
async fn a_primary_may_stay_named_when_a_failover_has_swapped_the_roles() {
    let mut bench = Bench::new();
    bench.desired.primary = Some("a".to_owned());
    bench.run().await;
    bench.order_failover("b");
    bench.run().await;
    for (named, reason) in [("a", "Accepted"), ("b", "Accepted"), ("c", "PrimaryChanged")] {
        bench.desired.primary = Some(named.to_owned());
        bench.run().await;
        assert_eq!(bench.reason(ACCEPTED), reason, "{named}: {}", bench.message(ACCEPTED));
    }
}

#[tokio::test]
async fn what_changes_while_it_is_stopped_is_not_called_settled_before_it_is_obeyed() {
    let table: [Row; 2] = [
        (|b| b.desired.secondary = Some("c".to_owned()), "Accepted", "to make the copy on c"),
        (
            |b| {
                let member = Member { volume: "more".parse().unwrap(), size: ByteLen(1 << 20) };
                let mut machines = b.world.machines();
                let a = machines.get_mut("a").unwrap();
                a.replicas.insert(member.volume.clone(), member.size);
                let volume = SourceVolume { member, node: Some("a".to_owned()) };
                b.desired.volumes.as_mut().unwrap().push(volume);
            },
            "Accepted",
            "to take in what the source names more",
        ),
    ];
    for (change, accepted, words) in table {
        let mut bench = Bench::new();
        bench.run().await;
        bench.desired.wish = Wish::Stop;
        bench.run().await;
        assert_eq!(bench.reason(RECONCILED), "Settled");
        change(&mut bench);
        bench.run().await;
        assert_eq!(bench.reason(ACCEPTED), accepted, "{}", bench.message(ACCEPTED));
        assert_eq!(bench.reason(RECONCILED), "Progressing");
        assert!(bench.message(RECONCILED).contains(words), "{}", bench.message(RECONCILED));
        bench.desired.wish = Wish::Run;
        bench.run().await;
        bench.run().await;
        assert_eq!(bench.reason(RECONCILED), "Settled", "{}", bench.message(RECONCILED));
    }
}
