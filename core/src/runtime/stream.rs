//! A shard's streams: plain or TLS, from the first byte on or from some byte on.
//!
//! ```text
//!   adopt(fd) ────────────► ShardStream::Plain ── secure / welcome ──► ShardStream::Tls
//!                                │                                        │
//!   another shard ◄── Parcel ◄───┴─────────────── leave ──────────────────┘
//!                       descriptor, session, what was received and not asked for
//! ```

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;

use futures::future::Either;

use super::tls::{Session, TlsStream, handshake};
use super::{Address, Buf, Data, ShardEnv, SocketStream, Stream};
use crate::tls::{Door, Identity, Tls};

/// A stream of a shard. Clones are the same one.
#[derive(Clone, Debug)]
pub enum ShardStream {
    /// As it is on the wire.
    Plain(SocketStream),
    /// Encrypted, between two that have proven themselves.
    Tls(TlsStream),
}

/// A stream on its way from one shard to another.
pub struct Parcel {
    fd: OwnedFd,
    /// The session, and what was received and not decrypted.
    tls: Option<(Session, Vec<u8>)>,
}

impl std::fmt::Debug for Parcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parcel({:?}, tls: {})", self.fd, self.tls.is_some())
    }
}

impl From<OwnedFd> for Parcel {
    /// A plain socket.
    fn from(fd: OwnedFd) -> Self {
        Self { fd, tls: None }
    }
}

impl ShardStream {
    /// Who the far end has proven to be; `None` on a plain stream.
    pub fn identity(&self) -> Option<Identity> {
        let Self::Tls(stream) = self else { return None };
        stream.with(|s| s.peer().and_then(|c| Identity::named_in(c).ok())).flatten()
    }

    /// Leaves this shard; [`ShardEnv::arrive`] is the other end. Nothing may be under way, and no
    /// other clone is of use afterwards.
    pub fn leave(self) -> io::Result<Parcel> {
        match self {
            Self::Plain(socket) => Ok(Parcel { fd: socket.duplicate()?, tls: None }),
            Self::Tls(stream) => {
                let fd = stream.socket().duplicate()?;
                Ok(Parcel { fd, tls: Some(stream.take()?) })
            }
        }
    }

    /// Puts bytes back, to be received again. Only on a TLS stream: a plain one can be peeked at.
    pub fn put_back(&self, bytes: Vec<u8>) -> io::Result<()> {
        match self {
            Self::Plain(_) => Err(io::Error::other("nothing can be put back into a socket")),
            Self::Tls(stream) => {
                stream.put_back(bytes);
                Ok(())
            }
        }
    }

    fn plain(self) -> io::Result<SocketStream> {
        match self {
            Self::Plain(socket) => Ok(socket),
            Self::Tls(_) => Err(io::Error::other("this stream is encrypted already")),
        }
    }
}

impl Stream for ShardStream {
    fn recv(
        &self,
        buf: Buf,
        at: usize,
    ) -> impl Future<Output = (Buf, io::Result<usize>)> + 'static {
        match self {
            Self::Plain(s) => Either::Left(s.recv(buf, at)),
            Self::Tls(s) => Either::Right(s.recv(buf, at)),
        }
    }

    fn send(&self, data: Vec<Data>) -> impl Future<Output = io::Result<()>> + 'static {
        match self {
            Self::Plain(s) => Either::Left(s.send(data)),
            Self::Tls(s) => Either::Right(s.send(data)),
        }
    }

    fn shutdown(&self) {
        match self {
            Self::Plain(s) => s.shutdown(),
            Self::Tls(s) => s.shutdown(),
        }
    }
}

impl ShardEnv {
    /// The certificates of this process, if it has any.
    pub fn tls(&self) -> Option<&Tls> {
        self.0.tls.as_ref()
    }

    fn certificates(&self) -> io::Result<&Tls> {
        self.tls().ok_or_else(|| {
            let text = "this process has no certificates: start it with --tls DIRECTORY";
            io::Error::new(io::ErrorKind::Unsupported, text)
        })
    }

    /// A connected socket that was made elsewhere, from now on served by this shard.
    ///
    /// An error if it is no stream socket.
    pub fn adopt(&self, fd: OwnedFd) -> io::Result<ShardStream> {
        SocketStream::adopt(self, fd).map(ShardStream::Plain)
    }

    /// A stream that has left another shard.
    pub fn arrive(&self, parcel: Parcel) -> io::Result<ShardStream> {
        let socket = SocketStream::adopt(self, parcel.fd)?;
        Ok(match parcel.tls {
            None => ShardStream::Plain(socket),
            Some((session, left)) => ShardStream::Tls(TlsStream::new(socket, session, &left)),
        })
    }

    /// The client's handshake over a plain stream: at the far end must be the engine of `node`, or
    /// of any node if none is named.
    pub async fn secure(
        &self,
        stream: ShardStream,
        door: Door,
        node: Option<&str>,
    ) -> io::Result<ShardStream> {
        let socket = stream.plain()?;
        let config = self.certificates()?.current().client(door, node).map_err(io::Error::other)?;
        handshake(self, socket, Session::client(config)?).await.map(ShardStream::Tls)
    }

    /// The server's handshake over a plain stream: somebody whom the door admits must be there.
    pub async fn welcome(&self, stream: ShardStream, door: Door) -> io::Result<ShardStream> {
        let socket = stream.plain()?;
        let config = self.certificates()?.current().server(door);
        handshake(self, socket, Session::server(config)?).await.map(ShardStream::Tls)
    }
}

/// Connects, and says nothing yet.
pub(super) async fn connect_plain(env: ShardEnv, to: Address) -> io::Result<ShardStream> {
    if matches!(to, Address::Tcp(_)) && !env.0.plaintext {
        let text = format!("{to} is plaintext: use tls:NODE@HOST:PORT, or --insecure-plaintext");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    super::socket::connect(env, to).await.map(ShardStream::Plain)
}

/// Connects a link.
pub(super) async fn connect(env: ShardEnv, to: Address) -> io::Result<ShardStream> {
    let stream = connect_plain(env.clone(), to.clone()).await?;
    match &to {
        Address::Unix(_) | Address::Tcp(_) => Ok(stream),
        Address::Tls { .. } => start_tls(env, stream, Door::Link, to).await,
    }
}

/// Calls at a door of the engine that the address names.
pub(super) async fn start_tls(
    env: ShardEnv,
    stream: ShardStream,
    door: Door,
    to: Address,
) -> io::Result<ShardStream> {
    let secured = env.secure(stream, door, to.node()).await;
    secured.map_err(|e| io::Error::new(e.kind(), format!("the engine at {to}: {e}")))
}
