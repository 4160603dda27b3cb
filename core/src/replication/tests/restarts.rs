//! Engines that are killed or lose power: role, epoch, logs and a commit are found again.

use std::time::Duration;

use super::pair::{G1, G2, Pair, at, fill, pattern, policy, read, reopen, run};
use crate::disk::{Disk, ErrorKind};
use crate::overlay::{Role, Stage};
use crate::replication::ExportKind::{Primary, Secondary, View};
use crate::runtime::Env;
use crate::sim::{Direction, Failure, Held, Keep, Operation, Sim, SimHost};
use crate::units::{ByteRange, Epoch};

/// Small: no epoch is closed early.
const SIZE: u64 = 1 << 20;
const ALL: ByteRange = ByteRange { start: 0, end: SIZE };
const LEN: usize = 1 << 20;
const QUARTER: usize = LEN / 4;

/// How a node dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    Kill,
    Power(Keep),
}

const DEATHS: [Death; 4] =
    [Death::Kill, Death::Power(Keep::Nothing), Death::Power(Keep::BySeed), Death::Power(Keep::All)];

fn die(sim: &Sim, node: &str, death: Death) {
    match death {
        Death::Kill => sim.kill(node),
        Death::Power(keep) => {
            sim.set_keep(keep);
            sim.crash(node);
        }
    }
}

/// Checkpoint 2 holds 22 in the first quarter; what follows it is 33 in the first half.
async fn started(sim: &Sim) -> Pair {
    let pair = Pair::new(sim, &[SIZE], Some(0x11)).await;
    pair.start(policy()).await;
    fill(&pair.volume(Primary), at(0, SIZE / 4), 0x22).await.unwrap();
    assert_eq!(pair.checkpoint().await, Epoch(2));
    pair
}

const AT_TWO: [(u8, usize); 2] = [(0x22, QUARTER), (0x11, 3 * QUARTER)];

#[test]
fn a_secondary_that_dies_under_load_comes_back_with_its_checkpoint() {
    for death in DEATHS {
        run(|sim| async move {
            let mut pair = started(&sim).await;
            let p = pair.volume(Primary);
            let p2 = p.clone();
            let load =
                sim.node("a").call("load", async move { fill(&p2, at(0, SIZE / 2), 0x33).await });
            sim.pause(Duration::from_micros(300 + sim.seed() % 7 * 200)).await;
            die(&sim, "b", death);
            pair.reopen_secondary().await;
            let said = pair.secondary.status();
            assert_eq!(
                (said.role, said.checkpoint.epoch),
                (Some((Role::Secondary, Stage::Running)), Epoch(2))
            );
            assert_eq!(pattern(&pair.volume(View), ALL).await, AT_TWO, "{death:?}");
            load.await.unwrap().unwrap();
            pair.in_sync().await;
            assert_eq!(pattern(&pair.volume(View), ALL).await, AT_TWO, "resynced, {death:?}");
            pair.checkpoint().await;
            let want = [(0x33, LEN / 2), (0x11, LEN / 2)];
            assert_eq!(pattern(&pair.volume(View), ALL).await, want);
            fill(&p, ALL, 0x44).await.unwrap();
            pair.drain().await;
            pair.failover(false).await.unwrap();
            assert_eq!(pattern(&pair.promoted(), ALL).await, want);
        });
    }
}

#[test]
fn a_secondary_that_lost_power_alone_can_still_be_promoted() {
    for death in DEATHS {
        run(|sim| async move {
            let mut pair = started(&sim).await;
            let p = pair.volume(Primary);
            let load =
                sim.node("a").call("load", async move { fill(&p, at(0, SIZE / 2), 0x33).await });
            sim.pause(Duration::from_micros(200 + sim.seed() % 11 * 300)).await;
            sim.power_cut("a");
            die(&sim, "b", death);
            drop(load);
            pair.reopen_secondary().await;
            assert_eq!(pair.failover(false).await.unwrap(), Epoch(2));
            assert_eq!(pattern(&pair.promoted(), ALL).await, AT_TWO, "{death:?}");
            pair.merged().await;
            assert_eq!(pattern(&pair.promoted(), ALL).await, AT_TWO, "{death:?}");
        });
    }
}

