//! What crashes, kills and power cuts keep, lose and tear.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::{Held, Keep, Sim, When};
use super::{all, small_disk};
use crate::disk::{Dir as _, Disk as _, ErrorKind, Space};
use crate::runtime::{Buf, Data, Env as _};
use crate::units::{ByteOffset, ByteRange};

#[test]
fn flushed_data_survives_and_unflushed_data_is_kept_lost_torn_and_reordered() {
    let (mut torn, mut patterns) = (0, BTreeSet::new());
    for seed in 0..400 {
        let sim = Sim::new(seed);
        sim.block_on(async {
            let (_, disk) = small_disk(&sim).await;
            disk.write(ByteOffset(0), Data::copy_of(&[9; 4096])).await.unwrap();
            disk.flush().await.unwrap();
            for i in 1..4_u8 {
                let at = ByteOffset(4096 * u64::from(i));
                disk.write(at, Data::copy_of(&[i; 4096])).await.unwrap();
            }
        });
        sim.crash("a");
        let host = sim.node("a");
        let content = host.snapshot_content("d/f", Held::Durable).unwrap();
        assert_eq!(content, host.snapshot_content("d/f", Held::Volatile).unwrap());
        assert_eq!(content[..4096], [9; 4096], "seed {seed}");
        let counts: Vec<_> = (1..4_usize)
            .map(|i| content[4096 * i..][..4096].iter().filter(|b| **b != 0).count())
            .collect();
        assert!(counts.iter().all(|n| n % 512 == 0), "seed {seed}");
        torn += counts.iter().filter(|n| **n != 0 && **n != 4096).count();
        patterns.insert(counts.iter().map(|n| n / 4096).collect::<Vec<_>>());
    }
    assert!(torn > 100, "{torn}");
    // Each subset, so also a later one without an earlier one.
    assert_eq!(patterns.len(), 8, "{patterns:?}");
}

#[test]
fn a_flush_does_not_cover_what_was_written_after_its_call() {
    let lost = (0..100).filter(|seed| {
        let sim = Sim::new(*seed);
        sim.set_keep(Keep::Nothing);
        sim.block_on(async {
            let (_, disk) = small_disk(&sim).await;
            disk.write(ByteOffset(0), Data::copy_of(&[1; 512])).await.unwrap();
            let flush = disk.flush();
            disk.write(ByteOffset(512), Data::copy_of(&[2; 512])).await.unwrap();
            flush.await.unwrap();
        });
        sim.crash("a");
        let content = sim.node("a").snapshot_content("d/f", Held::Durable).unwrap();
        assert_eq!(content[0], 1);
        content[512] == 0
    });
    assert_eq!(lost.count(), 100);
}

#[test]
fn keep_all_and_keep_nothing_do_as_they_say() {
    for (keep, expected) in [(Keep::All, 1), (Keep::Nothing, 0)] {
        let sim = Sim::new(5);
        sim.set_keep(keep);
        sim.block_on(async {
            let (_, disk) = small_disk(&sim).await;
            disk.write(ByteOffset(0), Data::copy_of(&[1; 4096])).await.unwrap();
        });
        sim.crash("a");
        let content = sim.node("a").snapshot_content("d/f", Held::Durable).unwrap();
        assert_eq!(content[..4096], [expected; 4096]);
    }
}

#[test]
fn requests_in_flight_at_a_crash_take_effect_or_not() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let sim = Sim::new(seed);
        sim.set_keep(Keep::All);
        sim.block_on(async {
            let (_, disk) = small_disk(&sim).await;
            drop(disk.write(ByteOffset(0), Data::copy_of(&[1; 1024])));
        });
        sim.crash("a");
        let content = sim.node("a").snapshot_content("d/f", Held::Durable).unwrap();
        seen.insert((content[0], content[512]));
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn a_kill_keeps_completed_writes_in_memory_until_the_power_fails() {
    let mut late = 0;
    for seed in 0..100 {
        let sim = Sim::new(seed);
        sim.set_keep(Keep::Nothing);
        sim.block_on(async {
            let (_, disk) = small_disk(&sim).await;
            disk.write(ByteOffset(0), Data::copy_of(&[1; 4096])).await.unwrap();
            drop(disk.write(ByteOffset(8192), Data::copy_of(&[2; 512])));
            sim.kill("a");
            let host = sim.node("a");
            let before = host.peek("d/f", ByteRange::new(8192, 8193), Held::Volatile).unwrap();
            // Whoever opens it finds nothing in flight any more.
            let disk = host.dir("d").open("f").await.unwrap().unwrap();
            let after = disk.peek(ByteRange::new(8192, 8193), Held::Volatile);
            late += usize::from(before != after);
            sim.pause(Duration::from_secs(1)).await;
            assert_eq!(after, disk.peek(ByteRange::new(8192, 8193), Held::Volatile));
            assert_eq!(disk.peek(ByteRange::new(0, 4096), Held::Volatile), [1; 4096]);
        });
        sim.crash("a");
        assert_eq!(sim.node("a").snapshot_content("d/f", Held::Volatile).unwrap(), vec![0; 65536]);
    }
    assert!(late > 5, "{late}");
}

