//! The 13 scenarios of upstream's unit test of block replication, with exact equality.
//!
//! 1 to 6 are asked of the forwarding leg, which is what upstream's primary filter is; 7 to 13 of a
//! secondary that a foreign primary writes to (inbound). Where upstream's comparison let 0x22 pass,
//! the right answer is the checkpoint's 0x11.

use super::pair::{self, G1, G2, Pair, at, fill, pattern, policy, run};
use crate::disk::{ErrorKind, Result};
use crate::overlay::{Policy, Role, Stage};
use crate::replication::ExportKind::{Inbound, Primary, Secondary, View};
use crate::replication::{ExportKind, FailoverSpec, Group, StartSpec, Volume};
use crate::runtime::Address;
use crate::sim::{Sim, SimHost};
use crate::units::{ByteRange, Epoch, VolumeIndex};

/// Upstream has 64 MiB; far less than a quarter of the undo limit, so that no epoch is closed early.
const SIZE: u64 = 1 << 20;
const HALF: u64 = SIZE / 2;
const LEN: usize = 1 << 20;
const ALL: ByteRange = ByteRange { start: 0, end: SIZE };
const FIRST: ByteRange = ByteRange { start: 0, end: HALF };
const SECOND: ByteRange = ByteRange { start: HALF, end: SIZE };

/// A group of one volume full of 0x11, started to take inbound writes or not started.
async fn secondary(sim: &Sim) -> (SimHost, Group<SimHost>) {
    let host = sim.node("b");
    let group = pair::group(&host, &[SIZE], Some(0x11)).await;
    (host, group)
}

async fn start_inbound(group: &Group<SimHost>) {
    let spec = StartSpec {
        generation: G1,
        role: Role::Secondary,
        peer: None,
        policy: policy(),
        inbound: true,
        adopt: false,
    };
    group.start(spec).await.unwrap();
}

fn volume(group: &Group<SimHost>, kind: ExportKind) -> Volume<SimHost> {
    group.volume(VolumeIndex(0), kind).unwrap()
}

async fn failover(group: &Group<SimHost>) -> Result<Epoch> {
    group.failover(FailoverSpec { replace: G1, new: G2, keep_active: true }).await
}

async fn until_done(sim: &Sim, group: &Group<SimHost>) {
    while group.status().role != Some((Role::Primary, Stage::Done)) {
        assert_eq!(group.status().error, None);
        sim.pause(std::time::Duration::from_millis(1)).await;
    }
}

/// Up to where upstream's stop scenario fails over: the secondary disk holds 22 in its second half,
/// the consumer wrote 33 to its first.
async fn written_on_both_sides(group: &Group<SimHost>) -> (Volume<SimHost>, Volume<SimHost>) {
    start_inbound(group).await;
    let (inbound, view) = (volume(group, Inbound), volume(group, View));
    assert_eq!(pattern(&view, ALL).await, [(0x11, LEN)]);
    fill(&inbound, SECOND, 0x22).await.unwrap();
    assert_eq!(pattern(&view, SECOND).await, [(0x11, LEN / 2)]);
    fill(&view, FIRST, 0x33).await.unwrap();
    assert_eq!(pattern(&view, FIRST).await, [(0x33, LEN / 2)]);
    (inbound, view)
}

async fn started(sim: &Sim) -> Pair {
    let pair = Pair::new(sim, &[SIZE], Some(0x11)).await;
    pair.start(policy()).await;
    pair
}

#[test]
fn one_a_primary_leg_fails_reads_before_the_start() {
    run(|sim| async move {
        let pair = Pair::new(&sim, &[SIZE], Some(0x11)).await;
        let leg = pair.primary.forwarding_leg(VolumeIndex(0)).unwrap();
        assert!(pair::read(&leg, ALL).await.is_err());
    });
}

#[test]
fn two_a_primary_leg_fails_writes_before_the_start() {
    run(|sim| async move {
        let pair = Pair::new(&sim, &[SIZE], Some(0x11)).await;
        let leg = pair.primary.forwarding_leg(VolumeIndex(0)).unwrap();
        assert_eq!(fill(&leg, ALL, 0x22).await.unwrap_err().kind(), ErrorKind::NotPermitted);
    });
}

#[test]
fn three_a_started_primary_leg_fails_reads_and_forwards_writes() {
    run(|sim| async move {
        let pair = Pair::new(&sim, &[SIZE], Some(0x11)).await;
        let leg = pair.primary.forwarding_leg(VolumeIndex(0)).unwrap();
        pair.start(policy()).await;
        assert!(pair::read(&leg, ALL).await.is_err());
        fill(&leg, ALL, 0x22).await.unwrap();
        pair.drain().await;
        assert_eq!(pattern(&pair.volume(Secondary), ALL).await, [(0x22, LEN)]);
        // The leg alone does not touch the local disk.
        assert_eq!(pattern(&pair.volume(Primary), ALL).await, [(0x11, LEN)]);
        assert_eq!(pattern(&pair.volume(View), ALL).await, [(0x11, LEN)]);
    });
}

#[test]
fn four_a_stopped_primary_leg_fails_writes() {
    run(|sim| async move {
        let pair = started(&sim).await;
        let leg = pair.primary.forwarding_leg(VolumeIndex(0)).unwrap();
        pair.primary.stop(G1, true).await.unwrap();
        assert!(fill(&leg, at(0, 4096), 0x22).await.is_err());
        assert!(pair::read(&leg, ALL).await.is_err());
    });
}

