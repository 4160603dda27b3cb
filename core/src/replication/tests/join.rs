//! A volume joins a running group: under load, over lost sessions, deaths and failovers.

use std::time::Duration;

use super::pair::{self, G1, G2, at, fill, pattern, policy, read, spec};
use super::two::Two;
use crate::disk::{Disk as _, Result};
use crate::overlay::{Member, Policy, Role};
use crate::replication::ExportKind::{Primary, Secondary, View};
use crate::replication::{FailoverSpec, LinkState, Replica, StartSpec, reshape};
use crate::runtime::Env as _;
use crate::sim::{Direction, Keep, Sim, SimHost, When};
use crate::units::{Epoch, Uuid, VolumeCount, VolumeIndex, usize_of};

const SIZE: u64 = 1 << 20;
const LEN: usize = 1 << 20;

/// What joins: longer than the other, and no whole number of clusters.
const NEW: u64 = (2 << 20) + 512;

/// Makes the replica of a volume that nobody has yet.
async fn make(host: &SimHost, volume: &str, content: Option<u8>) -> Member {
    let dir = host.dir(&format!("volumes/{volume}"));
    let uuid = Uuid(u128::from(host.random()));
    let made = Replica::<SimHost>::create(dir, volume.parse().unwrap(), uuid, NEW).await.unwrap();
    if let Some(byte) = content {
        fill(&made.disk, at(0, NEW), byte).await.unwrap();
        made.disk.flush().await.unwrap();
    }
    Member::new(made.label.volume, made.label.uuid, made.label.size)
}

/// Two groups of one volume of 11 that have not heard of each other.
async fn apart(sim: &Sim, policy: Policy) -> Two {
    let a = pair::group(&sim.node("a"), &[SIZE], Some(0x11)).await;
    let b = pair::group(&sim.node("b"), &[SIZE], None).await;
    Two::apart(sim, [a, b], policy).await
}

/// The same, in step.
async fn with(sim: &Sim, policy: Policy) -> Two {
    let two = apart(sim, policy).await;
    two.listen();
    two.wait_for("a", |s| s.checkpoint.epoch != Epoch::NONE).await;
    two
}

/// Checkpoints each 5 ms.
async fn in_step(sim: &Sim) -> Two {
    let interval = Duration::from_millis(5);
    with(sim, Policy { checkpoint_interval: interval, ..policy() }).await
}

/// Until a checkpoint covers so many volumes, on both sides' word.
async fn joined(two: &Two, count: u16) {
    for node in ["b", "a"] {
        two.wait_for(node, |s| s.joined == VolumeCount(count)).await;
    }
}

/// A volume joins on one node; `None` if that dies meanwhile.
async fn join(two: &Two, node: &str, joining: Member) -> Option<Result<()>> {
    let add =
        |host: SimHost| async move { reshape::join(&host.dir("groups/g"), vec![joining]).await };
    two.reshape(node, add).await
}

/// Volume v1 of 22 joins on both sides, secondary first.
async fn join_both(two: &Two) {
    for (node, content) in [("b", None), ("a", Some(0x22))] {
        let member = make(&two.sim.node(node), "v1", content).await;
        join(two, node, member).await.unwrap().unwrap();
    }
}

async fn failover(two: &Two) -> Result<Epoch> {
    let spec = FailoverSpec { replace: G1, new: G2, keep_active: false };
    two.group("b").failover(spec).await
}

fn members(two: &Two, node: &str) -> Vec<String> {
    two.group(node).names().members.iter().map(|(v, _)| v.to_string()).collect()
}

fn whole(byte: u8) -> Vec<(u8, usize)> {
    vec![(byte, usize_of(NEW))]
}

#[test]
fn a_volume_joins_a_running_group_and_the_next_checkpoint_covers_it() {
    pair::run(|sim| async move {
        let two = in_step(&sim).await;
        let member = make(&sim.node("b"), "v1", None).await;
        join(&two, "b", member).await.unwrap().unwrap();
        // The secondary has one more: the session goes on with the primary's, and so do checkpoints.
        let before = two.group("a").status().checkpoint.epoch;
        two.wait_for("a", |s| s.link == LinkState::Running && s.checkpoint.epoch > before).await;
        assert_eq!(two.group("b").status().joined, VolumeCount(1));
        let member = make(&sim.node("a"), "v1", Some(0x22)).await;
        join(&two, "a", member).await.unwrap().unwrap();
        fill(&two.volume("a", 1, Primary), at(4096, 4096), 0x33).await.unwrap();
        joined(&two, 2).await;
        let covered = [(0x22, 4096), (0x33, 4096), (0x22, usize_of(NEW) - 8192)];
        assert_eq!(pattern(&two.volume("b", 1, View), at(0, NEW)).await, covered);
        // From here on it is one of them.
        fill(&two.volume("a", 1, Primary), at(0, NEW), 0x44).await.unwrap();
        two.group("a").checkpoint(G1).await.unwrap();
        sim.partition("a", "b", Direction::Both);
        failover(&two).await.unwrap();
        assert_eq!(members(&two, "b"), ["v0", "v1"]);
        assert_eq!(pattern(&two.volume("b", 1, Primary), at(0, NEW)).await, whole(0x44));
    });
}

