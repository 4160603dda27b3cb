//! Looks at the first bytes of a connection without taking them: they decide which shard it is for.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::link::frame::{self, Body, HEADER_LEN, HELLO_MAX};
use crate::runtime::Buf;
use crate::units::{GroupId, usize_of};

/// The group that a primary's hello names, within `limit`; the bytes stay in the socket.
pub(super) async fn hello(socket: OwnedFd, limit: Duration) -> io::Result<(OwnedFd, GroupId)> {
    let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
    let stalled = |_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("no hello within {limit:?}"))
    };
    let group = tokio::time::timeout(limit, read(&socket)).await.map_err(stalled)??;
    Ok((socket.into_inner(), group))
}

async fn read(socket: &AsyncFd<OwnedFd>) -> io::Result<GroupId> {
    let mut bytes = vec![0; HEADER_LEN + usize_of(HELLO_MAX)];
    loop {
        let mut ready = socket.readable().await?;
        let n = match rustix::net::recv(socket, &mut bytes[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((n, _)) => n,
            Err(rustix::io::Errno::AGAIN) => 0,
            Err(e) => return Err(e.into()),
        };
        if let Some(group) = group_in(bytes.get(..n).unwrap_or_default())? {
            return Ok(group);
        }
        // Wakes again when more has come than there was when this readiness was seen.
        ready.clear_ready();
    }
}

/// The group, once the hello is complete.
fn group_in(bytes: &[u8]) -> io::Result<Option<GroupId>> {
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
    let header = frame::decode_header(header).map_err(io::Error::other)?;
    let Some(payload) = payload.get(..header.payload_len) else {
        if header.payload_len > usize_of(HELLO_MAX) {
            return Err(io::Error::other("the first frame is no hello"));
        }
        return Ok(None);
    };
    match frame::decode(&header, Buf::copy_of(payload)).map_err(io::Error::other)? {
        Body::Hello(hello) => Ok(Some(hello.group)),
        _ => Err(io::Error::other("the first frame is no hello")),
    }
}
