//! One end of a connection, TCP or Unix: read and written by several threads at once.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

use understudy_core::runtime::Address;

#[derive(Debug)]
pub(super) enum End {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl End {
    /// Connects to the listener behind a proxy.
    pub(super) fn connect(target: &Address) -> io::Result<Self> {
        match target {
            Address::Unix(path) => Ok(Self::Unix(UnixStream::connect(path)?)),
            Address::Tcp(at) => {
                let stream = TcpStream::connect(at)?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Address::Tls { .. } => Err(io::Error::other("a proxy speaks no TLS")),
        }
    }

    /// Ends one direction, or both.
    pub(super) fn shutdown(&self, how: Shutdown) {
        // What has ended already is as wanted.
        let _ended = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        };
    }
}

impl Read for &End {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match *self {
            End::Tcp(stream) => (&*stream).read(bytes),
            End::Unix(stream) => (&*stream).read(bytes),
        }
    }
}

impl Write for &End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match *self {
            End::Tcp(stream) => (&*stream).write(bytes),
            End::Unix(stream) => (&*stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
