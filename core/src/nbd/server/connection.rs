//! The transmission phase of one connection: reads requests, starts them, bounds them.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::select;
use futures::task::noop_waker_ref;

use super::reply::Replies;
use super::request::{self, Job};
use super::{DRAINED_MAX, End, Limits, PIECE};
use crate::disk::Disk;
use crate::nbd::handshake::Session;
use crate::nbd::wire::{Malformed, REQUEST_LEN, Request, command};
use crate::runtime::{Data, Env, Outbox, Reader, Signal, Stream, Task, timeout};
use crate::units::{u64_of, usize_of};

/// What the requests of a connection share.
pub(super) struct Connection<E: Env, D> {
    pub(super) env: E,
    pub(super) session: Session<D>,
    pub(super) replies: Replies,
    stream: E::Stream,
    load: Rc<Load>,
    dead: Cell<bool>,
    /// Why the sender ended, if the stream failed.
    failed: RefCell<Option<io::Error>>,
}

/// What is in flight.
#[derive(Default)]
struct Load {
    requests: Cell<usize>,
    payload: Cell<u64>,
    changed: Signal,
}

/// A request's share of the load; given back when it is dropped.
pub(super) struct Share {
    load: Rc<Load>,
    payload: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.load.requests.set(self.load.requests.get() - 1);
        self.load.payload.set(self.load.payload.get() - self.payload);
        self.load.changed.notify();
    }
}

impl<E: Env, D: Disk> Connection<E, D> {
    /// Ends the stream and whoever waits for room.
    fn kill(&self) {
        self.dead.set(true);
        self.stream.shutdown();
        self.load.changed.notify();
    }

    /// Waits until a request with this payload may begin; `None` when the connection is dead.
    ///
    /// Replies that the client does not fetch count as well: they hold memory.
    async fn room(&self, payload: u64, limits: &Limits) -> Option<Share> {
        loop {
            if self.dead.get() {
                return None;
            }
            let outbox = self.replies.outbox();
            let requests = self.load.requests.get() + outbox.pieces() / 2;
            let bytes = self.load.payload.get() + u64_of(outbox.bytes());
            let fits =
                requests < limits.requests && bytes.saturating_add(payload) <= limits.payload;
            if fits || (requests == 0 && bytes == 0) {
                self.load.requests.set(self.load.requests.get() + 1);
                self.load.payload.set(self.load.payload.get() + payload);
                return Some(Share { load: self.load.clone(), payload });
            }
            select(self.load.changed.wait(), outbox.taken().wait()).await;
        }
    }
}

/// Cuts everything when the connection's own future is dropped.
struct Guard<E: Env, D: Disk> {
    connection: Rc<Connection<E, D>>,
    watcher: Task,
}

impl<E: Env, D: Disk> Drop for Guard<E, D> {
    fn drop(&mut self) {
        self.watcher.cancel();
        self.connection.replies.outbox().close();
        self.connection.kill();
    }
}

/// Serves requests until the client leaves, fails, or loses the right to be served.
pub(super) async fn transmit<E: Env, D: Disk>(
    env: &E,
    mut reader: Reader<E::Stream>,
    stream: E::Stream,
    session: Session<D>,
    limits: &Limits,
) -> End {
    let outbox = Outbox::new();
    let revoked = session.export.revoked.clone();
    let connection = Rc::new(Connection {
        env: env.clone(),
        replies: Replies::new(outbox.clone(), session.structured),
        session,
        stream: stream.clone(),
        load: Rc::default(),
        dead: Cell::new(false),
        failed: RefCell::new(None),
    });
    let (c, e) = (connection.clone(), env.clone());
    let sender = env.spawn("nbd send", async move {
        if let Err(error) = outbox.run(&e, &stream, Duration::ZERO).await {
            *c.failed.borrow_mut() = Some(error);
            c.kill();
        }
    });
    let (c, r) = (connection.clone(), revoked.clone());
    let watcher = env.spawn("nbd revocation", async move {
        r.wait().await;
        c.kill();
    });
    let guard = Guard { connection: connection.clone(), watcher };

    let end = requests(&connection, &mut reader, limits).await;
    drop(reader);
    // Nothing of this client may reach the disk once it is gone.
    let load = &connection.load;
    load.changed.wait_until(|| load.requests.get() == 0).await;
    connection.replies.outbox().close();
    if !connection.dead.get() {
        // A client that left may still fetch its answers, but not for ever.
        timeout(env, limits.linger, sender.join()).await;
    }
    drop(guard);
    let failed = connection.failed.borrow_mut().take();
    match (revoked.is_revoked(), failed) {
        (true, _) => End::Revoked,
        (false, Some(error)) => End::Lost(error),
        (false, None) => end,
    }
}

