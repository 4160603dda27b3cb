//! The tasks of one thread: a slab of futures and a queue of those that can go on.
//!
//! ```text
//!   slab:   [0] future  [1] future  [2] -  [3] future ...
//!   ready:  3, 0                      wakers push ids here, from any thread
//! ```
//!
//! The production executor runs them first come, first served; the simulator picks by seed.
//! A waker may fire on another thread: the queue is behind a mutex, and a hook (set by the
//! executor, an eventfd there) ends the thread's sleep.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;

use slab::Slab;

use super::Signal;

/// The tasks of one thread. Clones are the same set.
#[derive(Clone)]
pub struct Tasks {
    slots: Rc<RefCell<Slab<Slot>>>,
    ready: Arc<Ready>,
}

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

struct Slot {
    /// `None` while it is being polled.
    future: Option<Boxed>,
    /// Whose it is: the simulator ends all tasks of one node at once.
    tag: u32,
    name: &'static str,
    waker: Arc<TaskWaker>,
    end: Rc<End>,
}

struct Ready {
    queue: Mutex<VecDeque<usize>>,
    home: ThreadId,
    /// Called after a wake from another thread.
    remote: Box<dyn Fn() + Send + Sync>,
}

struct TaskWaker {
    id: usize,
    /// Whether the id is in the queue already: each is there at most once.
    queued: AtomicBool,
    ready: Arc<Ready>,
}

/// How a task ended, shared with its handle.
#[derive(Default)]
struct End {
    done: Cell<bool>,
    cancel: Cell<bool>,
    signal: Signal,
}

/// A handle on a task. Dropping it lets the task run on.
#[derive(Clone)]
pub struct Task {
    id: usize,
    tasks: Tasks,
    end: Rc<End>,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Task({}, done: {})", self.id, self.end.done.get())
    }
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.slots.borrow().iter().map(|(_, s)| s.name).collect();
        f.debug_tuple("Tasks").field(&names).finish()
    }
}

impl Task {
    /// Whether it ended or was cancelled.
    pub fn is_done(&self) -> bool {
        self.end.done.get()
    }

    /// Drops its future as soon as it is not running. Requests that a disk or stream has already
    /// taken run to their end; nobody waits for them.
    pub fn cancel(&self) {
        if !self.end.done.get() {
            self.end.cancel.set(true);
            self.tasks.cancel(self.id, &self.end);
        }
    }

    /// Ends when the task has ended or was cancelled.
    pub async fn join(&self) {
        self.end.signal.wait_until(|| self.end.done.get()).await;
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new(|| {})
    }
}

impl Tasks {
    /// No tasks yet; belongs to the calling thread. `remote` is called after a wake on any other.
    pub fn new(remote: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            slots: Rc::default(),
            ready: Arc::new(Ready {
                queue: Mutex::default(),
                home: std::thread::current().id(),
                remote: Box::new(remote),
            }),
        }
    }

    /// Adds a task; it is polled when its turn comes, not now.
    pub fn spawn(
        &self,
        tag: u32,
        name: &'static str,
        future: impl Future<Output = ()> + 'static,
    ) -> Task {
        let mut slots = self.slots.borrow_mut();
        let entry = slots.vacant_entry();
        let id = entry.key();
        let end = Rc::<End>::default();
        let waker =
            Arc::new(TaskWaker { id, queued: AtomicBool::new(true), ready: self.ready.clone() });
        entry.insert(Slot { future: Some(Box::pin(future)), tag, name, waker, end: end.clone() });
        self.ready.lock().push_back(id);
        Task { id, tasks: self.clone(), end }
    }

    /// How many can go on now.
    pub fn ready_len(&self) -> usize {
        self.ready.lock().len()
    }

    /// How many have not ended.
    pub fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Polls each task that could go on when this was called, in order. Says how many.
    pub fn poll_ready(&self) -> usize {
        let mut batch = std::mem::take(&mut *self.ready.lock());
        let n = batch.len();
        for id in batch.drain(..) {
            self.poll(id);
        }
        // Give the allocation back unless something was queued meanwhile.
        let mut queue = self.ready.lock();
        if queue.is_empty() && queue.capacity() < batch.capacity() {
            *queue = batch;
        }
        n
    }

    /// Polls the `n`-th of those that can go on; nothing if there are fewer. Says its name.
    pub fn poll_nth(&self, n: usize) -> Option<&'static str> {
        let id = self.ready.lock().remove(n)?;
        let name = self.slots.borrow().get(id).map(|s| s.name);
        self.poll(id);
        name
    }

    /// The tag and name of the `n`-th of those that can go on; `None` if there are fewer or it has
    /// ended meanwhile.
    pub fn ready_at(&self, n: usize) -> Option<(u32, &'static str)> {
        let id = *self.ready.lock().get(n)?;
        self.slots.borrow().get(id).map(|s| (s.tag, s.name))
    }

    /// The tags and names of all that have not ended.
    pub fn alive(&self) -> Vec<(u32, &'static str)> {
        self.slots.borrow().iter().map(|(_, s)| (s.tag, s.name)).collect()
    }

    /// Drops every task with this tag, as a crash would.
    pub fn cancel_tag(&self, tag: u32) {
        loop {
            let found = self
                .slots
                .borrow()
                .iter()
                .find(|(_, s)| s.tag == tag && s.future.is_some())
                .map(|(i, _)| i);
            let Some(id) = found else { return };
            let slot = self.slots.borrow_mut().try_remove(id);
            if let Some(slot) = slot {
                slot.finish();
            }
        }
    }

    fn cancel(&self, id: usize, end: &Rc<End>) {
        let mut slots = self.slots.borrow_mut();
        let ours = slots.get(id).is_some_and(|s| Rc::ptr_eq(&s.end, end) && s.future.is_some());
        // A task that cancels itself is being polled: `poll` looks at the flag afterwards.
        let slot = if ours { slots.try_remove(id) } else { None };
        drop(slots);
        if let Some(slot) = slot {
            slot.finish();
        }
    }

    fn poll(&self, id: usize) {
        let (mut future, waker) = {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.get_mut(id) else { return };
            // A stale id of an ended task may name its successor: a needless poll, no harm.
            slot.waker.queued.store(false, Ordering::Release);
            let Some(future) = slot.future.take() else { return };
            (future, slot.waker.clone())
        };
        let waker = Waker::from(waker);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(id) else { return };
        if polled.is_pending() && !slot.end.cancel.get() {
            slot.future = Some(future);
            return;
        }
        let slot = slots.remove(id);
        drop(slots);
        drop(future);
        slot.finish();
    }
}

