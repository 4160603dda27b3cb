//! A blocking NBD client, written apart from the product's own so that neither hides the other's
//! mistakes: fixed newstyle, `OPT_GO`, simple replies, any number of requests in flight.
//!
//! ```text
//!   request   25609513 | flags u16 | type u16 | cookie u64 | offset u64 | length u32 | data (write)
//!   reply     67446698 | error u32 | cookie u64 | data (read, when error is 0)
//!   option    IHAVEOPT | option u32 | length u32 | data
//!   answer    3e889045565a9 | option u32 | type u32 | length u32 | data        all big-endian
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use understudy_core::units::u64_of;

use super::nbd_address::{Export, Socket};

/// No reply may take longer: a hung server is a failed test, not a hung one.
const REPLY_LIMIT: Duration = Duration::from_mins(2);

/// The largest read asked for at once.
const READ_MAX: u64 = 16 << 20;

/// The longest option answer that is believed.
const ANSWER_MAX: usize = 64 << 10;

const OPTION_GO: u32 = 7;
const ANSWER_ACK: u32 = 1;
const ANSWER_INFO: u32 = 3;
const ANSWER_ERROR: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;
const FLAG_FUA: u16 = 1;
const FLAG_NO_HOLE: u16 = 2;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Bytes of the disk.
    Read,
    /// Put bytes on the disk.
    Write,
    /// No more requests; there is no reply.
    Disconnect,
    /// Make durable what was completed before.
    Flush,
    /// The range is not needed any more.
    Trim,
    /// The range reads as zeroes.
    WriteZeroes,
}

impl Command {
    fn code(self) -> u16 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Disconnect => 2,
            Self::Flush => 3,
            Self::Trim => 4,
            Self::WriteZeroes => 6,
        }
    }
}

