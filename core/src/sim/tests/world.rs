//! Time, tasks and determinism.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::super::{Direction, Sim};
use super::small_disk;
use crate::disk::Disk as _;
use crate::runtime::{Data, Env as _, Mono, Signal, Stream as _, yield_now};
use crate::units::ByteOffset;

/// Something of everything; says the trace's hash and the order in which tasks ran.
fn busy(seed: u64) -> (u64, Vec<u32>) {
    let sim = Sim::new(seed);
    let order = Rc::new(RefCell::new(Vec::new()));
    sim.block_on(async {
        let (a, disk) = small_disk(&sim).await;
        let b = sim.node("b");
        let listener = b.listen("/b").unwrap();
        b.spawn("server", async move {
            let stream = listener.accept().await;
            loop {
                let (_, n) = stream.recv(crate::runtime::Buf::new(100), 0).await;
                if n.unwrap_or(0) == 0 {
                    return;
                }
            }
        });
        let mut tasks = Vec::new();
        for i in 0..10_u32 {
            let (order, disk, a2) = (order.clone(), disk.clone(), a.clone());
            tasks.push(a.spawn("writer", async move {
                disk.write(ByteOffset(4096 * u64::from(i % 3)), Data::zeroes(4096)).await.unwrap();
                a2.sleep(Duration::from_millis(a2.random() % 7)).await;
                order.borrow_mut().push(i);
                disk.flush().await.unwrap();
            }));
        }
        let stream = a.connect(&"unix:/b".parse().unwrap()).await.unwrap();
        stream.send(vec![Data::zeroes(100_000)]).await.unwrap();
        for task in tasks {
            task.join().await;
        }
        sim.crash("b");
    });
    let order = order.borrow().clone();
    (sim.trace_hash(), order)
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    for seed in 0..20 {
        assert_eq!(busy(seed), busy(seed), "seed {seed}");
    }
    assert_ne!(busy(1).0, busy(2).0);
    assert_ne!(busy(1).1, busy(2).1);
}

#[test]
fn ready_tasks_run_in_every_order() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let sim = Sim::new(seed);
        let order = Rc::new(RefCell::new(Vec::new()));
        let a = sim.node("a");
        let tasks: Vec<_> = (0..3)
            .map(|i| {
                let order = order.clone();
                a.spawn("t", async move { order.borrow_mut().push(i) })
            })
            .collect();
        sim.block_on(async {
            for task in tasks {
                task.join().await;
            }
        });
        seen.insert(order.borrow().clone());
    }
    assert_eq!(seen.len(), 6);
}

#[test]
fn time_jumps_and_no_sleeper_wakes_early() {
    let sim = Sim::new(1);
    let a = sim.node("a");
    let before = a.now();
    sim.block_on(a.sleep(Duration::from_mins(50)));
    assert!(a.now() >= before.after(Duration::from_mins(50)));
    assert!(sim.elapsed() >= Duration::from_mins(50));
    sim.run_for(Duration::from_secs(2));
    assert!(sim.elapsed() >= Duration::from_secs(3002));
}

#[test]
fn a_fast_clock_wakes_its_sleepers_sooner_and_a_stopped_one_never() {
    let sim = Sim::new(1);
    let (a, b) = (sim.node("a"), sim.node("b"));
    sim.drift("a", 1_000_000);
    sim.block_on(a.sleep(Duration::from_secs(10)));
    assert_eq!(sim.elapsed().as_secs(), 5);

    let task = b.spawn("sleeper", b.sleep(Duration::from_secs(1)));
    sim.run_for(Duration::from_millis(1));
    sim.drift("b", -1_000_000);
    let stopped: Mono = b.now();
    sim.run_for(Duration::from_secs(100));
    assert!(!task.is_done());
    assert_eq!(b.now(), stopped);
    sim.drift("b", 0);
    sim.run_for(Duration::from_secs(1));
    assert!(task.is_done());
}

#[test]
fn a_paused_node_does_nothing_until_it_is_resumed() {
    let sim = Sim::new(1);
    let a = sim.node("a");
    let task = a.spawn("t", async {
        for _ in 0..100 {
            yield_now().await;
        }
    });
    sim.pause_node("a");
    sim.run_for(Duration::from_secs(1));
    assert!(!task.is_done());
    sim.resume_node("a");
    sim.run_for(Duration::from_secs(1));
    assert!(task.is_done());
}

#[test]
#[should_panic(expected = "seed 7: deadlock")]
fn a_deadlock_is_reported_with_the_seed() {
    let sim = Sim::new(7);
    let a = sim.node("a");
    a.spawn("waits-in-vain", async { Signal::new().wait().await });
    sim.block_on(std::future::pending::<()>());
}

#[test]
#[should_panic(expected = "a/waits-in-vain")]
fn a_deadlock_is_reported_with_the_tasks_that_are_stuck() {
    let sim = Sim::new(7);
    let a = sim.node("a");
    a.spawn("waits-in-vain", async { Signal::new().wait().await });
    sim.block_on(std::future::pending::<()>());
}

#[test]
#[should_panic(expected = "limit of virtual time")]
fn a_livelock_ends_at_the_limit_of_virtual_time() {
    let sim = Sim::new(7);
    let a = sim.node("a");
    let b = a.clone();
    a.spawn("ticks", async move {
        loop {
            b.sleep(Duration::from_secs(1)).await;
        }
    });
    sim.block_on(std::future::pending::<()>());
}

#[test]
fn the_world_is_dropped_with_its_owner() {
    let sim = Sim::new(3);
    let world = Rc::downgrade(&sim.world);
    sim.block_on(async {
        let (a, disk) = small_disk(&sim).await;
        let listener = a.listen("/a").unwrap();
        let stream = a.connect(&"unix:/a".parse().unwrap()).await.unwrap();
        a.spawn("holds", async move {
            let _held = (listener, stream.clone());
            disk.flush().await.unwrap();
            let _never = stream.recv(crate::runtime::Buf::new(1), 0).await;
        });
    });
    let other = sim.clone();
    let probe = Rc::new(());
    let held = probe.clone();
    let a = sim.node("a");
    let a2 = a.clone();
    a.spawn("holds", async move {
        a2.sleep(Duration::from_secs(1_000_000)).await;
        drop((held, other));
    });
    sim.partition("a", "b", Direction::Both);
    sim.run_for(Duration::from_secs(1));
    drop(a);
    drop(sim);
    assert_eq!(Rc::strong_count(&probe), 1);
    assert_eq!(world.strong_count(), 0);
}
