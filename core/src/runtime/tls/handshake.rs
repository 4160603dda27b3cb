//! The handshake: both ends prove themselves, in time.
//!
//! ```text
//!   HANDSHAKE │ client ── hello ──────────────────────────────► server
//!             │        ◄── hello, certificate, signature ──────
//!             │  engine/NODE?
//!             │        ── certificate, signature ──────────────►
//!             │                                   may it come in here? ── no ─► alert, closed
//! ```
//!
//! The client is done before it knows what the server thinks of its certificate: a refusal is the
//! first thing that it receives.

use std::io;
use std::time::Duration;

use super::session::Session;
use super::stream::TlsStream;
use crate::runtime::{Buf, Data, ShardEnv, SocketStream, Stream, timeout};

/// How long a handshake may take.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

/// The buffer of somebody who did not prove himself yet, in bytes: one record, and what else may be
/// needed for messages that stand in several.
const INCOMING: usize = 32 << 10;

/// Does the handshake of a fresh session over a socket.
pub(in crate::runtime) async fn handshake(
    env: &ShardEnv,
    socket: SocketStream,
    mut session: Session,
) -> io::Result<TlsStream> {
    let done = timeout(env, HANDSHAKE, talk(&socket, &mut session)).await;
    let left = done.unwrap_or_else(|| {
        let text = format!("no TLS handshake within {HANDSHAKE:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    });
    match left {
        Ok(left) => Ok(TlsStream::new(socket, session, &left)),
        Err(e) => {
            socket.shutdown();
            Err(e)
        }
    }
}

/// Returns what was received beyond the handshake.
async fn talk(socket: &SocketStream, session: &mut Session) -> io::Result<Vec<u8>> {
    let mut incoming = Buf::new(INCOMING);
    let mut filled = 0;
    loop {
        let read = session.read(incoming.get_mut(..filled).unwrap_or_default(), &mut []);
        let words = session.take_control();
        if !words.is_empty() {
            socket.send(vec![Data::copy_of(&words)]).await?;
        }
        let (_, used) = read?;
        incoming.copy_within(used..filled, 0);
        filled -= used;
        if !session.is_handshaking() {
            return Ok(incoming.get(..filled).unwrap_or_default().to_vec());
        }
        if session.has_ended() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (back, n) = socket.recv(incoming, filled).await;
        incoming = back;
        match n? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => filled += n,
        }
    }
}
