//! What a shard gives to the code that runs on it: tasks, time, randomness, buffers, streams.
//!
//! ```text
//!            Env                      one thread, one group's order is program order
//!   ┌─────────┼─────────────┐
//!   now()   spawn()      connect() ──► Stream: recv / send / shutdown
//!   sleep   Task             │
//!   random                   └─ Reader (buffered), Outbox (one send per batch)
//!
//!   Buf ──freeze──► Data (cheap clones: one copy for disk, window and socket)
//!   Signal          "something changed, look again" between tasks of one thread
//!
//!   Shard           a thread that provides all this: ShardEnv implements Env
//!    ├─ Tasks, timers, Remote (inbox of other threads)
//!    ├─ Reactor: requests under way ── ring | threads
//!    └─ ShardStream: a socket, or TLS over one
//! ```
//!
//! Nothing here is `Send`: a group with all its volumes lives on exactly one thread, so its code
//! needs neither locks nor atomics.

mod address;
mod arena;
mod buf;
mod listener;
mod op;
mod outbox;
mod pool;
mod reactor;
mod reader;
mod remote;
mod ring;
mod shard;
mod signal;
mod socket;
mod spin;
mod stream;
mod tasks;
mod threads;
mod timers;
mod tls;

#[cfg(test)]
pub(crate) mod tests;

pub use address::Address;
pub use buf::{BUF_MAX, Buf, Data};
pub use listener::Listener;
pub use outbox::Outbox;
pub use reader::Reader;
pub use shard::{Io, IoChoice, Shard, ShardConfig, ShardEnv, ShardGone, ShardHandle, block_on};
pub use signal::Signal;
pub use socket::SocketStream;
pub use stream::{Parcel, ShardStream};
pub use tasks::{Task, Tasks, yield_now};
pub use tls::TlsStream;

pub(crate) use op::{Fd, Op};
pub(crate) use reactor::Reactor;

use std::future::Future;
use std::io;
use std::time::Duration;

/// A point in time of the machine's boot clock (`CLOCK_BOOTTIME`: counts while suspended).
///
/// Never compared between machines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Mono(pub Duration);

impl Mono {
    /// This much later; saturates.
    #[must_use]
    pub fn after(self, d: Duration) -> Self {
        Self(self.0.saturating_add(d))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// A point in time for people: since the Unix epoch. Shown, never decided upon.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Wall(pub Duration);

/// What a shard, or the simulator in its place, provides.
pub trait Env: Clone + 'static {
    /// An ordered stream of bytes to another process.
    type Stream: Stream;

    /// Now, on the boot clock.
    fn now(&self) -> Mono;

    /// Now, for people.
    fn wall(&self) -> Wall;

    /// Ends at `at` or soon after, never before.
    fn sleep_until(&self, at: Mono) -> impl Future<Output = ()> + 'static;

    /// Ends after `d` or soon after, never before.
    fn sleep(&self, d: Duration) -> impl Future<Output = ()> + 'static {
        self.sleep_until(self.now().after(d))
    }

    /// Starts a task on this shard. `name` is for logs and the simulator's trace.
    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static) -> Task;

    /// 64 unpredictable bits (in the simulator: from its seed).
    fn random(&self) -> u64;

    /// A buffer of `len` bytes with undefined content. `len` is at most [`BUF_MAX`].
    fn alloc(&self, len: usize) -> Buf {
        Buf::new(len)
    }

    /// Connects to a peer. Has no timeout of its own: wrap it in [`timeout`].
    fn connect(&self, to: &Address) -> impl Future<Output = io::Result<Self::Stream>> + 'static;

    /// As [`connect`](Self::connect), but in plaintext whatever the address says: for protocols
    /// that become TLS later, by [`start_tls`](Self::start_tls).
    fn connect_plain(
        &self,
        to: &Address,
    ) -> impl Future<Output = io::Result<Self::Stream>> + 'static {
        self.connect(to)
    }

    /// The client's TLS handshake, for NBD, over a stream in plaintext: at its far end must be the
    /// engine that the address names.
    fn start_tls(
        &self,
        stream: Self::Stream,
        to: &Address,
    ) -> impl Future<Output = io::Result<Self::Stream>> + 'static {
        drop(stream);
        let text = format!("{to}: there is no TLS here");
        std::future::ready(Err(io::Error::new(io::ErrorKind::Unsupported, text)))
    }
}

/// An ordered, reliable stream of bytes. At most one `recv` and one `send` are in flight.
///
/// Clones are the same stream. Dropping the last one closes it.
pub trait Stream: Clone + 'static {
    /// Reads at least one byte into `buf[at..]` and says how many; 0 at the end of the stream.
    fn recv(&self, buf: Buf, at: usize)
    -> impl Future<Output = (Buf, io::Result<usize>)> + 'static;

    /// Writes all of `data`, in order.
    fn send(&self, data: Vec<Data>) -> impl Future<Output = io::Result<()>> + 'static;

    /// Ends both directions now: a pending `recv` or `send` on either end returns.
    fn shutdown(&self);
}

/// The output of `future`, or `None` when `limit` passes first (the future is dropped then).
pub async fn timeout<E: Env, T>(
    env: &E,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    use futures::future::{Either, select};
    let sleep = std::pin::pin!(env.sleep(limit));
    let future = std::pin::pin!(future);
    match select(future, sleep).await {
        Either::Left((out, _)) => Some(out),
        Either::Right(((), _)) => None,
    }
}
