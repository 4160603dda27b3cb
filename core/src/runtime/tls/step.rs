//! One step of rustls' state machine, the same for both ends.
//!
//! ```text
//!   take   incoming ─► decrypted to the sink, what TLS has to say to `control`
//!   seal   plain    ─► records
//!   bye             ─► the goodbye
//! ```

use std::io;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};

use super::session::{OVERHEAD, wrong};

/// More steps than any message takes in a row.
const STEPS: usize = 32;

/// How far the processing of incoming bytes came.
pub(super) enum Step {
    /// There is more to do.
    More,
    /// More must be received first.
    Starved,
    /// The far end has said goodbye.
    Ended,
}

/// Where decrypted bytes go.
pub(super) struct Sink<'a> {
    /// Here first.
    pub(super) out: &'a mut [u8],
    /// Of `out`, what is filled.
    pub(super) filled: usize,
    /// What does not fit.
    pub(super) rest: &'a mut Vec<u8>,
}

impl Sink<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let room = self.out.get_mut(self.filled..).unwrap_or_default();
        let (now, later) = bytes.split_at(bytes.len().min(room.len()));
        if let Some(room) = room.get_mut(..now.len()) {
            room.copy_from_slice(now);
        }
        self.filled += now.len();
        self.rest.extend_from_slice(later);
    }
}

/// Either end of a connection.
pub(super) trait End {
    /// Tells rustls' types of the two ends apart.
    type Data;

    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl End for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl End for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

/// One step over `incoming`: how much of its front is done with, and how far it came.
pub(super) fn take<E: End>(
    end: &mut E,
    incoming: &mut [u8],
    sink: &mut Sink<'_>,
    control: &mut Vec<u8>,
) -> (usize, io::Result<Step>) {
    let UnbufferedStatus { mut discard, state } = end.step(incoming);
    let step = match state {
        Err(e) => Err(wrong(e)),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    sink.put(record.payload);
                    discard += record.discard;
                }
                Some(Err(e)) => break Err(wrong(e)),
                None => break Ok(Step::More),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut words)) => {
            let at = control.len();
            control.resize(at + 4 * OVERHEAD, 0);
            let mut said = encode(&mut words, control.get_mut(at..).unwrap_or_default());
            if let Ok(Err(needed)) = said {
                control.resize(at + needed, 0);
                said = encode(&mut words, control.get_mut(at..).unwrap_or_default());
            }
            match said {
                Ok(Ok(n)) => {
                    control.truncate(at + n);
                    Ok(Step::More)
                }
                Ok(Err(_)) => Err(io::Error::other("TLS can't say what it has to say")),
                Err(e) => Err(e),
            }
        }
        // The caller sends what is in `control`, before anything else.
        Ok(ConnectionState::TransmitTlsData(sent)) => {
            sent.done();
            Ok(Step::More)
        }
        Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => {
            Ok(Step::Starved)
        }
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Step::Ended),
        // Early data is not offered; whatever else there is, we know nothing of it.
        Ok(other) => Err(io::Error::other(format!("TLS is in an unknown state: {other:?}"))),
    };
    (discard, step)
}

/// How many bytes it took, or how many it needs.
fn encode<D>(words: &mut EncodeTlsData<'_, D>, out: &mut [u8]) -> io::Result<Result<usize, usize>> {
    match words.encode(out) {
        Ok(n) => Ok(Ok(n)),
        Err(EncodeError::InsufficientSize(e)) => Ok(Err(e.required_size)),
        Err(e) => Err(io::Error::other(e)),
    }
}

/// Encrypts `plain` into `out`, which has room for it.
pub(super) fn seal<E: End>(end: &mut E, plain: &[u8], out: &mut [u8]) -> io::Result<usize> {
    let mut used = 0;
    for _ in 0..STEPS {
        let room = out.get_mut(used..).unwrap_or_default();
        match end.step(&mut []).state.map_err(wrong)? {
            ConnectionState::WriteTraffic(mut traffic) => {
                return Ok(used + traffic.encrypt(plain, room).map_err(io::Error::other)?);
            }
            ConnectionState::EncodeTlsData(mut words) => {
                used += encode(&mut words, room)?.map_err(|needed| {
                    io::Error::other(format!("TLS needs {needed} bytes to say what it has to say"))
                })?;
            }
            ConnectionState::TransmitTlsData(sent) => sent.done(),
            ConnectionState::PeerClosed => {}
            other => {
                let text = format!("nothing can be sent over TLS now: {other:?}");
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, text));
            }
        }
    }
    Err(io::Error::other("TLS does not come to an end"))
}

/// Says goodbye into `out`; how many bytes that took, 0 if it can't be said.
pub(super) fn bye<E: End>(end: &mut E, out: &mut [u8]) -> usize {
    match end.step(&mut []).state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            traffic.queue_close_notify(out).unwrap_or_default()
        }
        _ => 0,
    }
}
