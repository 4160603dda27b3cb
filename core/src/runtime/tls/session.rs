//! A TLS connection without its socket: bytes in, bytes out.
//!
//! ```text
//!   incoming  [ record | record | part of one ]──► read(out): out, and what does not fit into `plain`
//!   plain     decrypted and not yet asked for: at most one record, or what was put back
//!   control   what TLS itself has to say; goes out before the next record
//! ```
//!
//! Everything here can be sent to another thread, with what was received and not asked for.

use std::io;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, CommonState, ServerConfig};

use super::step::{Sink, Step, bye, seal, take};
use crate::runtime::Data;
use crate::tls::Failure;

/// The most plaintext in a record, in bytes.
pub(super) const RECORD: usize = 16 << 10;

/// What a record has besides, at most, and some room for what TLS itself has to say.
pub(super) const OVERHEAD: usize = 1 << 10;

/// A TLS connection without its socket.
pub(in crate::runtime) struct Session {
    side: Side,
    plain: Vec<u8>,
    /// Of `plain`, what was handed out.
    taken: usize,
    control: Vec<u8>,
    /// Small pieces on their way into one record.
    gathered: Vec<u8>,
    /// The far end has said goodbye.
    ended: bool,
    /// There was an error: rustls is not asked again.
    broken: bool,
}

/// Boxed: they are large, and futures carry them about.
enum Side {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

impl Session {
    pub(in crate::runtime) fn client(config: Arc<ClientConfig>) -> io::Result<Self> {
        // Only a placeholder: identities are compared, not names of hosts, and it is not sent.
        let name = ServerName::try_from("engine.understudy.dev").map_err(io::Error::other)?;
        let connection = UnbufferedClientConnection::new(config, name).map_err(wrong)?;
        Ok(Self::new(Side::Client(Box::new(connection))))
    }

    pub(in crate::runtime) fn server(config: Arc<ServerConfig>) -> io::Result<Self> {
        let connection = UnbufferedServerConnection::new(config).map_err(wrong)?;
        Ok(Self::new(Side::Server(Box::new(connection))))
    }

    fn new(side: Side) -> Self {
        let (plain, control, gathered) = (Vec::new(), Vec::new(), Vec::new());
        Self { side, plain, taken: 0, control, gathered, ended: false, broken: false }
    }

    fn common(&self) -> &CommonState {
        match &self.side {
            Side::Client(c) => c,
            Side::Server(c) => c,
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.common().is_handshaking()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The certificate that the far end has proven to hold.
    pub(in crate::runtime) fn peer(&self) -> Option<&CertificateDer<'static>> {
        self.common().peer_certificates().and_then(<[_]>::first)
    }

    /// What TLS itself has to say; the caller sends it before anything else.
    pub(super) fn take_control(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.control)
    }

    /// Puts bytes back in front of what is read next.
    pub(super) fn put_back(&mut self, mut bytes: Vec<u8>) {
        bytes.extend_from_slice(self.plain.get(self.taken..).unwrap_or_default());
        (self.plain, self.taken) = (bytes, 0);
    }

