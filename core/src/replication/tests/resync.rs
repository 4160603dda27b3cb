//! What the peer lacks is sent at its pace, beside the VM, and no lost session begins it anew.

use std::time::Duration;

use super::pair::{Pair, at, fill, policy, read, reopen, run, spec};
use crate::disk::Disk;
use crate::overlay::{INTENT_REGION, Policy, Role};
use crate::replication::ExportKind::{Primary, Secondary};
use crate::replication::LinkState;
use crate::runtime::Env;
use crate::sim::{Direction, Sim};
use crate::units::{ByteRange, Epoch};

const SIZE: u64 = 4 << 20;
const ALL: ByteRange = ByteRange { start: 0, end: SIZE };
/// What is sent before both sides flush, here.
const SETTLE: u64 = 128 << 10;
/// What may be under way when a session is lost: the window, and what is being settled.
const UNDER_WAY: u64 = (64 << 10) + 2 * SETTLE + (16 << 10);

fn slow(sim: &Sim) -> Policy {
    sim.set_resync_settle(SETTLE);
    sim.set_intent_hot(0);
    sim.set_network_capacity(8 << 10);
    sim.set_network_delay(Duration::from_millis(2)..Duration::from_millis(4));
    Policy { window: 64 << 10, ..policy() }
}

async fn syncing(sim: &Sim) -> Pair {
    let policy = slow(sim);
    let pair = Pair::new(sim, &[SIZE], Some(0x11)).await;
    pair.secondary.start(spec(Role::Secondary, policy.clone())).await.unwrap();
    pair.primary.start(spec(Role::Primary, policy)).await.unwrap();
    pair.wait_for(|p| {
        let s = p.primary.status();
        s.link == LinkState::Syncing && s.missing < SIZE / 2 && s.missing > 0
    })
    .await;
    pair
}

/// The whole of it is there in the end.
async fn completes(pair: &Pair) {
    pair.in_sync().await;
    pair.checkpoint().await;
    let local = read(&pair.volume(Primary), ALL).await.unwrap();
    assert!(read(&pair.volume(Secondary), ALL).await.unwrap() == local);
}

/// How much is missing once there is a session again.
async fn missing_again(pair: &Pair, sessions: u64) -> u64 {
    pair.wait_for(|p| p.primary.status().counts.sessions > sessions).await;
    pair.primary.status().missing
}

#[test]
fn an_initial_copy_goes_on_where_it_was_when_the_link_is_lost() {
    run(|sim| async move {
        let pair = syncing(&sim).await;
        let (before, sessions) = (pair.primary.status().missing, 1);
        sim.partition("a", "b", Direction::Both);
        sim.cut("a", "b");
        sim.pause(Duration::from_millis(100)).await;
        sim.heal("a", "b");
        let after = missing_again(&pair, sessions).await;
        assert!(after <= before + UNDER_WAY, "{after} after {before}");
        completes(&pair).await;
    });
}

#[test]
fn an_initial_copy_goes_on_where_it_was_when_the_secondary_lost_its_power() {
    run(|sim| async move {
        let mut pair = syncing(&sim).await;
        let before = pair.primary.status().missing;
        sim.power_cut("b");
        sim.pause(Duration::from_millis(100)).await;
        pair.reopen_secondary().await;
        let after = missing_again(&pair, 1).await;
        assert!(after <= before + UNDER_WAY, "{after} after {before}");
        completes(&pair).await;
    });
}

#[test]
fn an_initial_copy_goes_on_by_regions_when_the_primary_lost_its_power() {
    run(|sim| async move {
        let mut pair = syncing(&sim).await;
        let before = pair.primary.status().missing;
        sim.power_cut("a");
        sim.pause(Duration::from_millis(100)).await;
        pair.primary = reopen(&sim.node("a"), 1).await.unwrap();
        let after = missing_again(&pair, 0).await;
        // What was under way is one stretch of the volume, and each end of it may cut a region.
        let most = (before + UNDER_WAY).next_multiple_of(INTENT_REGION) + INTENT_REGION;
        assert!(after <= most, "{after} after {before}");
        assert!(after < SIZE, "{after} after {before}");
        completes(&pair).await;
    });
}

