//! The connection of a device to its engine: it waits, connects anew, and sends again.
//!
//! ```text
//!              connect                     ended
//!   Away(why) ──────────► Connected(client) ─────► Away(why)      requests of Away wait, without limit
//!      │                       │
//!      └── the engine says: gone for good; or `fail` ──► Gone(why)     every request fails, for ever
//! ```
//!
//! **Why a request may wait for ever.** The device is the VM's disk. Within its generation the disk has
//! not failed when the engine restarts (invariant 9): an error would end the guest's file system for
//! something that passes. Who wants an end decides it: a failover elsewhere (the engine, once it can be
//! asked, says that the generation is gone), or a person or the CSI plugin by `Fail`.
//!
//! **Why requests in flight at a break may be sent again.** Reads and flushes change nothing. A write
//! that was not answered may have been applied or not, now or later, as a whole or in part; applying it
//! once more gives the same bytes. It must only not overwrite something that was acknowledged *after*
//! it:
//! - by this user: one who cares about the order of two overlapping writes waits for the first before
//!   issuing the second (page cache and file systems always do; a disk gives no order either), so while
//!   a write is unanswered no later one of the same range was acknowledged;
//! - by the old connection, later: an engine that was killed holds its files' locks until its own
//!   requests have ended, and only then can the next one open them. An engine that lives takes no
//!   request from a connection that it has ended, and those it had taken hold their place in the range
//!   lock, in front of the one that is sent again. Over a network what was sent may arrive late, on a
//!   connection that the engine does not know to be dead: so it ends the older connections of a session,
//!   and waits until nothing of them is under way, before it serves the first request of a new one.
//!
//! **Why nothing acknowledged is sent again.** A write that the engine answered is in its files (page
//! cache, or device with direct I/O): its SIGKILL does not take it back. A power cut of the engine's
//! node may, if no flush came after it; so would it with any disk. For a device on another node the
//! promise is the same: durable after a flush, and a flush in flight at the break is asked again of the
//! engine that has the files open then, which syncs all that any process wrote to them.

mod serve;

pub(super) use serve::serve;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};

use super::counters::Counters;
use super::request::Failure;
use super::status::DeviceState;
use crate::disk::{Disk, Error, ErrorKind};
use crate::nbd::Client;
use crate::nbd::client::{self, Options};
use crate::runtime::{Address, Env, Mono, ShardEnv, Signal};

/// The first pause between two attempts to connect; then it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause: asking in vain at a Unix socket costs next to nothing, a network more.
fn longest_pause(address: &Address) -> Duration {
    match address {
        Address::Unix(_) => Duration::from_millis(100),
        _ => Duration::from_secs(1),
    }
}

/// A connection that lasted so long was a good one: the next attempt needs no pause.
const GOOD: Duration = Duration::from_secs(1);

/// Which export of which engine.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) address: Address,
    pub(super) export: String,
}

/// The connection of one device. Lives on one shard.
pub(super) struct Line<E: Env> {
    env: E,
    target: Target,
    counters: Arc<Counters>,
    state: RefCell<State<E>>,
    changed: Signal,
    /// When the last connection came.
    since: Cell<Mono>,
    /// How long to wait before the next attempt after one that failed.
    pause: Cell<Duration>,
}

enum State<E: Env> {
    Away,
    Connected(Client<E>),
    Gone,
}

thread_local! {
    /// The line of this shard: a holder has one device.
    static LINE: RefCell<Option<Rc<Line<ShardEnv>>>> = const { RefCell::new(None) };
}

/// Makes this the line of the calling shard, and keeps it connected.
pub(super) fn install(line: Rc<Line<ShardEnv>>) {
    let keeper = line.clone();
    let task = line.env.spawn("line", async move { keeper.keep().await });
    // It ends with the shard.
    drop(task);
    LINE.set(Some(line));
}

/// The line of the calling shard.
pub(super) fn installed() -> Option<Rc<Line<ShardEnv>>> {
    LINE.with_borrow(Clone::clone)
}

impl<E: Env> Line<E> {
    /// A line that has its first connection.
    pub(super) fn new(
        env: &E,
        target: Target,
        counters: Arc<Counters>,
        first: Client<E>,
    ) -> Rc<Self> {
        counters.connected();
        counters.set_state(DeviceState::Serving, None);
        Rc::new(Self {
            env: env.clone(),
            target,
            counters,
            state: RefCell::new(State::Connected(first)),
            changed: Signal::new(),
            since: Cell::new(env.now()),
            pause: Cell::new(FIRST_PAUSE),
        })
    }