    /// Fills `out` from what is there and from `incoming`. Says how much it filled, and how much of
    /// the front of `incoming` is done with.
    ///
    /// After an error, [`take_control`](Self::take_control) has the last words for the far end.
    pub(super) fn read(
        &mut self,
        incoming: &mut [u8],
        out: &mut [u8],
    ) -> io::Result<(usize, usize)> {
        let kept = self.plain.get(self.taken..).unwrap_or_default();
        let mut filled = kept.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..filled), kept.get(..filled)) {
            to.copy_from_slice(from);
        }
        self.taken += filled;
        if self.taken < self.plain.len() {
            return Ok((filled, 0));
        }
        self.plain.clear();
        self.taken = 0;
        if self.broken {
            return Err(broken());
        }
        let mut used = 0;
        while !self.ended && (filled < out.len() || out.is_empty()) {
            let rest = incoming.get_mut(used..).unwrap_or_default();
            let mut sink = Sink { out, filled, rest: &mut self.plain };
            let (discard, step) = match &mut self.side {
                Side::Client(c) => take(&mut **c, rest, &mut sink, &mut self.control),
                Side::Server(c) => take(&mut **c, rest, &mut sink, &mut self.control),
            };
            filled = sink.filled;
            used += discard;
            match step {
                Ok(Step::More) => {}
                Ok(Step::Ended) => self.ended = true,
                Ok(Step::Starved) => {
                    self.check_rest(incoming.get(used..).unwrap_or_default())?;
                    break;
                }
                Err(e) => {
                    self.last_words(incoming.get_mut(used..).unwrap_or_default());
                    self.broken = true;
                    return Err(e);
                }
            }
        }
        Ok((filled, used))
    }

    /// After the handshake no message needs two records. One that takes two would be kept in
    /// `incoming` by rustls, which a send in between does not have at hand.
    fn check_rest(&mut self, rest: &[u8]) -> io::Result<()> {
        let whole = match rest {
            [_, _, _, high, low, body @ ..] => {
                body.len() >= usize::from(u16::from_be_bytes([*high, *low]))
            }
            _ => false,
        };
        if whole && !self.is_handshaking() {
            self.broken = true;
            let text = "the far end splits a TLS message over records";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(())
    }

    /// Gathers the alert that tells the far end what was wrong. rustls may have a part of a message in
    /// `rest`, what was not taken in, and is asked no more than it has queued: beyond that it would
    /// look at `rest` once more.
    fn last_words(&mut self, rest: &mut [u8]) {
        let mut nothing = Vec::new();
        while self.common().wants_write() {
            let mut sink = Sink { out: &mut [], filled: 0, rest: &mut nothing };
            let (_, step) = match &mut self.side {
                Side::Client(c) => take(&mut **c, rest, &mut sink, &mut self.control),
                Side::Server(c) => take(&mut **c, rest, &mut sink, &mut self.control),
            };
            if step.is_err() {
                break;
            }
        }
    }

    /// Encrypts as much of `data`, from its `at`-th byte on, as `out` has room for. Moves `at`, and
    /// says how many bytes of `out` are used.
    pub(super) fn write(
        &mut self,
        data: &[Data],
        at: &mut Cursor,
        out: &mut [u8],
    ) -> io::Result<usize> {
        let mut used = self.control.len();
        let Some(front) = out.get_mut(..used) else {
            return Err(io::Error::other("TLS has more to say than there is room for"));
        };
        front.copy_from_slice(&self.control);
        self.control.clear();
        let len = out.len();
        while used + RECORD + OVERHEAD <= len {
            let piece = at.rest(data);
            let whole = piece.len() / RECORD * RECORD;
            if self.gathered.is_empty() && whole > 0 {
                let fits = (len - used) / (RECORD + OVERHEAD) * RECORD;
                let part = piece.get(..whole.min(fits)).unwrap_or_default();
                used += self.encrypt(part, out.get_mut(used..).unwrap_or_default())?;
                at.advance(part.len());
                continue;
            }
            let n = piece.len().min(RECORD - self.gathered.len());
            self.gathered.extend_from_slice(piece.get(..n).unwrap_or_default());
            at.advance(n);
            if self.gathered.len() < RECORD && !at.is_done(data) {
                continue;
            }
            if self.gathered.is_empty() {
                break;
            }
            let gathered = std::mem::take(&mut self.gathered);
            used += self.encrypt(&gathered, out.get_mut(used..).unwrap_or_default())?;
            self.gathered = gathered;
            self.gathered.clear();
        }
        Ok(used)
    }

    fn encrypt(&mut self, plain: &[u8], out: &mut [u8]) -> io::Result<usize> {
        if self.broken {
            return Err(broken());
        }
        match &mut self.side {
            Side::Client(c) => seal(&mut **c, plain, out),
            Side::Server(c) => seal(&mut **c, plain, out),
        }
    }

    /// The goodbye, encrypted; empty if there can be none.
    pub(super) fn goodbye(&mut self) -> Vec<u8> {
        if self.broken || self.is_handshaking() {
            return Vec::new();
        }
        let mut out = vec![0; OVERHEAD];
        let said = match &mut self.side {
            Side::Client(c) => bye(&mut **c, &mut out),
            Side::Server(c) => bye(&mut **c, &mut out),
        };
        out.truncate(said);
        out
    }
}

/// A place in a list of pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    piece: usize,
    offset: usize,
}

impl Cursor {
    /// What is left of the piece that it stands in.
    fn rest<'a>(&mut self, data: &'a [Data]) -> &'a [u8] {
        while let Some(piece) = data.get(self.piece) {
            if let Some(rest) = piece.get(self.offset..).filter(|rest| !rest.is_empty()) {
                return rest;
            }
            (self.piece, self.offset) = (self.piece + 1, 0);
        }
        &[]
    }

    fn advance(&mut self, n: usize) {
        self.offset += n;
    }

    /// Whether it stands at the end.
    pub(super) fn is_done(&mut self, data: &[Data]) -> bool {
        self.rest(data).is_empty()
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the TLS connection has failed")
}

/// What rustls says, as an error of a stream.
pub(super) fn wrong(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Failure(error))
}
