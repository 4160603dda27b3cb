//! What the daemon asks a holder: one question a connection, one line of JSON each way.
//!
//! ```text
//!   {"ask":"status"}                     ─►  {"answer":"status","path":"/dev/loop7","size":…}
//!   {"ask":"resize"}                     ─►  {"answer":"status",…} | {"answer":"refused",…}
//!   {"ask":"release"}                    ─►  {"answer":"released"} | {"answer":"refused","why":"inUse",…}
//!   {"ask":"fail","reason":"…"}          ─►  {"answer":"status",…}
//! ```

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::status::Status;

/// The longest line.
const LINE_MAX: u64 = 64 << 10;

/// A question.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "camelCase")]
pub enum Ask {
    /// How it stands.
    Status,
    /// Take the volume's length anew.
    Resize,
    /// Remove the device, and end, if nobody uses it.
    Release,
    /// Fail every request from now on.
    Fail {
        /// Why.
        reason: String,
    },
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "camelCase")]
pub enum Answer {
    /// How it stands, after what was asked.
    Status(Status),
    /// The device is removed; the holder ends.
    Released,
    /// It was not done.
    Refused {
        /// What kind of refusal.
        why: Refused,
        /// For people.
        message: String,
    },
}

/// What kind of refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Refused {
    /// Somebody has the device open.
    InUse,
    /// The device has failed for good.
    Gone,
    /// The engine did not answer.
    Away,
    /// The system refused.
    System,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody answers at the socket: the holder is dead, or about to be.
    #[error("the device's holder does not answer: {0}")]
    Silent(#[from] io::Error),
}

/// Asks the holder at `socket`.
pub fn ask(socket: &Path, ask: &Ask, limit: Duration) -> Result<Answer, ControlError> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write_line(&mut stream, ask)?;
    Ok(read_line(&stream)?)
}

/// Reads a question.
pub(super) fn question(stream: &UnixStream) -> io::Result<Ask> {
    let limit = Some(Duration::from_secs(5));
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    read_line(stream)
}

/// Writes a line.
pub(super) fn write_line(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message).map_err(io::Error::other)?;
    line.push(b'\n');
    to.write_all(&line)
}

fn read_line<T: for<'a> Deserialize<'a>>(stream: &UnixStream) -> io::Result<T> {
    let mut line = String::new();
    BufReader::new(stream.take(LINE_MAX)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_str(&line).map_err(io::Error::other)
}
