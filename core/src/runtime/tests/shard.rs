use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{backends, on_each};
use crate::runtime::{Env, Shard, ShardGone, timeout, yield_now};

const MS: Duration = Duration::from_millis(1);

#[test]
fn sleeps_end_in_their_order_and_never_early() {
    on_each(|env| async move {
        let log = Rc::new(std::cell::RefCell::new(Vec::new()));
        let start = env.now();
        let mut tasks = Vec::new();
        for n in [30_u32, 10, 20] {
            let (env2, log) = (env.clone(), log.clone());
            tasks.push(env.spawn("sleeper", async move {
                env2.sleep(MS * n).await;
                assert!(env2.now().since(start) >= MS * n);
                log.borrow_mut().push(n);
            }));
        }
        for t in tasks {
            t.join().await;
        }
        assert_eq!(*log.borrow(), [10, 20, 30]);
        assert!(env.now().since(start) < MS * 500);
    });
}

#[test]
fn a_timeout_drops_what_takes_too_long_and_an_idle_shard_wakes_for_it() {
    on_each(|env| async move {
        assert_eq!(timeout(&env, MS * 5, std::future::pending::<()>()).await, None);
        assert_eq!(timeout(&env, MS * 500, async { 7 }).await, Some(7));
        assert_eq!(env.0.timers.next(), None);
    });
}

#[test]
fn a_busy_task_does_not_keep_timers_from_ending() {
    on_each(|env| async move {
        let stop = Rc::new(Cell::new(false));
        let (s, count) = (stop.clone(), Rc::new(Cell::new(0_u64)));
        let c = count.clone();
        let busy = env.spawn("busy", async move {
            while !s.get() {
                c.set(c.get() + 1);
                yield_now().await;
            }
        });
        env.sleep(MS * 5).await;
        stop.set(true);
        busy.join().await;
        assert!(count.get() > 10);
    });
}

#[test]
fn other_threads_run_errands_and_get_their_results() {
    for config in backends() {
        let shard = Shard::start("test", config).unwrap();
        let threads: Vec<_> = (0..4_u64)
            .map(|n| {
                let shard = shard.clone();
                std::thread::spawn(move || {
                    for i in 0..200 {
                        let out = shard.run(move |env| async move {
                            if i % 50 == 0 {
                                env.sleep(MS).await;
                            }
                            n * 1000 + i
                        });
                        assert_eq!(futures::executor::block_on(out), Ok(n * 1000 + i));
                    }
                })
            })
            .collect();
        for t in threads {
            t.join().unwrap();
        }
    }
}

#[test]
fn errands_of_a_stopped_shard_fail_and_its_tasks_are_dropped() {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    for config in backends() {
        let shard = Shard::start("test", config).unwrap();
        let dropped = Arc::new(AtomicBool::new(false));
        let flag = Flag(dropped.clone());
        let never = shard.run(move |_| async move {
            let _flag = flag;
            std::future::pending::<()>().await;
        });
        futures::executor::block_on(shard.run(|_| async {})).unwrap();
        shard.stop();
        shard.join();
        assert!(dropped.load(Ordering::SeqCst));
        assert_eq!(futures::executor::block_on(never), Err(ShardGone));
        assert_eq!(futures::executor::block_on(shard.run(|_| async {})), Err(ShardGone));
    }
}

#[test]
fn a_shard_whose_task_panics_ends_and_says_so() {
    for config in backends() {
        let shard = Shard::start("test", config).unwrap();
        let bad = shard.run(|_| async { assert_eq!(1, 2, "a test's panic") });
        assert_eq!(futures::executor::block_on(bad), Err(ShardGone));
        shard.join();
    }
}

#[test]
fn blocking_calls_run_beside_the_shard() {
    on_each(|env| async move {
        let start = Instant::now();
        let calls: Vec<_> = (0..4)
            .map(|n| {
                env.blocking(move || {
                    std::thread::sleep(MS * 40);
                    n
                })
            })
            .collect();
        let mut sum = 0;
        for c in calls {
            sum += c.await.unwrap();
        }
        assert_eq!(sum, 6);
        assert!(start.elapsed() < MS * 150, "{:?}", start.elapsed());
        assert_ne!(env.random(), env.random());
    });
}