#[test]
fn what_a_joining_volume_lacks_holds_up_no_checkpoint_and_costs_no_undo_space() {
    pair::run(|sim| async move {
        let small = Policy {
            checkpoint_interval: Duration::from_millis(5),
            undo_limit: 256 << 10,
            resync_ceiling: 400 << 10,
            ..policy()
        };
        let two = with(&sim, small).await;
        join_both(&two).await;
        two.wait_for("a", |s| s.link == LinkState::Running).await;
        let at_first = two.group("a").status();
        for n in 0..40 {
            fill(&two.volume("a", 1, Primary), at(4096 * n, 4096), 0x33).await.unwrap();
            fill(&two.volume("a", 0, Primary), at(4096 * n, 4096), 0x12).await.unwrap();
            sim.pause(Duration::from_millis(5)).await;
        }
        let now = two.group("a").status();
        assert!(now.missing > 1 << 20, "it joined at once: {now:?}");
        assert_eq!((now.joined, now.link), (VolumeCount(1), LinkState::Running));
        assert!(now.checkpoint.epoch.0 > at_first.checkpoint.epoch.0 + 10, "{now:?}");
        assert!(!now.undo_full && two.group("b").status().undo <= 256 << 10, "{now:?}");
        let refused = two.group("b").volume(VolumeIndex(1), View).unwrap_err().to_string();
        assert!(refused.contains("joining its group"), "{refused}");
        joined(&two, 2).await;
        assert!(two.group("b").volume(VolumeIndex(1), View).is_ok());
    });
}

#[test]
fn a_failover_before_the_record_leaves_a_joining_volume_behind_and_a_restart_finds_it_so() {
    pair::run(|sim| async move {
        let slow = Policy { resync_ceiling: 64 << 10, ..policy() };
        let two = with(&sim, slow).await;
        join_both(&two).await;
        fill(&two.volume("a", 0, Primary), at(0, SIZE), 0x12).await.unwrap();
        two.group("a").checkpoint(G1).await.unwrap();
        fill(&two.volume("a", 0, Primary), at(0, SIZE), 0x13).await.unwrap();
        sim.pause(Duration::from_millis(300)).await;
        failover(&two).await.unwrap();
        assert_eq!(members(&two, "b"), ["v0"]);
        assert_eq!(two.group("b").durable().joined, VolumeCount(1));
        let gone = two.group("b").volume(VolumeIndex(1), Primary).unwrap_err().to_string();
        assert!(gone.contains("no volume number 1"), "{gone}");
        assert_eq!(pattern(&two.volume("b", 0, Primary), at(0, SIZE)).await, [(0x12, LEN)]);
        // Its files are free: another group may have it.
        let dir = sim.node("b").dir("volumes/v1");
        assert!(Replica::<SimHost>::open(dir).await.is_ok(), "somebody still holds its files");
        two.kill("b");
        two.reopen("b").await;
        assert_eq!(pattern(&two.volume("b", 0, Primary), at(0, SIZE)).await, [(0x12, LEN)]);

        // The old primary comes back without it, and keeps its only good copy.
        let let_go = |host: SimHost| async move {
            let dir = host.dir("groups/g");
            assert!(reshape::let_go(&dir, 0).await.is_err());
            reshape::let_go(&dir, 1).await?;
            reshape::let_go(&dir, 1).await
        };
        two.reshape("a", let_go).await.unwrap().unwrap();
        assert_eq!(members(&two, "a"), ["v0"]);
        let back = StartSpec { generation: G2, ..spec(Role::Secondary, policy()) };
        two.group("a").start(back).await.unwrap();
        let kept = Replica::<SimHost>::open(sim.node("a").dir("volumes/v1")).await.unwrap();
        assert_eq!(pattern(&kept.disk, at(0, NEW)).await, whole(0x22));
    });
}

