//! A disk whose bytes are those of an NBD server.
//!
//! ```text
//!   read, write, … ─► Table (cookie → what is awaited) ─► Outbox ─► stream
//!        ▲                    ▲
//!        └── woken by ── receiver ◄── replies, in any order ◄── stream
//! ```
//!
//! Requests are submitted at the call, so any number may be in flight. The server is not trusted:
//! a reply that breaks the protocol ends the connection, and every request with it, with
//! [`ErrorKind::Corrupt`]; so does a silent one, with [`ErrorKind::Disconnected`]. There is no
//! reconnection here: who needs it makes a new client, unless the old one's refusal [`is_final`].
//!
//! How much is in flight is up to the caller: what was submitted is held in memory until the
//! server has taken it.

mod connect;
mod disk;
mod open;
mod receive;
mod table;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::ExportInfo;
use super::handshake::Negotiated;
use super::wire::{Request, STRING_MAX, command};
use crate::disk::{Error, ErrorKind, Result};
use crate::runtime::{Data, Env, Outbox, Reader, Signal, Stream, Task, timeout};
use crate::units::u64_of;
use connect::Opening;
use table::Table;

/// How patient a client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// For the whole handshake.
    pub handshake: Duration,
    /// For each request. When it passes the connection ends: what became of the request is
    /// unknown, and a server that owes one answer may owe them all.
    pub request: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self { handshake: Duration::from_secs(10), request: None }
    }
}

/// How long a goodbye may take to be sent.
const GOODBYE: Duration = Duration::from_secs(1);

/// Whether a connection was refused for good: the export is of a generation or session that others
/// have replaced. After any other error of [`Client::connect`], or of a connection that ended, it
/// may be had later: wait, and connect again.
///
/// A request can't be the one to learn of it: a server that cuts a stale export ends the connection
/// (its last answers are [`ErrorKind::Disconnected`]), and refuses the next one.
pub fn is_final(error: &Error) -> bool {
    error.kind() == ErrorKind::Stale
}

/// A disk behind an NBD connection. Clones are the same connection; dropping the last one, and
/// the last request in flight, says goodbye.
pub struct Client<E: Env>(Rc<Handle<E>>);

impl<E: Env> Clone for Client<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What clients and requests in flight hold; its end is the connection's.
struct Handle<E: Env> {
    shared: Rc<Shared<E>>,
    sender: Task,
    watchdog: Option<Task>,
}

/// What the tasks of a connection share.
struct Shared<E: Env> {
    env: E,
    stream: E::Stream,
    outbox: Outbox,
    table: Table,
    server: Negotiated,
    /// Why the connection ended.
    dead: RefCell<Option<Error>>,
    ended: Signal,
    /// A flush failed.
    poisoned: Cell<bool>,
}

impl<E: Env> std::fmt::Debug for Client<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shared = &self.0.shared;
        write!(f, "Client({:?}, dead: {:?})", shared.server, shared.dead.borrow())
    }
}

impl<E: Env> Shared<E> {
    /// Ends the connection: every request that waits fails with `error`, and every later one.
    fn fail(&self, error: &Error) {
        let first = self.dead.borrow().is_none();
        if first {
            *self.dead.borrow_mut() = Some(error.clone());
            self.table.fail(error);
            self.outbox.close();
            self.stream.shutdown();
            self.ended.notify();
        }
    }
}

impl<E: Env> Client<E> {
    /// Negotiates for `export` on a fresh stream.
    pub async fn connect(
        env: &E,
        stream: E::Stream,
        export: &str,
        options: &Options,
    ) -> Result<Self> {
        Self::connect_from(env, stream, Opening::Fresh, export, options).await
    }

    async fn connect_from(
        env: &E,
        stream: E::Stream,
        opening: Opening,
        export: &str,
        options: &Options,
    ) -> Result<Self> {
        if export.len() > STRING_MAX {
            let what = format!("an export name of {} bytes, limit {STRING_MAX}", export.len());
            return Err(Error::own(ErrorKind::Invalid, what));
        }
        let mut reader = Reader::new(stream.clone());
        let agreed = connect::negotiate(&mut reader, &stream, opening, export);
        let server = connect::within(env, &stream, options, agreed).await?;
        let shared = Rc::new(Shared {
            env: env.clone(),
            stream,
            outbox: Outbox::new(),
            table: Table::default(),
            server,
            dead: RefCell::new(None),
            ended: Signal::new(),
            poisoned: Cell::new(false),
        });
        let s = shared.clone();
        let sender = env.spawn("nbd client send", async move {
            let sent = s.outbox.run(&s.env, &s.stream, Duration::ZERO).await;
            let error = match sent {
                Ok(()) => Error::own(ErrorKind::Disconnected, "the NBD client was closed"),
                Err(e) => Error::new(ErrorKind::Disconnected, "sending to the NBD server", Some(e)),
            };
            s.fail(&error);
        });
        let s = shared.clone();
        env.spawn("nbd client receive", async move {
            let error = receive::run(&s, &mut reader).await;
            s.fail(&error);
        });
        let watchdog = options.request.map(|limit| {
            let s = shared.clone();
            env.spawn("nbd client watchdog", async move { watch(&s, limit).await })
        });
        Ok(Self(Rc::new(Handle { shared, sender, watchdog })))
    }