impl Slot {
    fn finish(self) {
        let Self { future, end, .. } = self;
        drop(future);
        end.done.set(true);
        end.signal.notify();
    }
}

impl Ready {
    fn lock(&self) -> MutexGuard<'_, VecDeque<usize>> {
        // Nothing can panic while it is held, so a poisoned lock holds a good queue.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        self.ready.lock().push_back(self.id);
        if std::thread::current().id() != self.ready.home {
            (self.ready.remote)();
        }
    }
}

/// A future that is pending once: lets every other ready task have its turn.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(t: &Tasks) {
        while t.poll_ready() > 0 {}
    }

    #[test]
    fn tasks_run_in_the_order_they_became_ready() {
        let t = Tasks::default();
        let log = Rc::new(RefCell::new(Vec::new()));
        for i in 0..3 {
            let log = log.clone();
            t.spawn(0, "t", async move {
                log.borrow_mut().push(i);
                yield_now().await;
                log.borrow_mut().push(10 + i);
            });
        }
        run(&t);
        assert_eq!(*log.borrow(), [0, 1, 2, 10, 11, 12]);
        assert!(t.is_empty());
    }

    #[test]
    fn a_cancelled_task_never_runs_again_and_its_joiners_wake() {
        let t = Tasks::default();
        let s = Signal::new();
        let s2 = s.clone();
        let task = t.spawn(7, "t", async move {
            s2.wait().await;
            panic!("ran after its end");
        });
        run(&t);
        let joined = Rc::new(Cell::new(false));
        let (j, h) = (joined.clone(), task.clone());
        t.spawn(0, "join", async move {
            h.join().await;
            j.set(true);
        });
        run(&t);
        t.cancel_tag(7);
        s.notify();
        run(&t);
        assert!(task.is_done() && joined.get());
    }

    #[test]
    fn a_task_may_cancel_itself() {
        let t = Tasks::default();
        let me = Rc::new(RefCell::new(None::<Task>));
        let m = me.clone();
        let task = t.spawn(0, "t", async move {
            yield_now().await;
            if let Some(task) = m.borrow_mut().take() {
                task.cancel();
            }
            std::future::pending::<()>().await;
        });
        *me.borrow_mut() = Some(task.clone());
        run(&t);
        assert!(task.is_done() && t.is_empty());
    }

    #[test]
    fn a_wake_from_another_thread_calls_the_hook() {
        let called = Arc::new(AtomicBool::new(false));
        let c = called.clone();
        let t = Tasks::new(move || c.store(true, Ordering::SeqCst));
        let (tx, rx) = futures::channel::oneshot::channel::<()>();
        let task = t.spawn(0, "t", async move {
            let _ = rx.await;
        });
        run(&t);
        std::thread::spawn(move || tx.send(())).join().unwrap().unwrap();
        assert!(called.load(Ordering::SeqCst));
        run(&t);
        assert!(task.is_done());
    }
}