#[test]
fn five_a_checkpoint_of_a_primary_leg_is_no_error_and_changes_nothing() {
    run(|sim| async move {
        let pair = started(&sim).await;
        let leg = pair.primary.forwarding_leg(VolumeIndex(0)).unwrap();
        pair.checkpoint().await;
        assert!(pair::read(&leg, ALL).await.is_err());
        assert_eq!(pattern(&pair.volume(Secondary), ALL).await, [(0x11, LEN)]);
        assert_eq!(pattern(&pair.volume(View), ALL).await, [(0x11, LEN)]);
    });
}

#[test]
fn six_a_started_primary_leg_has_no_error() {
    run(|sim| async move {
        let pair = started(&sim).await;
        assert_eq!(pair.primary.get_error(G1).unwrap(), None);
    });
}

#[test]
fn seven_a_secondary_fails_reads_before_the_start() {
    run(|sim| async move {
        let (_host, group) = secondary(&sim).await;
        assert_eq!(group.volume(VolumeIndex(0), View).unwrap_err().kind(), ErrorKind::NotPermitted);
    });
}

#[test]
fn eight_a_secondary_fails_writes_before_the_start() {
    run(|sim| async move {
        let (_host, group) = secondary(&sim).await;
        for kind in ExportKind::ALL {
            assert_eq!(
                group.volume(VolumeIndex(0), kind).unwrap_err().kind(),
                ErrorKind::NotPermitted
            );
        }
    });
}

#[test]
fn nine_a_started_secondary_hides_the_primary_s_writes_and_keeps_its_own() {
    run(|sim| async move {
        let (_host, group) = secondary(&sim).await;
        let (_inbound, _view) = written_on_both_sides(&group).await;
        assert_eq!(
            pattern(&volume(&group, Secondary), ALL).await,
            [(0x11, LEN / 2), (0x22, LEN / 2)]
        );
        failover(&group).await.unwrap();
    });
}

#[test]
fn ten_a_failover_keeps_the_view_during_and_after_the_commit_and_in_the_file() {
    run(|sim| async move {
        let (host, group) = secondary(&sim).await;
        let (_inbound, view) = written_on_both_sides(&group).await;
        failover(&group).await.unwrap();
        let now = volume(&group, Primary);
        let want = [(0x33, LEN / 2), (0x11, LEN / 2)];
        assert_eq!(group.status().role, Some((Role::Primary, Stage::Failover)), "the commit runs");
        assert_eq!(pattern(&now, ALL).await, want);
        assert!(
            pair::read(&view, ALL).await.is_err(),
            "an old opening never sees the promoted disk"
        );
        until_done(&sim, &group).await;
        assert_eq!(pattern(&now, ALL).await, want);
        let file = host.snapshot_content("volumes/v0/disk", crate::sim::Held::Durable).unwrap();
        assert!(
            file[..LEN / 2].iter().all(|b| *b == 0x33)
                && file[LEN / 2..].iter().all(|b| *b == 0x11)
        );
    });
}

#[test]
fn eleven_after_a_failover_calls_that_name_no_peer_are_ignored() {
    run(|sim| async move {
        let (_host, group) = secondary(&sim).await;
        written_on_both_sides(&group).await;
        failover(&group).await.unwrap();
        for done in [false, true] {
            if done {
                until_done(&sim, &group).await;
            }
            let solo = StartSpec {
                generation: G2,
                role: Role::Primary,
                peer: None,
                policy: policy(),
                inbound: false,
                adopt: false,
            };
            group.start(solo).await.unwrap();
            group.checkpoint(G2).await.unwrap();
            group.stop(G2, true).await.unwrap();
            assert_eq!(group.get_error(G2).unwrap(), None);
            assert_eq!(
                pattern(&volume(&group, Primary), ALL).await,
                [(0x33, LEN / 2), (0x11, LEN / 2)]
            );
        }
        let peer = Some(Address::Unix("nobody".into()));
        let again = StartSpec {
            generation: G2,
            role: Role::Primary,
            peer,
            policy: Policy::default(),
            inbound: false,
            adopt: false,
        };
        group.start(again).await.unwrap();
        assert_eq!(
            group.status().role,
            Some((Role::Primary, Stage::Running)),
            "a start that names a peer begins anew"
        );
    });
}

#[test]
fn twelve_a_checkpoint_moves_the_view_on() {
    run(|sim| async move {
        let (_host, group) = secondary(&sim).await;
        start_inbound(&group).await;
        let (inbound, view) = (volume(&group, Inbound), volume(&group, View));
        fill(&inbound, SECOND, 0x22).await.unwrap();
        assert_eq!(pattern(&view, SECOND).await, [(0x11, LEN / 2)]);
        group.checkpoint(G1).await.unwrap();
        assert_eq!(pattern(&view, SECOND).await, [(0x22, LEN / 2)]);
        failover(&group).await.unwrap();
        assert_eq!(
            pattern(&volume(&group, Primary), ALL).await,
            [(0x11, LEN / 2), (0x22, LEN / 2)]
        );
    });
}

#[test]
fn thirteen_a_started_secondary_has_no_error() {
    run(|sim| async move {
        let (_host, group) = secondary(&sim).await;
        start_inbound(&group).await;
        assert_eq!(group.get_error(G1).unwrap(), None);
        failover(&group).await.unwrap();
        assert_eq!(group.get_error(G2).unwrap(), None);
    });
}