    /// The exports of the server at the far end of a fresh stream.
    pub async fn list(env: &E, stream: E::Stream, options: &Options) -> Result<Vec<ExportInfo>> {
        Self::list_from(env, stream, Opening::Fresh, options).await
    }

    async fn list_from(
        env: &E,
        stream: E::Stream,
        opening: Opening,
        options: &Options,
    ) -> Result<Vec<ExportInfo>> {
        let mut reader = Reader::new(stream.clone());
        let asked = connect::list(&mut reader, &stream, opening);
        let list = connect::within(env, &stream, options, asked).await?;
        stream.shutdown();
        Ok(list)
    }

    /// What the server agreed to.
    pub fn negotiated(&self) -> &Negotiated {
        &self.0.shared.server
    }

    /// Whether both are the same connection.
    pub fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Whether the server takes no writes.
    pub fn is_read_only(&self) -> bool {
        self.0.shared.server.flags & super::wire::flag::READ_ONLY != 0
    }

    /// Whether requests can still succeed.
    pub fn is_connected(&self) -> bool {
        self.0.shared.dead.borrow().is_none()
    }

    /// Ends when the connection has ended, and says why.
    pub async fn ended(&self) -> Error {
        let shared = &self.0.shared;
        loop {
            if let Some(error) = shared.dead.borrow().clone() {
                return error;
            }
            shared.ended.wait().await;
        }
    }

    /// Says goodbye and closes; requests in flight fail.
    pub async fn close(&self) {
        self.0.goodbye();
        timeout(&self.0.shared.env, GOODBYE, self.0.sender.join()).await;
        self.0.shared.fail(&Error::own(ErrorKind::Disconnected, "the NBD client was closed"));
    }
}

impl<E: Env> Handle<E> {
    fn goodbye(&self) {
        let shared = &self.shared;
        if shared.dead.borrow().is_none() {
            let (flags, command) = (0, command::DISCONNECT);
            let request = Request { flags, command, cookie: 0, offset: 0, length: 0 };
            shared.outbox.push(Data::copy_of(&request.encode()), true);
            shared.outbox.close();
        }
    }
}

impl<E: Env> Drop for Handle<E> {
    fn drop(&mut self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.cancel();
        }
        if self.shared.dead.borrow().is_some() {
            return;
        }
        self.goodbye();
        let (shared, sender) = (self.shared.clone(), self.sender.clone());
        self.shared.env.spawn("nbd client goodbye", async move {
            timeout(&shared.env, GOODBYE, sender.join()).await;
            shared.stream.shutdown();
        });
    }
}

/// Ends the connection when its oldest request is older than `limit`.
async fn watch<E: Env>(shared: &Shared<E>, limit: Duration) {
    loop {
        let Some(oldest) = shared.table.oldest() else {
            shared.table.begun().wait().await;
            continue;
        };
        let due = oldest.after(limit);
        if shared.env.now() >= due {
            let what = format!("the NBD server did not answer within {limit:?}");
            return shared.fail(&Error::own(ErrorKind::Disconnected, what));
        }
        shared.env.sleep_until(due).await;
    }
}

fn lost(e: std::io::Error) -> Error {
    Error::new(ErrorKind::Disconnected, "the NBD server closed the connection", Some(e))
}

fn corrupt(why: impl std::fmt::Display) -> Error {
    Error::own(ErrorKind::Corrupt, format!("the NBD server breaks the protocol: {why}"))
}

/// The longest request we send, in bytes.
fn longest(server: &Negotiated) -> u64 {
    u64_of(crate::runtime::BUF_MAX)
        .max(u64::from(server.blocks.minimum))
        .min(server.blocks.maximum.into())
}

#[cfg(test)]
mod tests;
