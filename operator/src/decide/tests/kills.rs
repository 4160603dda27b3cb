//! The operator is killed after its first effect, its second, and so on; the next one must bring
//! the same end about. An effect is a call to an engine, a write of the group object or of a
//! volume, the deletion of a pod, or letting go of the BlockReplication.

use understudy_core::units::ByteLen;
use understudy_crds::ReplicationGroupSpec;

use super::Bench;
use crate::desired::Wish;

/// Brings a scenario about once without a kill, then with one after each effect, and twice.
async fn same_end_whenever_killed(name: &str, change: impl Fn(&mut Bench), before: bool) {
    same_end(name, Bench::new, &change, before).await;
    same_end(&format!("{name} in a cluster"), Bench::cluster, &change, before).await;
}

async fn same_end(name: &str, make: fn() -> Bench, change: &impl Fn(&mut Bench), before: bool) {
    let prepare = async || {
        let mut bench = make();
        if before {
            bench.run().await;
        }
        change(&mut bench);
        bench
    };
    same_end_from(name, prepare).await;
}

async fn same_end_from(name: &str, prepare: impl AsyncFn() -> Bench) {
    let whole = prepare().await;
    whole.run().await;
    let (volumes, group) = (whole.volumes(), whole.group_if_any());
    let engines = group.as_ref().map(|_| whole.engines());
    let mut kills = 0;
    for effects in 1.. {
        let bench = prepare().await;
        *bench.world.fuse.lock().unwrap() = Some(effects);
        bench.run().await;
        let died = bench.world.dead();
        // The next operator dies as well, one effect on.
        *bench.world.fuse.lock().unwrap() = Some(1);
        bench.run().await;
        *bench.world.fuse.lock().unwrap() = None;
        bench.run().await;
        let end = bench.group_if_any();
        let number = |text: &str| text.split('-').next().map(str::to_owned);
        let who = |g: &ReplicationGroupSpec| {
            let sides = (g.primary.clone(), g.secondary.clone());
            (number(&g.generation), sides, g.members.clone(), g.left_behind.clone())
        };
        assert_eq!(end.as_ref().map(who), group.as_ref().map(who), "{name}, {effects}");
        let found = end.as_ref().map(|_| bench.engines());
        assert_eq!(found, engines, "{name}, killed after {effects}");
        assert_eq!(bench.volumes(), volumes, "{name}, killed after {effects}");
        assert!(bench.world.pods.lock().unwrap().is_empty(), "{name}, killed after {effects}");
        if !died {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 1, "{name} has effects");
    println!("{name}: killed after each of {kills} effects");
}

#[tokio::test(start_paused = true)]
async fn start_converges() {
    same_end_whenever_killed("start", |_| {}, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_converges() {
    let ask = |b: &mut Bench| b.desired.checkpoint_trigger = Some("now".to_owned());
    same_end_whenever_killed("checkpoint", ask, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_policy_converges() {
    same_end_whenever_killed("policy", |b| b.desired.policy.interval_millis = 7000, true).await;
}

#[tokio::test(start_paused = true)]
async fn stop_converges() {
    same_end_whenever_killed("stop", |b| b.desired.wish = Wish::Stop, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_failover_converges() {
    let lose = |b: &mut Bench| {
        b.world.machines().get_mut("a").unwrap().up = false;
        if b.world.volumes.lock().unwrap().is_some() {
            b.add_pod("db-0", "a");
            b.add_pod("reader", "c");
        }
        b.order_failover("b");
    };
    same_end_whenever_killed("failover", lose, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_failover_with_the_old_primary_that_returns_as_secondary_converges() {
    same_end_whenever_killed("failover and failback", |b| b.order_failover("b"), true).await;
}

#[tokio::test(start_paused = true)]
async fn another_secondary_converges() {
    let move_it = |b: &mut Bench| b.desired.secondary = Some("c".to_owned());
    same_end_whenever_killed("another secondary", move_it, true).await;
}

#[tokio::test(start_paused = true)]
async fn deletion_converges() {
    same_end_whenever_killed("delete", |b| b.desired.wish = Wish::Delete, true).await;
}

#[tokio::test(start_paused = true)]
async fn deletion_after_a_failover_converges() {
    let delete = |b: &mut Bench| {
        b.order_failover("b");
        b.desired.wish = Wish::Delete;
    };
    same_end_whenever_killed("failover and delete", delete, true).await;
}

#[tokio::test(start_paused = true)]
async fn deletion_before_anything_was_started_converges() {
    for effects in 1..4 {
        let half = move || {
            let bench = Bench::cluster();
            *bench.world.fuse.lock().unwrap() = Some(effects);
            bench
        };
        let bench = half();
        bench.once().await;
        *bench.world.fuse.lock().unwrap() = None;
        let mut bench = bench;
        bench.desired.wish = Wish::Delete;
        bench.run().await;
        assert_eq!(bench.group_if_any(), None, "{effects}");
        assert!(bench.volumes().iter().all(|v| v.ends_with("in None")), "{effects}");
    }
}

#[tokio::test(start_paused = true)]
async fn abandoning_converges() {
    let abandon = |b: &mut Bench| {
        b.world.machines().get_mut("a").unwrap().up = false;
        b.desired.wish = Wish::Delete;
        b.desired.abandoned = true;
    };
    same_end("abandon", Bench::cluster, &abandon, true).await;
}

#[tokio::test(start_paused = true)]
async fn growth_converges() {
    let grow = |b: &mut Bench| {
        b.desired.volumes.as_mut().unwrap()[0].member.size = ByteLen(8 << 20);
    };
    same_end_whenever_killed("growth", grow, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_joins_converges() {
    same_end_whenever_killed("join", |b| b.add_disk("extra", "a", 3), true).await;
}

#[tokio::test(start_paused = true)]
async fn two_volumes_that_join_converge() {
    let join = |b: &mut Bench| {
        b.add_disk("extra", "a", 3);
        b.add_disk("more", "a", 2);
    };
    same_end_whenever_killed("two join", join, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_failover_while_a_volume_joins_converges_with_and_without_the_old_primary() {
    for make in [Bench::new, Bench::cluster] {
        for returns in [true, false] {
            let joining = async || {
                let mut bench = make();
                bench.run().await;
                bench.add_disk("extra", "a", 3);
                *bench.world.unsent.lock().unwrap() = 1 << 19;
                bench.run().await;
                bench.order_failover("b");
                bench.world.machines().get_mut("a").unwrap().up = returns;
                bench
            };
            same_end_from(&format!("left behind, {returns}"), joining).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_taken_back_wherever_the_operator_was_killed_is_whole_in_or_out() {
    for effects in 1..8 {
        let half = async || {
            let mut bench = Bench::cluster();
            bench.run().await;
            bench.add_disk("extra", "a", 3);
            *bench.world.fuse.lock().unwrap() = Some(effects);
            bench.run().await;
            *bench.world.fuse.lock().unwrap() = None;
            bench.desired.volumes.as_mut().unwrap().pop();
            bench
        };
        let bench = half().await;
        bench.run().await;
        let members = bench.group().members;
        let a = bench.world.machines()["a"].clone();
        let taken_in = a.groups[&bench.desired.group].members.len() == 3;
        assert_eq!(members.len(), if taken_in { 3 } else { 2 }, "{effects}");
        assert!(members.iter().all(|m| m.joining.is_none()), "{effects}");
        let said = bench.volumes().remove(1);
        assert_eq!(said.ends_with("in None"), !taken_in, "{effects}: {said}");
    }
}
