//! A few threads for calls that block: opening files, and all disk I/O where there is no ring.
//!
//! ```text
//!   run(job) ──► queue ──► thread 1..max, started when a job finds none idle
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use futures::channel::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// The threads of one shard.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    max: usize,
    threads: RefCell<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    idle: usize,
    closed: bool,
}

impl Pool {
    /// At most `max` threads; none yet.
    pub(crate) fn new(max: usize) -> Self {
        Self { shared: Arc::default(), max, threads: RefCell::default() }
    }

    /// Runs `job` on one of the threads. If no thread can be started at all, here and now.
    pub(crate) fn run(&self, job: Job) {
        let mut state = self.shared.lock();
        state.queue.push_back(job);
        let short = state.idle < state.queue.len();
        drop(state);
        self.shared.changed.notify_one();
        let mut threads = self.threads.borrow_mut();
        if !short || threads.len() >= self.max {
            return;
        }
        let shared = self.shared.clone();
        let started =
            std::thread::Builder::new().name("shard-pool".into()).spawn(move || shared.work());
        match started {
            Ok(t) => threads.push(t),
            Err(_) if threads.is_empty() => {
                drop(threads);
                let jobs = std::mem::take(&mut self.shared.lock().queue);
                for job in jobs {
                    job();
                }
            }
            Err(_) => {}
        }
    }

    /// Runs `call` on one of the threads; the future gives what it returned.
    pub(crate) fn call<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        call: F,
    ) -> impl Future<Output = io::Result<T>> + use<T, F> + 'static {
        let (tx, rx) = oneshot::channel();
        self.run(Box::new(move || {
            let _ = tx.send(call());
        }));
        async move { rx.await.map_err(|_| io::Error::other("the shard has ended")) }
    }

    /// Runs what is queued and ends the threads.
    pub(crate) fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        let threads = std::mem::take(&mut *self.threads.borrow_mut());
        for t in threads {
            let _ = t.join();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                job();
                state = self.lock();
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run without it, so a panic of one can't leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
