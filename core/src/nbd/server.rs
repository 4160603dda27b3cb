//! The server's end of one connection.
//!
//! ```text
//!   stream ─► Reader ─► handshake ─► request ─► check ─► disk ─► reply ─► Outbox ─► stream
//!                                      │          └ refused: drain, error ─┘
//!                                      └ polled once at once; a task of its own if it must wait
//!
//!   Load      what is in flight, against the limits: the reader waits, so the client does
//!   watcher   cuts the stream when the export is revoked
//! ```
//!
//! [`serve`] ends when the client left, broke the protocol, or its export was revoked, and then
//! only after every request it had begun has ended: nothing reaches the disk later.

mod connection;
mod reply;
mod request;
mod starttls;

pub use starttls::{Secured, negotiate_secured_within, starttls_within};

use std::cell::Cell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::Catalog;
use super::handshake::{Next, Server, Session};
use super::wire::{CLIENT_FLAGS_LEN, Malformed, OPTION_HEADER_LEN, OptionHeader, REQUEST_MAX};
use crate::disk::Disk;
use crate::runtime::{BUF_MAX, Buf, Data, Env, Reader, Stream, timeout};
use crate::units::{u64_of, usize_of};

/// What one connection may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// For the whole handshake.
    pub handshake: Duration,
    /// Requests that were read and whose reply was not sent.
    pub requests: usize,
    /// Their payload in bytes; a single request may always be in flight.
    pub payload: u64,
    /// For sending the last replies to a client that left.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            requests: 128,
            payload: 2 * u64::from(REQUEST_MAX),
            linger: Duration::from_secs(10),
        }
    }
}

/// Why a connection ended.
#[derive(Debug)]
pub enum End {
    /// The client said goodbye, or closed between two requests.
    Left,
    /// The client asked for what can't be had, in a way that has no other answer.
    Refused(String),
    /// The client sent what is no NBD.
    Garbage(Malformed),
    /// The handshake took too long.
    Stalled(Duration),
    /// The export went stale.
    Revoked,
    /// The stream failed.
    Lost(io::Error),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("the client left"),
            Self::Refused(why) => write!(f, "the client was refused: {why}"),
            Self::Garbage(why) => write!(f, "the client breaks the NBD protocol: {why}"),
            Self::Stalled(limit) => {
                write!(f, "the client did not finish the NBD handshake in {limit:?}")
            }
            Self::Revoked => f.write_str("the export went stale; connect again by its new name"),
            Self::Lost(e) => write!(f, "the connection was lost: {e}"),
        }
    }
}

impl From<io::Error> for End {
    fn from(e: io::Error) -> Self {
        Self::Lost(e)
    }
}

impl From<Malformed> for End {
    fn from(e: Malformed) -> Self {
        Self::Garbage(e)
    }
}

/// Serves one client on `stream` to its end, within the default [`Limits`].
pub async fn serve<E: Env, C: Catalog>(env: &E, stream: E::Stream, catalog: &C) -> End {
    serve_within(env, stream, catalog, &Limits::default()).await
}

/// Serves one client on `stream` to its end.
pub async fn serve_within<E: Env, C: Catalog>(
    env: &E,
    stream: E::Stream,
    catalog: &C,
    limits: &Limits,
) -> End {
    match negotiate_within(env, &stream, catalog, limits).await {
        Ok(session) => transmit_within(env, stream, *session, limits).await,
        Err(end) => {
            stream.shutdown();
            end
        }
    }
}

/// The handshake alone, up to the export that the client chose. Where the export's disk is on
/// another thread, the stream may move there before [`transmit_within`]; `catalog` then only
/// knows of the export.
///
/// The client has been told that requests are welcome, so the first one may be in the stream; one
/// that it sent before it was told ends the connection.
pub async fn negotiate_within<E: Env, C: Catalog>(
    env: &E,
    stream: &E::Stream,
    catalog: &C,
    limits: &Limits,
) -> Result<Box<Session<C::Disk>>, End> {
    let mut reader = Reader::small(stream.clone());
    let negotiated = timeout(env, limits.handshake, async {
        let server = greet(&mut reader, stream).await?;
        negotiate(&mut reader, stream, server, catalog).await
    });
    let session = negotiated.await.unwrap_or(Err(End::Stalled(limits.handshake)))?;
    check_silence(&reader)?;
    Ok(session)
}