async fn requests<E: Env, D: Disk>(
    connection: &Rc<Connection<E, D>>,
    reader: &mut Reader<E::Stream>,
    limits: &Limits,
) -> End {
    loop {
        let mut header = [0; REQUEST_LEN];
        match reader.exact_or_end(&mut header).await {
            Ok(true) => {}
            Ok(false) => return End::Left,
            Err(e) => return End::Lost(e),
        }
        let request = match Request::decode(&header) {
            Ok(request) => request,
            Err(e) => return End::Garbage(e),
        };
        if request.command == command::DISCONNECT {
            return End::Left;
        }
        if let Err(end) = one(connection, reader, &request, limits).await {
            return end;
        }
    }
}

/// Reads the rest of a request and begins it.
async fn one<E: Env, D: Disk>(
    connection: &Rc<Connection<E, D>>,
    reader: &mut Reader<E::Stream>,
    request: &Request,
    limits: &Limits,
) -> Result<(), End> {
    let payload = if request.command == command::WRITE { request.length } else { 0 };
    if payload > DRAINED_MAX {
        return Err(End::Garbage(Malformed(format!(
            "a write of {payload} bytes; the limit is {}",
            connection.session.export.blocks.maximum
        ))));
    }
    let job = request::check(&connection.session, request);
    let cost = job.as_ref().map_or(0, Job::cost);
    let Some(share) = connection.room(cost, limits).await else { return Err(End::Left) };
    match job {
        Ok(job) => {
            let data = receive(reader, payload.into()).await?;
            begin(connection, request.cookie, job, data, share);
        }
        Err(refused) => {
            drain(reader, payload.into()).await?;
            connection.replies.error(request.cookie, refused.errno, &refused.text);
        }
    }
    Ok(())
}

/// Polls a request once; most end at that. The others become tasks, and overtake each other.
fn begin<E: Env, D: Disk>(
    connection: &Rc<Connection<E, D>>,
    cookie: u64,
    job: Job,
    data: Vec<Data>,
    share: Share,
) {
    let c = connection.clone();
    let mut work = Box::pin(async move {
        request::run(&c, cookie, job, data).await;
        drop(share);
    });
    // The task polls again first thing, so no wake-up is lost to this waker.
    let polled = work.as_mut().poll(&mut Context::from_waker(noop_waker_ref()));
    if polled == Poll::Pending {
        connection.env.spawn("nbd request", work);
    }
}

/// The payload of a write, in pieces that a disk takes.
async fn receive<S: Stream>(reader: &mut Reader<S>, len: u64) -> io::Result<Vec<Data>> {
    let mut data = Vec::with_capacity(usize_of(len.div_ceil(PIECE)));
    let mut left = len;
    while left > 0 {
        let piece = left.min(PIECE);
        data.push(reader.payload(usize_of(piece)).await?.freeze());
        left -= piece;
    }
    Ok(data)
}

/// Reads and forgets.
async fn drain<S: Stream>(reader: &mut Reader<S>, mut left: u64) -> io::Result<()> {
    while left > 0 {
        let piece = left.min(PIECE);
        drop(reader.payload(usize_of(piece)).await?);
        left -= piece;
    }
    Ok(())
}
