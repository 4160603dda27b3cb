//! A connected socket, TCP or Unix, as a [`Stream`].
//!
//! ```text
//!   SocketStream ──clones──► Socket: descriptor + reactor
//!     dropped last: shutdown if a request is under way, so that it ends; then closed
//! ```

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use futures::future::Either;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
    connect as start_connect, send, shutdown, socket_with, sockopt,
};

use super::op::{Fd, Op};
use super::reactor::Reactor;
use super::{Address, Buf, Data, ShardEnv, Stream};

/// A connected socket. Clones are the same one.
#[derive(Clone)]
pub struct SocketStream(Rc<Socket>);

struct Socket {
    fd: Rc<Fd>,
    reactor: Rc<Reactor>,
}

impl std::fmt::Debug for SocketStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SocketStream({})", self.0.fd.raw())
    }
}

impl SocketStream {
    /// A connected socket that was made elsewhere, from now on served by this shard.
    ///
    /// An error if it is no stream socket.
    pub(super) fn adopt(env: &ShardEnv, fd: OwnedFd) -> io::Result<Self> {
        if sockopt::socket_type(&fd)? != SocketType::STREAM {
            let what = "only a connected stream socket can be a stream";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        // Fails on a Unix socket, which never waits for company anyway.
        let _ = sockopt::set_tcp_nodelay(&fd, true);
        // The ring waits by itself; epoll's calls say so one by one.
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        if flags.contains(OFlags::NONBLOCK) {
            rustix::fs::fcntl_setfl(&fd, flags - OFlags::NONBLOCK)?;
        }
        Ok(Self(Rc::new(Socket { fd: Fd::new(fd), reactor: env.0.reactor.clone() })))
    }

    /// Another descriptor of the same socket: the registration of this one belongs to its shard.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        Ok(rustix::io::fcntl_dupfd_cloexec(&*self.0.fd, 0)?)
    }

    /// Sends last words, if there is room for them: whether they arrive does not matter.
    pub(super) fn try_send(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let _ = send(&*self.0.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }
}

impl Stream for SocketStream {
    fn recv(
        &self,
        buf: Buf,
        at: usize,
    ) -> impl Future<Output = (Buf, io::Result<usize>)> + 'static {
        if at >= buf.len() {
            // The kernel would answer 0, which means the end of the stream.
            let e = io::Error::new(io::ErrorKind::InvalidInput, "no room to receive into");
            return Either::Left(std::future::ready((buf, Err(e))));
        }
        let wait = self.0.reactor.submit(&self.0.fd, Op::Recv { buf, at }, 0);
        Either::Right(async move {
            match wait.await {
                (Op::Recv { buf, .. }, result) => (buf, result),
                (_, result) => (Buf::new(0), result),
            }
        })
    }

    fn send(&self, data: Vec<Data>) -> impl Future<Output = io::Result<()>> + 'static {
        if data.iter().all(|d| d.is_empty()) {
            return Either::Left(std::future::ready(Ok(())));
        }
        let wait = self.0.reactor.submit(&self.0.fd, Op::Send { data }, 0);
        Either::Right(async move { wait.await.1.map(drop) })
    }

    fn shutdown(&self) {
        // An error means that the far end has ended it before.
        let _ = shutdown(&*self.0.fd, Shutdown::Both);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Flights hold the descriptor open: end them.
        if Rc::strong_count(&self.fd) > 1 {
            let _ = shutdown(&*self.fd, Shutdown::Both);
        }
    }
}

/// Connects, without a word said yet; a host name is looked up on another thread and its addresses
/// are tried in order.
pub(crate) async fn connect(env: ShardEnv, to: Address) -> io::Result<SocketStream> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("can't connect to {to}: {e}"));
    match &to {
        Address::Unix(path) => {
            let address = SocketAddrUnix::new(path.as_path()).map_err(|e| named(e.into()))?;
            // A full queue of a Unix listener answers EAGAIN, and can't be waited for.
            let fd = new_socket(AddressFamily::UNIX).map_err(named)?;
            loop {
                match start_connect(&fd, &address) {
                    Ok(()) => return SocketStream::adopt(&env, fd),
                    Err(Errno::AGAIN) => {
                        super::Env::sleep(&env, std::time::Duration::from_millis(5)).await;
                    }
                    Err(e) => return Err(named(e.into())),
                }
            }
        }
        Address::Tcp(host) | Address::Tls { host_port: host, .. } => {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for address in look_up(&env, host).await.map_err(named)? {
                match connect_tcp(&env, &address).await {
                    Ok(stream) => return Ok(stream),
                    Err(e) => last = e,
                }
            }
            Err(named(last))
        }
    }
}

/// The addresses of `HOST:PORT`.
pub(crate) async fn look_up(env: &ShardEnv, host: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let host = host.to_owned();
    env.blocking(move || host.to_socket_addrs().map(Iterator::collect)).await?
}

async fn connect_tcp(env: &ShardEnv, address: &SocketAddr) -> io::Result<SocketStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = new_socket(family)?;
    match start_connect(&fd, address) {
        Ok(()) => return SocketStream::adopt(env, fd),
        Err(Errno::INPROGRESS) => {}
        Err(e) => return Err(e.into()),
    }
    let fd = Fd::new(fd);
    env.0.reactor.submit(&fd, Op::Poll { write: true }, 0).await.1?;
    sockopt::socket_error(&*fd)??;
    // A new descriptor: the registration of this one belongs to the connecting.
    SocketStream::adopt(env, rustix::io::fcntl_dupfd_cloexec(&*fd, 0)?)
}

fn new_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    Ok(socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?)
}