#[test]
fn a_primary_with_a_volume_more_waits_and_names_it() {
    pair::run(|sim| async move {
        let two = in_step(&sim).await;
        let member = make(&sim.node("a"), "v1", Some(0x22)).await;
        join(&two, "a", member).await.unwrap().unwrap();
        let told = |e: &String| e.contains("does not have volume v1 yet");
        two.wait_for("a", |s| s.error.as_ref().is_some_and(told)).await;
        let member = make(&sim.node("b"), "v1", None).await;
        join(&two, "b", member).await.unwrap().unwrap();
        joined(&two, 2).await;
        assert_eq!(pattern(&two.volume("b", 1, View), at(0, NEW)).await, whole(0x22));
    });
}

#[test]
fn a_used_replica_that_joins_gets_holes_too_and_nothing_stays_beyond_the_primary_s_end() {
    pair::run(|sim| async move {
        let two = in_step(&sim).await;
        for (node, content) in [("b", Some(0x77)), ("a", None)] {
            let member = make(&sim.node(node), "v1", content).await;
            join(&two, node, member).await.unwrap().unwrap();
        }
        joined(&two, 2).await;
        assert_eq!(pattern(&two.volume("b", 1, View), at(0, NEW)).await, whole(0));
        assert_eq!(pattern(&two.volume("b", 1, Secondary), at(0, NEW)).await, whole(0));
    });
}

#[test]
fn a_volume_that_joins_before_the_first_checkpoint_is_part_of_it() {
    pair::run(|sim| async move {
        let two = apart(&sim, policy()).await;
        join_both(&two).await;
        two.listen();
        two.wait_for("a", |s| s.checkpoint.epoch != Epoch::NONE).await;
        joined(&two, 2).await;
        assert_eq!(pattern(&two.volume("b", 1, View), at(0, NEW)).await, whole(0x22));
    });
}

#[test]
fn a_join_cut_off_anywhere_has_happened_or_not_and_goes_on_when_asked_again() {
    for node in ["a", "b"] {
        for when in [When::Before, When::After] {
            let mut points = 0;
            for n in 0.. {
                let sim = Sim::new(Sim::seed_or(7) + n);
                let s = sim.clone();
                let died = sim.block_on(async move {
                    s.set_keep(Keep::BySeed);
                    let two = in_step(&s).await;
                    let on_b = make(&s.node("b"), "v1", None).await;
                    let on_a = make(&s.node("a"), "v1", Some(0x22)).await;
                    let member = |at: &str| if at == "a" { on_a.clone() } else { on_b.clone() };
                    if node == "a" {
                        join(&two, "b", member("b")).await.unwrap().unwrap();
                    }
                    s.crash_at_sync(node, s.sync_points(node) + n, when);
                    if join(&two, node, member(node)).await.is_some() {
                        return false;
                    }
                    two.reopen(node).await;
                    assert!([1, 2].contains(&members(&two, node).len()), "point {n}");
                    join(&two, node, member(node)).await.unwrap().unwrap();
                    if members(&two, "a").len() == 1 {
                        join(&two, "a", member("a")).await.unwrap().unwrap();
                    }
                    joined(&two, 2).await;
                    let view = two.volume("b", 1, View);
                    assert_eq!(pattern(&view, at(0, NEW)).await, whole(0x22), "point {n}");
                    true
                });
                if !died {
                    break;
                }
                points += 1;
            }
            assert!(points >= 4, "only {points} points on {node}");
        }
    }
}

#[test]
fn a_volume_joins_under_load_whatever_session_is_lost_and_whoever_restarts() {
    for seed in 0..24 {
        let sim = Sim::new(Sim::seed_or(3) + seed);
        let s = sim.clone();
        sim.block_on(async move {
            let two = in_step(&s).await;
            join_both(&two).await;
            let host = s.node("a");
            for n in 0..30_u64 {
                let [v, place] = [host.random() % 2, host.random() % 200];
                if !two.is_open("a") {
                    two.reopen("a").await;
                }
                let volume = two.volume("a", u16::try_from(v).unwrap(), Primary);
                let byte = u8::try_from(0x40 + n).unwrap();
                fill(&volume, at(place * 4096, 4096), byte).await.unwrap();
                match host.random() % 8 {
                    0 => s.cut("a", "b"),
                    1 => {
                        two.kill("b");
                        s.pause(Duration::from_millis(5)).await;
                        two.reopen("b").await;
                    }
                    _ => s.pause(Duration::from_millis(3)).await,
                }
            }
            joined(&two, 2).await;
            two.wait_for("a", |s| s.link == LinkState::Running && s.missing == 0).await;
            two.group("a").checkpoint(G1).await.unwrap();
            for (v, len) in [(0, SIZE), (1, NEW)] {
                let here = read(&two.volume("a", v, Primary), at(0, len)).await.unwrap();
                let there = read(&two.volume("b", v, View), at(0, len)).await.unwrap();
                assert!(here == there, "volume {v} differs, seed {seed}");
            }
        });
    }
}