/// How a request failed.
#[derive(Debug)]
pub enum Failure {
    /// The server answered with this error number; the connection goes on.
    Refused(u32),
    /// The connection is of no more use.
    Broken(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(number) => f.write_str(&error_text(*number)),
            Self::Broken(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("NBD server closed the connection")
            }
            Self::Broken(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

/// The system's words for an error number.
fn error_text(number: u32) -> String {
    let error = io::Error::from_raw_os_error(i32::try_from(number).unwrap_or(i32::MAX));
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// Requests fail with this.
pub type Result<T> = std::result::Result<T, Failure>;

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn connect(socket: &Socket) -> io::Result<Self> {
        let stream = match socket {
            Socket::Unix(path) => Self::Unix(UnixStream::connect(path)?),
            Socket::Tcp(host) => {
                let stream = TcpStream::connect(host)?;
                stream.set_nodelay(true)?;
                Self::Tcp(stream)
            }
        };
        match &stream {
            Self::Unix(unix) => unix.set_read_timeout(Some(REPLY_LIMIT))?,
            Self::Tcp(tcp) => tcp.set_read_timeout(Some(REPLY_LIMIT))?,
        }
        Ok(stream)
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.read_exact(bytes),
            Self::Tcp(stream) => stream.read_exact(bytes),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.write_all(bytes),
            Self::Tcp(stream) => stream.write_all(bytes),
        }
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn vec(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }
}

/// One connection to one export.
pub struct Client {
    stream: Stream,
    size: u64,
    flags: u16,
    next_cookie: u64,
    /// How many bytes of data the reply to each request in flight brings.
    in_flight: BTreeMap<u64, usize>,
}

impl Client {
    /// Connects and opens the export.
    pub fn connect(export: &Export) -> Result<Self> {
        let mut stream = Stream::connect(&export.socket)?;
        if stream.array::<16>()? != *b"NBDMAGICIHAVEOPT" {
            return Err(garbage("the server does not greet as NBD does").into());
        }
        let _handshake_flags: [u8; 2] = stream.array()?;
        let name = export.name.as_bytes();
        let name_len = u32::try_from(name.len()).map_err(io::Error::other)?;
        // Fixed newstyle, no trailing zeroes; then the one option: GO, without information requests.
        let mut hello = Vec::from(3_u32.to_be_bytes());
        hello.extend_from_slice(b"IHAVEOPT");
        hello.extend_from_slice(&OPTION_GO.to_be_bytes());
        hello.extend_from_slice(&(name_len + 6).to_be_bytes());
        hello.extend_from_slice(&name_len.to_be_bytes());
        hello.extend_from_slice(name);
        hello.extend_from_slice(&0_u16.to_be_bytes());
        stream.write(&hello)?;
        let (mut size, mut flags) = (0, 0);
        loop {
            let _magic_and_option: [u8; 12] = stream.array()?;
            let kind = stream.u32()?;
            let len = usize::try_from(stream.u32()?).unwrap_or(usize::MAX);
            if len > ANSWER_MAX {
                return Err(garbage("the server's answer to an option is absurdly long").into());
            }
            let body = stream.vec(len)?;
            if kind & ANSWER_ERROR != 0 {
                let said = String::from_utf8_lossy(&body).into_owned();
                let text = format!("export {}: refused ({kind:#x}): {said}", export.name);
                return Err(io::Error::new(io::ErrorKind::NotFound, text).into());
            }
            if kind == ANSWER_ACK {
                break;
            }
            if let (ANSWER_INFO, [0, 0, rest @ ..]) = (kind, body.as_slice()) {
                const { assert!(INFO_EXPORT == 0) };
                let Some((eight, two)) = rest.split_first_chunk::<8>() else {
                    return Err(garbage("the server's export information is too short").into());
                };
                size = u64::from_be_bytes(*eight);
                flags = two.first_chunk::<2>().map_or(0, |two| u16::from_be_bytes(*two));
            }
        }
        Ok(Self { stream, size, flags, next_cookie: 1, in_flight: BTreeMap::new() })
    }

    /// The export's length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The transmission flags that the server offered.
    pub fn flags(&self) -> u16 {
        self.flags
    }

    /// Sends a request and returns its cookie; the reply is fetched with [`Client::complete`].
    pub fn submit(
        &mut self,
        command: Command,
        flags: u16,
        offset: u64,
        len: u64,
        data: &[u8],
    ) -> Result<u64> {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let wire_len = u32::try_from(len).map_err(io::Error::other)?;
        let mut request = Vec::with_capacity(28 + data.len());
        request.extend_from_slice(&0x2560_9513_u32.to_be_bytes());
        request.extend_from_slice(&flags.to_be_bytes());
        request.extend_from_slice(&command.code().to_be_bytes());
        request.extend_from_slice(&cookie.to_be_bytes());
        request.extend_from_slice(&offset.to_be_bytes());
        request.extend_from_slice(&wire_len.to_be_bytes());
        request.extend_from_slice(data);
        self.stream.write(&request)?;
        if command != Command::Disconnect {
            let brings = if command == Command::Read { usize::try_from(len) } else { Ok(0) };
            self.in_flight.insert(cookie, brings.map_err(io::Error::other)?);
        }
        Ok(cookie)
    }

    /// Waits for the next reply, whichever request it answers.
    pub fn complete(&mut self) -> Result<(u64, Result<Vec<u8>>)> {
        if self.stream.u32()? != 0x6744_6698 {
            return Err(garbage("a reply does not begin as one").into());
        }
        let error = self.stream.u32()?;
        let cookie = u64::from_be_bytes(self.stream.array()?);
        let Some(brings) = self.in_flight.remove(&cookie) else {
            return Err(garbage("a reply to no request of ours").into());
        };
        if error != 0 {
            return Ok((cookie, Err(Failure::Refused(error))));
        }
        Ok((cookie, Ok(self.stream.vec(brings)?)))
    }

    /// One request, alone in flight.
    fn call(
        &mut self,
        command: Command,
        flags: u16,
        at: u64,
        len: u64,
        data: &[u8],
    ) -> Result<Vec<u8>> {
        let cookie = self.submit(command, flags, at, len, data)?;
        let (answered, result) = self.complete()?;
        if answered != cookie {
            return Err(garbage("a reply to another request").into());
        }
        result
    }

    /// Reads, in as many requests as it takes.
    pub fn read(&mut self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut at = 0;
        while at < len {
            let piece = READ_MAX.min(len - at);
            bytes.append(&mut self.call(Command::Read, 0, offset + at, piece, &[])?);
            at += piece;
        }
        Ok(bytes)
    }

    /// Writes.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.call(Command::Write, 0, offset, u64_of(data.len()), data).map(drop)
    }

    /// Writes, durably.
    pub fn write_durably(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.call(Command::Write, FLAG_FUA, offset, u64_of(data.len()), data).map(drop)
    }

    /// Writes zeroes; with `no_hole` the space stays allocated.
    pub fn write_zeroes(&mut self, offset: u64, len: u64, no_hole: bool) -> Result<()> {
        let flags = if no_hole { FLAG_NO_HOLE } else { 0 };
        self.call(Command::WriteZeroes, flags, offset, len, &[]).map(drop)
    }

    /// Discards.
    pub fn trim(&mut self, offset: u64, len: u64) -> Result<()> {
        self.call(Command::Trim, 0, offset, len, &[]).map(drop)
    }

    /// Flushes.
    pub fn flush(&mut self) -> Result<()> {
        self.call(Command::Flush, 0, 0, 0, &[]).map(drop)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // A server that is gone needs no farewell.
        let _gone = self.submit(Command::Disconnect, 0, 0, 0, &[]);
    }
}

fn garbage(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_number_reads_as_the_system_words_it() {
        assert_eq!(Failure::Refused(5).to_string(), "Input/output error");
        assert_eq!(Failure::Refused(22).to_string(), "Invalid argument");
    }
}