fn check_silence<S: Stream>(reader: &Reader<S>) -> Result<(), End> {
    if reader.buffered() > 0 {
        return Err(Malformed("a request before the export was granted".into()).into());
    }
    Ok(())
}

/// Serves the requests of a client whose handshake is done, to its end.
pub async fn transmit_within<E: Env, D: Disk>(
    env: &E,
    stream: E::Stream,
    session: Session<D>,
    limits: &Limits,
) -> End {
    let reader = Reader::new(stream.clone());
    let end = connection::transmit(env, reader, stream.clone(), session, limits).await;
    stream.shutdown();
    end
}

/// The greeting, and the client's flags.
async fn greet<S: Stream>(reader: &mut Reader<S>, stream: &S) -> Result<Server, End> {
    let mut server = Server::default();
    send(stream, &Server::greeting()).await?;
    let mut flags = [0; CLIENT_FLAGS_LEN];
    if !reader.exact_or_end(&mut flags).await? {
        return Err(End::Left);
    }
    server.client_flags(u32::from_be_bytes(flags))?;
    Ok(server)
}

/// The next option; `None` if it was refused already.
async fn read_option<S: Stream>(
    reader: &mut Reader<S>,
    stream: &S,
    server: &mut Server,
) -> Result<Option<(u32, Buf)>, End> {
    let mut header = [0; OPTION_HEADER_LEN];
    if !reader.exact_or_end(&mut header).await? {
        return Err(End::Left);
    }
    let header = OptionHeader::decode(&header)?;
    let welcome = server.accept(header)?;
    let data = reader.payload(usize_of(header.length.into())).await?;
    if !welcome {
        send(stream, &Server::too_big(header.option)).await?;
        return Ok(None);
    }
    Ok(Some((header.option, data)))
}

/// The options, up to the export that the client chose.
async fn negotiate<S: Stream, C: Catalog>(
    reader: &mut Reader<S>,
    stream: &S,
    mut server: Server,
    catalog: &C,
) -> Result<Box<Session<C::Disk>>, End> {
    loop {
        let Some((code, data)) = read_option(reader, stream, &mut server).await? else { continue };
        let answer = server.option(code, &data, catalog);
        send(stream, &answer.bytes).await?;
        match answer.next {
            Next::More => {}
            Next::Transmit(session) => return Ok(session),
            Next::Left => return Err(End::Left),
            Next::Refused(why) => return Err(End::Refused(why)),
        }
    }
}

async fn send<S: Stream>(stream: &S, bytes: &[u8]) -> io::Result<()> {
    for part in bytes.chunks(BUF_MAX) {
        stream.send(vec![Data::copy_of(part)]).await?;
    }
    Ok(())
}

/// Counts connections against a limit: the listener asks before it serves.
#[derive(Clone, Debug)]
pub struct Connections(Rc<(Cell<usize>, usize)>);

/// A place among the connections; dropping it gives it up.
#[derive(Debug)]
pub struct Place(Connections);

impl Connections {
    /// At most `max` at a time.
    pub fn new(max: usize) -> Self {
        Self(Rc::new((Cell::new(0), max)))
    }

    /// A place, or `None` when all are taken: close the new connection then.
    pub fn enter(&self) -> Option<Place> {
        let (now, max) = (&self.0.0, self.0.1);
        (now.get() < max).then(|| {
            now.set(now.get() + 1);
            Place(self.clone())
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.0.get()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = &self.0.0.0;
        now.set(now.get().saturating_sub(1));
    }
}

/// Payload of a refused write up to this length is read and thrown away; more ends the connection.
const DRAINED_MAX: u32 = 2 * REQUEST_MAX;

/// The longest single call of a disk, in bytes.
const PIECE: u64 = 1 << 20;

const _: () = assert!(PIECE <= u64_of(BUF_MAX));

#[cfg(test)]
mod tests;
