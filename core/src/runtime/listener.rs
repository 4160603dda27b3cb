//! A listening socket, TCP or Unix.
//!
//! ```text
//!   bind(address) ──► accept() ──► ShardStream     on the shard that bound it
//! ```

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::op::{Fd, Op};
use super::{Address, ShardEnv, ShardStream};

/// A listening socket. Clones are the same one.
#[derive(Clone)]
pub struct Listener {
    env: ShardEnv,
    fd: Rc<Fd>,
    address: Address,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({})", self.address)
    }
}

impl Listener {
    /// Listens at `address`. A Unix socket that a process left behind is replaced; one that
    /// somebody listens at is not ([`io::ErrorKind::AddrInUse`]).
    pub async fn bind(env: &ShardEnv, address: &Address) -> io::Result<Self> {
        let named =
            |e: io::Error| io::Error::new(e.kind(), format!("can't listen at {address}: {e}"));
        let (fd, address): (OwnedFd, Address) = match address {
            Address::Unix(path) => {
                let listener = bind_unix(path).map_err(named)?;
                (listener.into(), address.clone())
            }
            Address::Tcp(host) | Address::Tls { host_port: host, .. } => {
                let all = super::socket::look_up(env, host).await.map_err(named)?;
                let listener = TcpListener::bind(&*all).map_err(named)?;
                let bound = listener.local_addr().map_err(named)?;
                (listener.into(), address.with_host_port(bound.to_string()))
            }
        };
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { env: env.clone(), fd: Fd::new(fd), address })
    }

    /// Where it listens; for TCP with the port that was chosen for port 0.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The next connection. An error is one of this process (too many open files): wait and try
    /// again. At most one call at a time.
    pub async fn accept(&self) -> io::Result<ShardStream> {
        loop {
            match accept_with(&*self.fd, SocketFlags::CLOEXEC) {
                Ok(fd) => return self.env.adopt(fd),
                Err(Errno::AGAIN) => {
                    self.env.0.reactor.submit(&self.fd, Op::Poll { write: false }, 0).await.1?;
                }
                // Went away while it waited in the queue, or a signal.
                Err(Errno::CONNABORTED | Errno::PROTO | Errno::INTR | Errno::PERM) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            let is_socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
            let is_dead = || {
                UnixStream::connect(path)
                    .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
            };
            if !is_socket || !is_dead() {
                return Err(e);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        other => other,
    }
}
