//! A session over a socket, as a [`Stream`].
//!
//! ```text
//!   TlsStream ──clones──► Inner ─┬─ SocketStream
//!                                ├─ Session
//!                                └─ Received: what came and is not decrypted yet
//! ```
//!
//! A send that is dropped half-way leaves half a record on the wire, so the next one fails; a
//! receive that is dropped takes its buffer with it, and the next one fails too. Neither happens
//! to streams that go on: who gives up on a request gives up on its stream.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;

use futures::future::Either;

use super::session::{Cursor, Session};
use crate::runtime::{Buf, Data, SocketStream, Stream};

/// Of what was received, the most that is kept encrypted: some records and a part of one.
const INCOMING: usize = 256 << 10;

/// The most that is encrypted at a time.
const CIPHERTEXT: usize = 256 << 10;

/// A TLS connection. Clones are the same one.
#[derive(Clone)]
pub struct TlsStream(Rc<Inner>);

struct Inner {
    socket: SocketStream,
    /// `None` once it has moved to another thread.
    session: RefCell<Option<Session>>,
    received: RefCell<Option<Received>>,
    /// A send is under way, or was dropped half-way.
    sending: Cell<bool>,
}

/// The bytes `start..end` of `buf` were received and are not decrypted yet.
struct Received {
    buf: Buf,
    start: usize,
    end: usize,
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls{:?}", self.0.socket)
    }
}

impl TlsStream {
    /// Goes on where a handshake, or another thread, left off; `left` was received beyond that.
    pub(in crate::runtime) fn new(socket: SocketStream, session: Session, left: &[u8]) -> Self {
        let mut buf = Buf::new(INCOMING.max(left.len()));
        if let Some(front) = buf.get_mut(..left.len()) {
            front.copy_from_slice(left);
        }
        let received = Received { buf, start: 0, end: left.len() };
        Self(Rc::new(Inner {
            socket,
            session: RefCell::new(Some(session)),
            received: RefCell::new(Some(received)),
            sending: Cell::new(false),
        }))
    }

    /// The socket under it.
    pub(in crate::runtime) fn socket(&self) -> &SocketStream {
        &self.0.socket
    }

    /// Takes all but the socket out: what was received is in it. Nothing may be under way.
    pub(in crate::runtime) fn take(&self) -> io::Result<(Session, Vec<u8>)> {
        let busy = || io::Error::other("a TLS stream can't move while a request is under way");
        if self.0.sending.get() {
            return Err(busy());
        }
        let received = self.0.received.take().ok_or_else(busy)?;
        let session = self.0.session.take().ok_or_else(busy)?;
        Ok((session, received.bytes().to_vec()))
    }

    /// Puts bytes back, to be received again.
    pub(in crate::runtime) fn put_back(&self, bytes: Vec<u8>) {
        if let Some(session) = &mut *self.0.session.borrow_mut() {
            session.put_back(bytes);
        }
    }

    /// With a session in hand.
    pub(in crate::runtime) fn with<T>(&self, look: impl FnOnce(&Session) -> T) -> Option<T> {
        self.0.session.borrow().as_ref().map(look)
    }
}

impl Received {
    fn bytes(&self) -> &[u8] {
        self.buf.get(self.start..self.end).unwrap_or_default()
    }

    /// Moves what is left to the front, if there is no room for a record behind it.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && self.buf.len() - self.end < self.buf.len() / 2 {
            self.buf.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }
}

impl Inner {
    /// Decrypts into `out` what is there; `None` if more must be received first.
    fn decrypt(&self, out: &mut [u8]) -> io::Result<Option<usize>> {
        let (mut session, mut received) = (self.session.borrow_mut(), self.received.borrow_mut());
        let (Some(session), Some(received)) = (&mut *session, &mut *received) else {
            return Err(gone());
        };
        let incoming = received.buf.get_mut(received.start..received.end).unwrap_or_default();
        match session.read(incoming, out) {
            Ok((n, used)) => {
                received.start += used;
                Ok((n > 0 || session.has_ended()).then_some(n))
            }
            Err(e) => {
                // The far end should know why, if it can be told at once.
                let words = session.take_control();
                if !self.sending.get() {
                    self.socket.try_send(&words);
                }
                Err(e)
            }
        }
    }

    /// Receives more. `false` at the end of the socket.
    async fn fill(&self) -> io::Result<bool> {
        let mut received = self.received.take().ok_or_else(gone)?;
        received.make_room();
        let (buf, n) = self.socket.recv(received.buf, received.end).await;
        received.buf = buf;
        let n = n?;
        received.end += n;
        self.received.replace(Some(received));
        Ok(n > 0)
    }

    async fn send(&self, data: Vec<Data>) -> io::Result<()> {
        if self.sending.replace(true) {
            let text = "an earlier send was given up half-way";
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, text));
        }
        let mut at = Cursor::default();
        while !at.is_done(&data) {
            let mut out = Buf::new(CIPHERTEXT);
            let used = match &mut *self.session.borrow_mut() {
                Some(session) => session.write(&data, &mut at, &mut out)?,
                None => return Err(gone()),
            };
            out.truncate(used);
            self.socket.send(vec![out.freeze()]).await?;
        }
        self.sending.set(false);
        Ok(())
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the TLS stream has moved, or ended")
}

impl Stream for TlsStream {
    fn recv(
        &self,
        mut buf: Buf,
        at: usize,
    ) -> impl Future<Output = (Buf, io::Result<usize>)> + 'static {
        if at >= buf.len() {
            let e = io::Error::new(io::ErrorKind::InvalidInput, "no room to receive into");
            return Either::Left(std::future::ready((buf, Err(e))));
        }
        let inner = self.0.clone();
        Either::Right(async move {
            loop {
                match inner.decrypt(buf.get_mut(at..).unwrap_or_default()) {
                    Ok(None) => {}
                    Ok(Some(n)) => return (buf, Ok(n)),
                    Err(e) => return (buf, Err(e)),
                }
                match inner.fill().await {
                    Ok(true) => {}
                    // Without a goodbye. Every protocol above knows where it ends by itself, so
                    // cutting it short gains nobody anything.
                    Ok(false) => return (buf, Ok(0)),
                    Err(e) => return (buf, Err(e)),
                }
            }
        })
    }

    fn send(&self, data: Vec<Data>) -> impl Future<Output = io::Result<()>> + 'static {
        let inner = self.0.clone();
        async move { inner.send(data).await }
    }

    fn shutdown(&self) {
        if !self.0.sending.get()
            && let Ok(mut session) = self.0.session.try_borrow_mut()
            && let Some(session) = &mut *session
        {
            self.0.socket.try_send(&session.goodbye());
        }
        self.0.socket.shutdown();
    }
}
