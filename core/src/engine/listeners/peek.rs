//! Looks at the first bytes of a connection without taking them: they decide which shard it is for.
//!
//! ```text
//!   plain   MSG_PEEK until the hello is whole; it stays in the socket
//!   TLS     received until the hello is whole, then put back into the stream
//! ```

use std::io;
use std::time::Duration;

use rustix::net::RecvFlags;

use super::socket::Socket;
use crate::link::frame::{self, Body, HEADER_LEN};
use crate::runtime::{Buf, ShardEnv, ShardStream, Stream, timeout};
use crate::units::GroupId;

/// No hello is longer: 64 volumes with the longest names.
const HELLO_MAX: usize = 16 << 10;

/// How much of a hello is received at a time.
const HELLO_PIECE: usize = 4 << 10;

/// How soon to look again where the socket can't say that there is more.
const AGAIN: Duration = Duration::from_millis(20);

/// The group that a primary's hello names, within `limit`; the bytes stay in the socket.
pub(super) async fn hello(socket: &Socket, limit: Duration) -> io::Result<GroupId> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no hello within {limit:?}"));
    tokio::time::timeout(limit, read(socket)).await.map_err(late)?
}

async fn read(socket: &Socket) -> io::Result<GroupId> {
    let mut bytes = vec![0; HEADER_LEN + HELLO_MAX];
    let mut seen = 0;
    loop {
        socket.readable().await?;
        let before = seen;
        let looked = socket.try_io(|fd| {
            let (n, _) =
                rustix::net::recv(fd, &mut bytes[..], RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            seen = n;
            // "Would block" until more has come: then the socket is readable again.
            group_in(bytes.get(..n).unwrap_or_default())?
                .ok_or_else(|| io::ErrorKind::WouldBlock.into())
        });
        match looked {
            // Ready, and yet no more than before: the far end has ended its half of the stream, and
            // a look doesn't show that. The limit decides.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && seen == before => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// The same behind TLS: what is received is put back.
pub(super) async fn hello_in(
    env: &ShardEnv,
    stream: &ShardStream,
    limit: Duration,
) -> io::Result<GroupId> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no hello within {limit:?}"));
    let read = async {
        let mut bytes = Vec::new();
        loop {
            let (buf, n) = stream.recv(Buf::new(HELLO_PIECE), 0).await;
            let n = n?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(buf.get(..n).unwrap_or_default());
            if let Some(group) = group_in(&bytes)? {
                stream.put_back(bytes)?;
                return Ok(group);
            }
        }
    };
    timeout(env, limit, read).await.unwrap_or_else(|| Err(late()))
}

/// The group, once the hello is complete.
fn group_in(bytes: &[u8]) -> io::Result<Option<GroupId>> {
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
    let header = frame::decode_header(header).map_err(io::Error::other)?;
    let Some(payload) = payload.get(..header.payload_len) else {
        if header.payload_len > HELLO_MAX {
            return Err(io::Error::other("the first frame is no hello"));
        }
        return Ok(None);
    };
    match frame::decode(&header, Buf::copy_of(payload)).map_err(io::Error::other)? {
        Body::Hello(hello) => Ok(Some(hello.group)),
        _ => Err(io::Error::other("the first frame is no hello")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::link::frame::Hello;
    use crate::units::{Epoch, Generation, Uuid};

    fn frame() -> Vec<u8> {
        let hello = Hello {
            group: "vm".parse().unwrap(),
            generation: Generation { number: 1, id: 2 },
            pool: Uuid(3),
            epoch: Epoch(4),
            record: Epoch(5),
            blank: false,
            anew: false,
            members: vec![("disk".parse().unwrap(), 1 << 20)],
            joined: crate::units::VolumeCount::default(),
        };
        let (header, payload) = frame::encode(1, &Body::Hello(Box::new(hello)));
        [&header[..], &payload.unwrap()[..]].concat()
    }

    fn pair() -> (std::os::unix::net::UnixStream, Socket) {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        (near, Socket::Unix(tokio::net::UnixStream::from_std(far).unwrap()))
    }

    #[tokio::test]
    async fn a_hello_in_pieces_is_seen_and_stays_in_the_socket() {
        let (mut near, far) = pair();
        let bytes = frame();
        let writer = std::thread::spawn({
            let bytes = bytes.clone();
            move || {
                for piece in bytes.chunks(7) {
                    near.write_all(piece).unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                }
                near
            }
        });
        let group = hello(&far, Duration::from_secs(10)).await.unwrap();
        assert_eq!(group.as_str(), "vm");
        let _near = writer.join().unwrap();
        let mut left = vec![0; bytes.len() + 1];
        let n = rustix::io::read(far.into_fd().unwrap(), &mut left[..]).unwrap();
        assert_eq!(left[..n], bytes);
    }

    #[tokio::test]
    async fn garbage_silence_and_goodbye_end_it() {
        let limit = Duration::from_millis(50);
        let (mut near, far) = pair();
        near.write_all(&[b'x'; 100]).unwrap();
        assert!(hello(&far, limit).await.unwrap_err().to_string().contains("USLK"));
        let (_near, far) = pair();
        assert_eq!(hello(&far, limit).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (near, far) = pair();
        drop(near);
        assert_eq!(hello(&far, limit).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        // Half a hello, and no more to come or perhaps: neither spins.
        for ends in [false, true] {
            let (mut near, far) = pair();
            near.write_all(&frame()[..50]).unwrap();
            if ends {
                near.shutdown(std::net::Shutdown::Write).unwrap();
            }
            assert_eq!(hello(&far, limit).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
    }
}
