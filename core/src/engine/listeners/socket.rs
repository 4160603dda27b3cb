//! Listening sockets, TCP (plain or TLS) or Unix.
//!
//! ```text
//!   unix:PATH   somebody answers there ─► refused
//!               a socket nobody answers at (a killed engine's) ─► replaced
//!               .PATH.PID: bind, mode 0600 ─► rename to PATH      never open to others, not even briefly
//! ```

use std::fs;
use std::io;
use std::net::ToSocketAddrs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::runtime::Address;

/// Connections that wait to be accepted; the kernel's own limit may be lower.
const BACKLOG: i32 = 1024;

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Acceptor {
    address: Address,
    listener: Listener,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    /// The file goes when this does.
    Unix(UnixListener, #[expect(dead_code, reason = "only dropped")] Placed),
}

/// A socket's file, removed with it unless another engine has replaced it.
#[derive(Debug)]
struct Placed {
    path: PathBuf,
    inode: u64,
}

impl Drop for Placed {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Socket {
    /// Ends when there is something to read.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.readable().await,
            Self::Unix(s) => s.readable().await,
        }
    }

    /// Runs a call that reads; one that "would block" makes [`readable`](Self::readable) wait.
    pub(crate) fn try_io<T>(
        &self,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        match self {
            Self::Tcp(s) => s.try_io(Interest::READABLE, || call(s.as_fd())),
            Self::Unix(s) => s.try_io(Interest::READABLE, || call(s.as_fd())),
        }
    }

    /// Takes it from tokio.
    pub(crate) fn into_fd(self) -> io::Result<OwnedFd> {
        Ok(match self {
            Self::Tcp(s) => s.into_std()?.into(),
            Self::Unix(s) => s.into_std()?.into(),
        })
    }
}

impl Acceptor {
    /// Listens at `address`. Called within a tokio runtime.
    pub(crate) fn bind(address: &Address) -> io::Result<Self> {
        let named =
            |e: io::Error| io::Error::new(e.kind(), format!("can't listen at {address}: {e}"));
        match address {
            Address::Tcp(host_port) | Address::Tls { host_port, .. } => {
                let (listener, at) = bind_tcp(host_port).map_err(named)?;
                Ok(Self { address: address.with_host_port(at), listener: Listener::Tcp(listener) })
            }
            Address::Unix(path) => {
                let (listener, placed) = bind_unix(path).map_err(named)?;
                Ok(Self { address: address.clone(), listener: Listener::Unix(listener, placed) })
            }
        }
    }

    /// Where it listens; for TCP with the port that was chosen for port 0.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Whether clients must prove themselves.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.address, Address::Tls { .. })
    }

    /// The next connection, and who it is from, for logs.
    pub(crate) async fn accept(&self) -> io::Result<(Socket, String)> {
        match &self.listener {
            Listener::Tcp(l) => {
                let (stream, from) = l.accept().await?;
                Ok((Socket::Tcp(stream), from.to_string()))
            }
            Listener::Unix(l, _) => {
                let (stream, _) = l.accept().await?;
                let from = stream
                    .peer_cred()
                    .ok()
                    .and_then(|c| c.pid())
                    .map_or_else(|| "a local process".to_owned(), |pid| format!("process {pid}"));
                Ok((Socket::Unix(stream), from))
            }
        }
    }
}

fn bind_tcp(host_port: &str) -> io::Result<(TcpListener, String)> {
    let listen = |at| {
        let socket = match at {
            std::net::SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            std::net::SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        // A restarted engine must not wait for old connections to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(at)?;
        socket.listen(u32::try_from(BACKLOG).unwrap_or_default())
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for at in host_port.to_socket_addrs()? {
        match listen(at) {
            Ok(listener) => {
                let at = listener.local_addr()?.to_string();
                return Ok((listener, at));
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn bind_unix(path: &Path) -> io::Result<(UnixListener, Placed)> {
    check_free(path)?;
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let draft = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let _ = fs::remove_file(&draft);
    let bind = || {
        let listener = std::os::unix::net::UnixListener::bind(&draft)?;
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))?;
        let inode = fs::symlink_metadata(&draft)?.ino();
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        fs::rename(&draft, path)?;
        Ok((UnixListener::from_std(listener)?, Placed { path: path.to_owned(), inode }))
    };
    bind().map_err(|e: io::Error| {
        let _ = fs::remove_file(&draft);
        match e.kind() {
            io::ErrorKind::InvalidInput => io::Error::new(
                e.kind(),
                format!("{e} (a socket's path has some 100 bytes at most: use a shorter one)"),
            ),
            io::ErrorKind::NotFound => {
                io::Error::new(e.kind(), format!("{e} (make its directory first)"))
            }
            _ => e,
        }
    })
}

/// Nobody listens there, and what is there is a socket.
fn check_free(path: &Path) -> io::Result<()> {
    let Ok(there) = fs::symlink_metadata(path) else { return Ok(()) };
    if !there.file_type().is_socket() {
        let text = "there is a file of that name that is no socket: use another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        _ => {
            let text = "another process listens there: stop it, or use another path";
            Err(io::Error::new(io::ErrorKind::AddrInUse, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_replaces_a_dead_one_and_goes_with_its_engine() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        // What a killed engine leaves behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let address = Address::Unix(path.clone());
        let acceptor = Acceptor::bind(&address).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let second = Acceptor::bind(&address).unwrap_err().to_string();
        assert!(second.contains("another process listens"), "{second}");
        let client = UnixStream::connect(&path).await.unwrap();
        acceptor.accept().await.unwrap();
        drop((client, acceptor));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_path_that_can_be_no_socket_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        for (path, word) in [
            ("file".to_owned(), "no socket"),
            ("none/a.sock".to_owned(), "make its directory"),
            ("x".repeat(200), "shorter"),
        ] {
            let address = Address::Unix(dir.path().join(path));
            let text = Acceptor::bind(&address).unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "x");
    }
}