#[test]
fn a_secondary_that_was_started_anew_gets_everything() {
    run(|sim| async move {
        let mut pair = syncing(&sim).await;
        // Somebody gives the copy up, and another one takes its name and its generation.
        pair.secondary.stop(super::pair::G1, true).await.unwrap();
        fill(&pair.secondary_disk(), ALL, 0xee).await.unwrap();
        pair.secondary.start(spec(Role::Secondary, slow(&sim))).await.unwrap();
        pair.wait_for(|p| p.primary.status().link == LinkState::Syncing).await;
        completes(&pair).await;
        // The same, when the word of it is lost with the power of either side.
        pair.secondary.stop(super::pair::G1, true).await.unwrap();
        fill(&pair.secondary_disk(), ALL, 0xee).await.unwrap();
        pair.secondary.start(spec(Role::Secondary, slow(&sim))).await.unwrap();
        sim.power_cut("b");
        sim.pause(Duration::from_millis(50)).await;
        pair.reopen_secondary().await;
        completes(&pair).await;
    });
}

#[test]
fn a_resync_keeps_below_its_ceiling() {
    run(|sim| async move {
        let pair = Pair::new(&sim, &[SIZE], Some(0x11)).await;
        let rate = SIZE / 2;
        let began = sim.elapsed();
        pair.start(Policy { resync_ceiling: rate, ..policy() }).await;
        let took = sim.elapsed().saturating_sub(began);
        // A step more than it may is sent at once in each second.
        assert!(took > Duration::from_millis(1700), "{took:?}");
        assert!(took < Duration::from_secs(3), "{took:?}");
    });
}

/// How long an initial copy takes while the VM writes as fast as it can to another volume.
async fn copied_under_load(sim: &Sim, floor: u64) -> Duration {
    let policy = Policy {
        resync_floor: floor,
        max_delay: Duration::from_secs(2),
        checkpoint_interval: Duration::from_mins(10),
        ..slow(sim)
    };
    let pair = Pair::new(sim, &[SIZE, 1 << 20], Some(0x11)).await;
    pair.secondary.start(spec(Role::Secondary, policy.clone())).await.unwrap();
    pair.primary.start(spec(Role::Primary, policy)).await.unwrap();
    let host = sim.node("a");
    for i in 0..16 {
        let busy = pair.primary.volume(crate::units::VolumeIndex(1), Primary).unwrap();
        host.spawn("load", async move {
            loop {
                let _ = fill(&busy, at(i * (64 << 10), 16 << 10), 0x22).await;
            }
        });
    }
    let began = sim.elapsed();
    let limit = host.now().after(Duration::from_secs(50));
    while pair.primary.status().checkpoint.epoch == Epoch::NONE && host.now() < limit {
        host.sleep(Duration::from_millis(10)).await;
    }
    sim.elapsed().saturating_sub(began)
}

#[test]
fn a_resync_ends_although_the_vm_fills_the_window_all_the_time() {
    let sim = Sim::new(Sim::seed_or(7));
    let s = sim.clone();
    let took = sim.block_on(async move { copied_under_load(&s, 512 << 10).await });
    assert!(took < Duration::from_secs(20), "{took:?}");
    // And it is the floor that does it.
    let sim = Sim::new(Sim::seed_or(7));
    let s = sim.clone();
    let without = sim.block_on(async move { copied_under_load(&s, 0).await });
    assert!(without > took * 2, "{without:?} without a floor, {took:?} with it");
}

impl Pair {
    /// The secondary's replica itself, while nobody uses it.
    fn secondary_disk(&self) -> impl Disk + use<> {
        self.secondary.disks().swap_remove(0)
    }
}