#[test]
fn what_a_kill_left_in_flight_ends_with_the_power() {
    for seed in 0..100 {
        let sim = Sim::new(seed);
        sim.set_keep(Keep::Nothing);
        sim.block_on(async {
            let (_, disk) = small_disk(&sim).await;
            drop(disk.write(ByteOffset(0), Data::copy_of(&[2; 512])));
            sim.kill("a");
            sim.crash("a");
            let disk = sim.node("a").dir("d").open("f").await.unwrap().unwrap();
            sim.pause(Duration::from_secs(1)).await;
            assert_eq!(disk.peek(ByteRange::new(0, 512), Held::Volatile), [0; 512]);
        });
    }
}

#[test]
fn a_dead_life_runs_nothing_and_hears_nothing_and_the_next_one_finds_the_files() {
    let sim = Sim::new(1);
    sim.block_on(async {
        let (host, disk) = small_disk(&sim).await;
        let forever = host.call("t", std::future::pending::<()>());
        sim.crash(&host);
        assert_eq!(forever.await, None);
        assert!(host.is_dead());
        assert_eq!(sim.incarnation("a"), 2);
        let task = host.spawn("t", async { panic!("a dead node ran a task") });
        assert!(task.is_done());
        let read = disk.read(ByteOffset(0), Buf::new(1));
        let quiet =
            futures::future::select(Box::pin(read), Box::pin(sim.pause(Duration::from_secs(9))));
        assert!(matches!(quiet.await, futures::future::Either::Right(_)));
        // The old handle lives, but its process does not: no lock.
        assert!(sim.node("a").dir("d").open("f").await.unwrap().is_some());
    });
}

#[test]
fn a_task_that_crashes_its_own_node_does_not_outlive_it() {
    let sim = Sim::new(1);
    let inner = sim.clone();
    let host = sim.node("a");
    let task = host.spawn("t", async move {
        inner.crash("a");
        crate::runtime::yield_now().await;
        panic!("outlived its node");
    });
    sim.run_for(Duration::from_secs(1));
    assert!(task.is_done());
}

#[test]
fn changes_of_a_directory_are_durable_when_they_return_and_done_or_not_before() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let sim = Sim::new(seed);
        let names = sim.block_on(async {
            let dir = sim.node("a").dir("d");
            dir.create("kept", 8192, Space::Sparse).await.unwrap();
            let _dropped = dir.create("maybe", 8192, Space::Sparse);
            sim.crash("a");
            sim.node("a").dir("d").list().await.unwrap()
        });
        assert_eq!(names[0], "kept");
        let len = sim.node("a").snapshot_content("d/maybe", Held::Durable).map(|c| c.len());
        assert!(len.is_none_or(|len| len == 8192));
        seen.insert(len);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn every_sync_point_can_be_the_last() {
    async fn work(sim: &Sim) {
        let host = sim.node("a");
        let inner = host.clone();
        let work = async move {
            let dir = inner.dir("d");
            let disk = dir.create("f", 65536, Space::Written).await.unwrap();
            for i in 1..4_u8 {
                disk.write(ByteOffset(0), Data::copy_of(&[i])).await.unwrap();
                disk.flush().await.unwrap();
            }
            dir.rename("f", "g").await.unwrap();
        };
        host.call("work", work).await;
    }
    let count = {
        let sim = Sim::new(1);
        sim.block_on(work(&sim));
        sim.sync_points("a")
    };
    assert_eq!(count, 5);
    for point in 0..count {
        for when in [When::Before, When::After] {
            let sim = Sim::new(1);
            sim.set_keep(Keep::Nothing);
            sim.crash_at_sync("a", point, when);
            sim.block_on(work(&sim));
            assert_eq!(sim.incarnation("a"), 2);
            let host = sim.node("a");
            let done = point + u64::from(when == When::After);
            let (f, g) = (
                host.snapshot_content("d/f", Held::Durable),
                host.snapshot_content("d/g", Held::Durable),
            );
            assert_eq!((f.is_some(), g.is_some()), ((1..5).contains(&done), done == 5));
            if let Some(content) = f.or(g) {
                assert_eq!(u64::from(content[0]), done.saturating_sub(1).min(3));
            }
        }
    }
}

#[test]
fn the_power_of_all_nodes_may_fail_in_one_moment() {
    let sim = Sim::new(3);
    sim.set_keep(Keep::Nothing);
    sim.block_on(async {
        let other = sim.node("b").dir("d").create("f", 8192, Space::Sparse).await.unwrap();
        other.write(ByteOffset(0), Data::copy_of(&[1; 512])).await.unwrap();
        let (_, disk) = small_disk(&sim).await;
        sim.blackout_at_sync("a", sim.sync_points("a"), When::Before);
        let flush = sim.node("a").call("flush", async move { disk.flush().await });
        assert!(flush.await.is_none());
    });
    assert_eq!((sim.incarnation("a"), sim.incarnation("b")), (2, 2));
    assert_eq!(sim.node("b").snapshot_content("d/f", Held::Volatile).unwrap()[0], 0);
}

#[test]
fn rot_is_durable() {
    let sim = Sim::new(1);
    sim.block_on(async {
        let (host, disk) = small_disk(&sim).await;
        assert!(host.poke("d/f", 4095, b"xy"));
        assert!(!host.poke("d/none", 0, b"x"));
        assert_eq!(disk.peek(all(), Held::Durable)[4095..4097], *b"xy");
        let error = host.dir("d").open("f").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
    });
}