#[test]
fn a_commit_goes_on_after_a_crash_anywhere_in_it() {
    for death in DEATHS {
        run(|sim| async move {
            let mut pair = started(&sim).await;
            fill(&pair.volume(Primary), ALL, 0x33).await.unwrap();
            fill(&pair.volume(View), at(SIZE / 2, 4096), 0x44).await.unwrap();
            pair.drain().await;
            assert_eq!(pair.failover(true).await.unwrap(), Epoch(2));
            let now = pair.promoted();
            fill(&now, at(SIZE - 6000, 3000), 0x55).await.unwrap();
            now.flush().await.unwrap();
            let half = LEN / 2;
            let tail = [(0x11, half - 4096 - 6000), (0x55, 3000), (0x11, 3000)];
            let want = [&[(0x22, QUARTER), (0x11, QUARTER), (0x44, 4096)][..], &tail[..]].concat();
            for _ in 0..4 {
                sim.pause(Duration::from_micros(sim.seed() % 5 * 400)).await;
                die(&sim, "b", death);
                let host = sim.node("b");
                pair.secondary = reopen(&host, 1).await.unwrap();
                assert_eq!(pair.secondary.status().generation, G2);
                assert_eq!(pattern(&pair.promoted(), ALL).await, want, "{death:?}");
            }
            pair.merged().await;
            assert_eq!(pattern(&pair.promoted(), ALL).await, want, "{death:?}");
            let file = sim.node("b").snapshot_content("volumes/v0/disk", Held::Durable).unwrap();
            assert!(file == read(&pair.promoted(), ALL).await.unwrap());
            assert_eq!(pair.secondary.get_error(G2).unwrap(), None);
        });
    }
}

async fn reopened_primary(sim: &Sim, pair: &mut Pair) -> SimHost {
    let host = sim.node("a");
    pair.primary = reopen(&host, 1).await.unwrap();
    host
}

#[test]
fn a_primary_that_dies_under_load_goes_on_and_the_peer_gets_what_it_has() {
    for death in DEATHS {
        run(|sim| async move {
            let mut pair = started(&sim).await;
            let p = pair.volume(Primary);
            let load =
                sim.node("a").call("load", async move { fill(&p, at(0, SIZE / 2), 0x33).await });
            sim.pause(Duration::from_micros(300 + sim.seed() % 7 * 200)).await;
            die(&sim, "a", death);
            drop(load);
            reopened_primary(&sim, &mut pair).await;
            let said = pair.primary.status();
            assert_eq!((said.role, said.generation), (Some((Role::Primary, Stage::Running)), G1));
            assert!(said.epoch >= Epoch(3), "{said:?}");
            pair.in_sync().await;
            assert_eq!(pattern(&pair.volume(View), ALL).await, AT_TWO, "{death:?}");
            let local = read(&pair.volume(Primary), ALL).await.unwrap();
            assert!(read(&pair.volume(Secondary), ALL).await.unwrap() == local, "{death:?}");
            assert!(pair.checkpoint().await > Epoch(2));
            assert!(read(&pair.volume(View), ALL).await.unwrap() == local);
        });
    }
}

#[test]
fn a_checkpoint_whose_answer_was_lost_is_not_said_to_hold_what_was_written_after_its_cut() {
    run(|sim| async move {
        let mut pair = started(&sim).await;
        let two = pair.primary.status().checkpoint;
        fill(&pair.volume(Primary), at(0, SIZE / 2), 0x33).await.unwrap();
        pair.drain().await;
        // Checkpoint 3 is recorded, and nobody here hears of it.
        sim.partition("b", "a", Direction::OneWay);
        let p = pair.primary.clone();
        let asked = sim.node("a").call("checkpoint", async move { p.checkpoint(G1).await });
        pair.wait_for(|p| p.secondary.status().checkpoint.epoch == Epoch(3)).await;
        sim.kill("a");
        drop(asked);
        let host = reopened_primary(&sim, &mut pair).await;
        let written = host.wall();
        fill(&pair.volume(Primary), at(SIZE / 2, SIZE / 4), 0x44).await.unwrap();
        sim.heal("b", "a");
        pair.wait_for(|p| p.primary.status().checkpoint.epoch == Epoch(3)).await;
        let three = pair.primary.status().checkpoint;
        assert!(three.cut < written, "{three:?}, written at {written:?}");
        assert_eq!(three.cut, two.cut, "the last one that is known for certain");
    });
}

