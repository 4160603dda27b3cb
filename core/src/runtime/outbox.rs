//! The sending half of a protocol: what was queued since the last send goes out as one.
//!
//! ```text
//!   push, push, push ──► [ data data data ] ──► run(): one send per batch, corked if asked
//! ```
//!
//! The queue has no limit of its own: who pushes bounds it (the window, the requests in flight).

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::{Data, Env, Signal, Stream};

/// The most bytes in one send; more wait for the next. Also what ends a cork early.
const BATCH: usize = 128 << 10;

/// The most pieces in one send, below the kernel's limit of 1024 (`UIO_MAXIOV`).
const PIECES: usize = 512;

/// A queue of outgoing bytes and the loop that sends them. Clones are the same queue.
#[derive(Clone, Debug, Default)]
pub struct Outbox(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    queue: RefCell<Vec<Data>>,
    bytes: Cell<usize>,
    /// Somebody waits for an answer to what was pushed: no cork.
    urgent: Cell<bool>,
    closed: Cell<bool>,
    signal: Signal,
    /// Notified when a batch left the queue.
    taken: Signal,
}

impl Outbox {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues `data`. With `urgent`, the next send does not wait for more.
    pub fn push(&self, data: Data, urgent: bool) {
        let was_empty = self.0.queue.borrow().is_empty();
        self.0.bytes.set(self.0.bytes.get() + data.len());
        self.0.queue.borrow_mut().push(data);
        let full = self.0.bytes.get() >= BATCH;
        if urgent {
            self.0.urgent.set(true);
        }
        if was_empty || urgent || full {
            self.0.signal.notify();
        }
    }

    /// How many bytes were pushed and not yet handed to the stream.
    pub fn bytes(&self) -> usize {
        self.0.bytes.get()
    }

    /// How many pieces were pushed and not yet handed to the stream.
    pub fn pieces(&self) -> usize {
        self.0.queue.borrow().len()
    }

    /// Notified whenever pieces were handed to the stream: for who bounds what is queued.
    pub fn taken(&self) -> &Signal {
        &self.0.taken
    }

    /// Lets [`run`](Self::run) end once the queue is empty.
    pub fn close(&self) {
        self.0.closed.set(true);
        self.0.signal.notify();
    }

    /// Sends until closed and empty, or until the stream fails. A batch that is not urgent waits
    /// up to `cork` for company: one wake-up of the peer for many small frames.
    pub async fn run<E: Env>(&self, env: &E, stream: &E::Stream, cork: Duration) -> io::Result<()> {
        let inner = &*self.0;
        loop {
            inner
                .signal
                .wait_until(|| inner.closed.get() || !inner.queue.borrow().is_empty())
                .await;
            if inner.queue.borrow().is_empty() {
                return Ok(());
            }
            let go = || inner.urgent.get() || inner.closed.get() || inner.bytes.get() >= BATCH;
            if !cork.is_zero() && !go() {
                super::timeout(env, cork, inner.signal.wait_until(go)).await;
            }
            let batch = self.take();
            inner.taken.notify();
            stream.send(batch).await?;
        }
    }

    fn take(&self) -> Vec<Data> {
        let inner = &*self.0;
        let mut queue = inner.queue.borrow_mut();
        let mut bytes = 0;
        let n = queue
            .iter()
            .take(PIECES)
            .take_while(|d| {
                let first = bytes == 0;
                bytes += d.len();
                first || bytes <= 4 * BATCH
            })
            .count();
        let rest = queue.split_off(n);
        let batch = std::mem::replace(&mut *queue, rest);
        inner.bytes.set(inner.bytes.get() - batch.iter().map(|d| d.len()).sum::<usize>());
        if queue.is_empty() {
            inner.urgent.set(false);
        }
        batch
    }
}