    /// The connection, or that there will be none; `None`: not now.
    fn connected(&self) -> Option<Result<Client<E>, Failure>> {
        match &*self.state.borrow() {
            State::Away => None,
            State::Connected(client) => Some(Ok(client.clone())),
            State::Gone => Some(Err(Failure::Io)),
        }
    }

    fn is_current(&self, client: &Client<E>) -> bool {
        matches!(&*self.state.borrow(), State::Connected(current) if current.is_same(client))
    }

    /// This connection is of no more use.
    fn lost(&self, client: &Client<E>, why: &Error) {
        if self.is_current(client) {
            tracing::info!("waiting for the engine: {why}");
            self.counters.set_state(DeviceState::Waiting, Some(why.to_string()));
            self.set(State::Away);
        }
    }

    fn set(&self, state: State<E>) {
        // The old one may hold the last handle of a connection, whose end runs code.
        let old = self.state.replace(state);
        drop(old);
        self.changed.notify();
    }

    /// From now on every request fails.
    pub(super) async fn fail(&self, why: &str) {
        if matches!(&*self.state.borrow(), State::Gone) {
            return;
        }
        tracing::warn!("the device fails for good: {why}");
        self.counters.set_state(DeviceState::Gone, Some(why.to_owned()));
        let client = self.connected().and_then(Result::ok);
        self.set(State::Gone);
        if let Some(client) = client {
            client.close().await;
        }
    }

    /// Keeps a connection while there can be one.
    async fn keep(&self) {
        loop {
            match self.connected() {
                Some(Err(_)) => return,
                Some(Ok(client)) => {
                    let swapped = std::pin::pin!(self.changed.wait());
                    let ended = std::pin::pin!(client.ended());
                    if let Either::Left((why, _)) = select(ended, swapped).await {
                        self.lost(&client, &why);
                    }
                }
                None => self.reconnect().await,
            }
        }
    }

    async fn reconnect(&self) {
        // An engine that takes connections and drops them at once is not to be asked without a pause.
        if self.env.now().since(self.since.get()) < GOOD {
            self.rest().await;
        } else {
            self.pause.set(FIRST_PAUSE);
        }
        while self.connected().is_none() {
            match connect(&self.env, &self.target).await {
                // Somebody else may have been faster.
                Ok(client) if self.connected().is_none() => self.connect_to(client),
                Ok(_) => return,
                Err(e) if client::is_final(&e) => return self.fail(&e.to_string()).await,
                Err(e) => {
                    if self.connected().is_none() {
                        self.counters.set_state(DeviceState::Waiting, Some(e.to_string()));
                    }
                    self.rest().await;
                }
            }
        }
    }

    async fn rest(&self) {
        let pause = self.pause.get();
        self.pause.set((pause * 2).min(longest_pause(&self.target.address)));
        self.env.sleep(pause).await;
    }

    fn connect_to(&self, client: Client<E>) {
        self.since.set(self.env.now());
        self.counters.connected();
        self.counters.set_state(DeviceState::Serving, None);
        tracing::info!("connected again");
        self.set(State::Connected(client));
    }

    /// A new connection in place of the one there is, for what the engine says of the volume now: its
    /// length. Requests in flight end on the old one.
    pub(super) async fn renew(&self) -> crate::disk::Result<u64> {
        if matches!(&*self.state.borrow(), State::Gone) {
            let why = self.counters.state().1.unwrap_or_default();
            return Err(Error::own(ErrorKind::Stale, why));
        }
        let client = connect(&self.env, &self.target).await?;
        let len = client.len();
        if !matches!(&*self.state.borrow(), State::Gone) {
            self.counters.set_state(DeviceState::Serving, None);
            self.set(State::Connected(client));
        }
        Ok(len)
    }

    /// Ends the connection after a last flush, if it can be had within `limit`.
    pub(super) async fn close(&self, limit: Duration) {
        let Some(Ok(client)) = self.connected() else { return };
        if !matches!(crate::runtime::timeout(&self.env, limit, client.flush()).await, Some(Ok(())))
        {
            tracing::warn!("detached without a last flush");
        }
        self.set(State::Gone);
        client.close().await;
    }
}

/// One attempt to connect.
pub(super) async fn connect<E: Env>(env: &E, target: &Target) -> crate::disk::Result<Client<E>> {
    Client::open(env, &target.address, &target.export, &Options::default()).await
}