#[test]
fn a_secondary_that_starts_again_in_a_full_pool_keeps_its_checkpoint_and_goes_on_once_there_is_room()
 {
    for promoted in [false, true] {
        run(|sim| async move {
            let mut pair = started(&sim).await;
            let (p, b) = (pair.volume(Primary), sim.node("b"));
            let room = |failure| {
                for file in 0..8 {
                    let path = format!("groups/g/undo-{file}");
                    b.inject_kind(&path, Operation::Create, failure, ErrorKind::NoSpace);
                }
            };
            room(Failure::Always);
            // Each life leaves a log of the open epoch, until no file is free.
            for (quarter, byte) in [(0, 0x33), (1, 0x44)] {
                fill(&p, at(quarter * SIZE / 4, SIZE / 4), byte).await.unwrap();
                pair.in_sync().await;
                pair.drain().await;
                sim.kill("b");
                pair.reopen_secondary().await;
                assert_eq!(pattern(&pair.volume(View), ALL).await, AT_TWO);
            }
            fill(&p, at(SIZE / 2, SIZE / 4), 0x55).await.unwrap();
            pair.wait_for(|p| p.secondary.get_error(G1).unwrap().is_some()).await;
            let said = pair.secondary.get_error(G1).unwrap().unwrap();
            assert!(said.contains("undo-2"), "{said}");
            assert_eq!(pattern(&pair.volume(View), ALL).await, AT_TWO);
            if promoted {
                sim.power_cut("a");
                assert_eq!(pair.failover(false).await.unwrap(), Epoch(2));
                assert_eq!(pattern(&pair.promoted(), ALL).await, AT_TWO);
                return;
            }
            room(Failure::Never);
            pair.in_sync().await;
            assert_eq!(pattern(&pair.volume(View), ALL).await, AT_TWO);
            pair.checkpoint().await;
            let want = [0x33, 0x44, 0x55, 0x11].map(|byte| (byte, QUARTER));
            assert_eq!(pattern(&pair.volume(View), ALL).await, want);
        });
    }
}

#[test]
fn both_sides_may_die_again_and_again() {
    run(|sim| async move {
        let mut pair = started(&sim).await;
        let random = sim.random(1);
        let mut known = (Epoch(2), read(&pair.volume(View), ALL).await.unwrap());
        for round in 0..12_u8 {
            let p = pair.volume(Primary);
            let byte = 0x40 + round;
            let start = random.below(SIZE / 8192) * 4096;
            let load = sim
                .node("a")
                .call("load", async move { fill(&p, at(start, SIZE / 2), byte).await });
            sim.pause(Duration::from_micros(random.below(3000))).await;
            sim.set_keep(Keep::BySeed);
            match random.below(4) {
                0 => sim.crash("a"),
                1 => sim.kill("a"),
                2 => sim.crash("b"),
                _ => sim.kill("b"),
            }
            drop(load);
            if pair.primary.0.host.is_dead() {
                reopened_primary(&sim, &mut pair).await;
            }
            if pair.secondary.0.host.is_dead() {
                pair.reopen_secondary().await;
            }
            assert_eq!(pair.secondary.status().checkpoint.epoch, known.0);
            assert!(read(&pair.volume(View), ALL).await.unwrap() == known.1, "round {round}");
            if random.one_in(2) {
                let epoch = pair.checkpoint().await;
                assert!(epoch > known.0);
                known = (epoch, read(&pair.volume(View), ALL).await.unwrap());
                assert!(known.1 == read(&pair.volume(Primary), ALL).await.unwrap());
            }
        }
        pair.failover(false).await.unwrap();
        assert!(read(&pair.promoted(), ALL).await.unwrap() == known.1);
    });
}
