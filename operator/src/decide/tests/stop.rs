//! A stop ends, whatever the copy lacks: with a last checkpoint, or after a while without.

use std::time::Duration;

use understudy_core::engine::api::Stage;
use understudy_crds::conditions::{PROTECTED, RECONCILED};

use super::Bench;
use crate::desired::Wish;
use crate::observe::Failure;

impl Bench {
    /// As if what the status says had been so for longer by this.
    pub(super) fn later(&self, span: Duration) {
        let mut statuses = self.world.statuses.lock().unwrap();
        let status = statuses.get_mut(&self.desired.name).unwrap();
        for condition in &mut status.conditions {
            condition.last_transition_time.0 -= span;
        }
        if let Some(since) = &mut status.state_since {
            since.0 -= span;
        }
        for replica in &mut status.replicas {
            let seen = replica.observed_time.iter_mut();
            let other = replica.other_pool.iter_mut().map(|o| &mut o.since);
            seen.chain(other).for_each(|time| time.0 -= span);
        }
    }
}

/// The three ways to end a replication with b.
fn ends() -> [fn(&mut Bench); 3] {
    [
        |b| b.desired.wish = Wish::Stop,
        |b| b.desired.wish = Wish::Delete,
        |b| b.desired.secondary = Some("c".to_owned()),
    ]
}

fn has_ended(bench: &Bench) -> bool {
    let machines = bench.world.machines();
    let peer = machines["a"].groups[&bench.desired.group].peer.clone();
    peer != Some(machines["b"].link.clone())
}

#[tokio::test]
async fn a_first_copy_is_given_up_at_once() {
    for end in ends() {
        let mut bench = Bench::new();
        *bench.world.cut.lock().unwrap() = true;
        bench.run().await;
        assert_eq!(bench.reason(PROTECTED), "Syncing");
        end(&mut bench);
        bench.run().await;
        assert!(has_ended(&bench), "{:?}", bench.message(RECONCILED));
    }
}

#[tokio::test]
async fn a_copy_that_lacks_writes_for_30_s_is_left_with_the_checkpoint_before() {
    for end in ends() {
        let mut bench = Bench::new();
        bench.run().await;
        *bench.world.cut.lock().unwrap() = true;
        bench.run().await;
        bench.later(Duration::from_secs(29));
        end(&mut bench);
        bench.run().await;
        assert!(!has_ended(&bench));
        let words = bench.message(RECONCILED);
        assert!(words.contains("bytes that it lacks for a last checkpoint"), "{words}");
        assert!(words.contains("after 30 s it is stopped without"), "{words}");
        bench.later(Duration::from_secs(2));
        bench.run().await;
        assert!(has_ended(&bench), "{:?}", bench.message(RECONCILED));
    }
}

#[tokio::test]
async fn the_copy_that_a_stop_leaves_keeps_its_checkpoint() {
    let mut bench = Bench::new();
    bench.run().await;
    *bench.world.cut.lock().unwrap() = true;
    bench.run().await;
    bench.later(Duration::from_secs(31));
    bench.desired.wish = Wish::Stop;
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Stopped");
    let held = bench.world.machines()["b"].groups[&bench.desired.group].clone();
    assert_eq!((held.stage, held.record), (Stage::Running, 1));
    *bench.world.cut.lock().unwrap() = false;
    bench.desired.wish = Wish::Run;
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Running");
}

#[tokio::test]
async fn a_copy_that_got_what_it_lacked_within_the_30_s_is_stopped_with_a_last_checkpoint() {
    let mut bench = Bench::new();
    bench.run().await;
    *bench.world.cut.lock().unwrap() = true;
    bench.desired.wish = Wish::Stop;
    bench.run().await;
    *bench.world.cut.lock().unwrap() = false;
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Stopped");
    let held = bench.world.machines()["b"].groups[&bench.desired.group].clone();
    assert_eq!(held.stage, Stage::None, "the last frame reached it");
}

#[tokio::test]
async fn degradation_is_counted_from_when_it_began_in_this_generation() {
    let bench = Bench::new();
    bench.run().await;
    let running = bench.status().state_since;
    bench.later(Duration::from_secs(100));
    *bench.world.cut.lock().unwrap() = true;
    bench.run().await;
    let degraded = bench.status().state_since;
    assert!(degraded >= running, "not since the one before");
    bench.run().await;
    assert_eq!(bench.status().state_since, degraded);
}

#[tokio::test]
async fn a_stop_that_an_engine_could_not_end_is_tried_again_only_for_a_copy_that_is_kept() {
    for (end, ended) in ends().into_iter().zip([false, true, true]) {
        let mut bench = Bench::new();
        bench.run().await;
        *bench.world.cut.lock().unwrap() = true;
        bench.run().await;
        end(&mut bench);
        let message = "stopping on a after a last checkpoint failed".to_owned();
        let failure = Failure { message, no_last_checkpoint: true };
        bench.pass_after(Some(failure)).await;
        assert_eq!(has_ended(&bench), ended);
    }
}

#[tokio::test]
async fn a_changed_policy_reaches_the_engines_before_the_stop_that_waits() {
    for end in [ends()[0], ends()[2]] {
        let mut bench = Bench::new();
        bench.run().await;
        *bench.world.cut.lock().unwrap() = true;
        bench.run().await;
        end(&mut bench);
        bench.desired.policy.undo_limit_bytes = 1 << 30;
        bench.run().await;
        let held = bench.world.machines()["a"].groups[&bench.desired.group].clone();
        assert_eq!(held.policy.undo_limit.unwrap().0, 1 << 30);
        assert!(!has_ended(&bench));
    }
}

#[tokio::test]
async fn a_secondary_whose_address_has_changed_is_reached_again_by_stopped_and_running() {
    let mut bench = Bench::new();
    bench.run().await;
    let link: understudy_core::engine::api::Address = "tcp:127.0.0.1:7999".parse().unwrap();
    bench.world.machines().get_mut("b").unwrap().link = link.clone();
    *bench.world.cut.lock().unwrap() = true;
    bench.run().await;
    bench.later(Duration::from_secs(31));
    bench.desired.wish = Wish::Stop;
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Stopped");
    *bench.world.cut.lock().unwrap() = false;
    bench.desired.wish = Wish::Run;
    bench.run().await;
    assert_eq!(bench.reason(PROTECTED), "Running");
    let peer = bench.world.machines()["a"].groups[&bench.desired.group].peer.clone();
    assert_eq!(peer, Some(link));
}
