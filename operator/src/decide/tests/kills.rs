//! The operator is killed after its first effect, its second, and so on; the next one must bring
//! the same end about. An effect is a call to an engine or a write of the group object.

use super::Bench;
use crate::desired::Wish;

/// Brings a scenario about once without a kill, then with one after each effect, and twice.
async fn same_end_whenever_killed(name: &str, change: impl Fn(&mut Bench), before: bool) {
    let prepare = async || {
        let mut bench = Bench::new();
        if before {
            bench.run().await;
        }
        change(&mut bench);
        bench
    };
    let whole = prepare().await;
    whole.run().await;
    let (engines, group) = (whole.engines(), whole.group());
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
        assert_eq!(bench.engines(), engines, "{name}, killed after {effects}");
        let end = bench.group();
        let number = |text: &str| text.split('-').next().map(str::to_owned);
        assert_eq!(number(&end.generation), number(&group.generation), "{name}, {effects}");
        assert_eq!((end.primary, end.secondary), (group.primary.clone(), group.secondary.clone()));
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
        b.order_failover("b");
    };
    same_end_whenever_killed("failover", lose, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_failover_with_the_old_primary_still_there_converges() {
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
