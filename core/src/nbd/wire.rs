//! Every message of the protocol as bytes. All numbers are big-endian.
//!
//! Decoders are total: any bytes give a message or [`Malformed`], never a panic, and no length
//! found in a message is trusted before it was compared with what is there.

mod negotiation;
mod transmission;

pub use negotiation::{
    CLIENT_FLAGS_LEN, ContextQuery, EXPORT_LEN, EXPORT_ZEROES, GREETING_LEN, Greeting, InfoReply,
    InfoRequest, OPTION_HEADER_LEN, OPTION_REPLY_LEN, OptionHeader, OptionReply, Writer,
    decode_context, decode_export, decode_listed, encode_export,
};
pub use transmission::{
    CHUNK_LEN, Chunk, ErrorChunk, Extent, REQUEST_LEN, Request, SIMPLE_LEN, SimpleReply,
    decode_extents, decode_hole,
};

/// The longest string the protocol allows, in bytes.
pub const STRING_MAX: usize = 4096;

/// The longest option data we read: a name, a list of queries, and their lengths, in bytes.
pub const OPTION_MAX: u32 = 4096 + 4096 + 256;

/// The largest read or write, in bytes: what the protocol says every peer must expect.
pub const REQUEST_MAX: u32 = 32 << 20;

/// Handshake flags of the server and, in the low 16 bits, of the client.
pub mod handshake_flag {
    /// Options are answered in the fixed newstyle.
    pub const FIXED_NEWSTYLE: u16 = 1;
    /// No 124 zeroes behind the answer to `EXPORT_NAME`.
    pub const NO_ZEROES: u16 = 2;
}

/// What a client asks for in the handshake.
pub mod option {
    /// Enter transmission; answered without a header, so it can't be refused but by closing.
    pub const EXPORT_NAME: u32 = 1;
    /// Goodbye.
    pub const ABORT: u32 = 2;
    /// Name all exports.
    pub const LIST: u32 = 3;
    /// Begin TLS.
    pub const STARTTLS: u32 = 5;
    /// Describe an export.
    pub const INFO: u32 = 6;
    /// Describe an export and enter transmission.
    pub const GO: u32 = 7;
    /// Answer requests in chunks from now on.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// Name the metadata contexts of an export.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Choose metadata contexts.
    pub const SET_META_CONTEXT: u32 = 10;
}

/// How a server answers an option. Errors have the top bit set.
pub mod reply {
    /// Done.
    pub const ACK: u32 = 1;
    /// One export of the list.
    pub const SERVER: u32 = 2;
    /// One fact about an export.
    pub const INFO: u32 = 3;
    /// One metadata context.
    pub const META_CONTEXT: u32 = 4;
    /// The bit that all errors have.
    pub const ERROR: u32 = 1 << 31;
    /// The option is not known here.
    pub const ERR_UNSUP: u32 = ERROR | 1;
    /// Not allowed here.
    pub const ERR_POLICY: u32 = ERROR | 2;
    /// The option's data makes no sense.
    pub const ERR_INVALID: u32 = ERROR | 3;
    /// TLS first.
    pub const ERR_TLS_REQD: u32 = ERROR | 5;
    /// There is no such export.
    pub const ERR_UNKNOWN: u32 = ERROR | 6;
    /// The server is about to stop.
    pub const ERR_SHUTDOWN: u32 = ERROR | 7;
    /// The option's data is too long.
    pub const ERR_TOO_BIG: u32 = ERROR | 9;
}

/// The kinds of facts about an export.
pub mod info {
    /// Size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// Its canonical name.
    pub const NAME: u16 = 1;
    /// A text for people.
    pub const DESCRIPTION: u16 = 2;
    /// Minimum, preferred and maximum block size.
    pub const BLOCK_SIZE: u16 = 3;
}

/// What an export can do: its transmission flags.
pub mod flag {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1;
    /// Writes are refused.
    pub const READ_ONLY: u16 = 1 << 1;
    /// `FLUSH` is there.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// The FUA flag is there.
    pub const SEND_FUA: u16 = 1 << 3;
    /// `TRIM` is there.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// `WRITE_ZEROES` is there.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// The DF flag is there.
    pub const SEND_DF: u16 = 1 << 7;
    /// A flush on one connection covers the writes of all.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
}

/// The kinds of requests.
pub mod command {
    /// Read.
    pub const READ: u16 = 0;
    /// Write; the data follows the header.
    pub const WRITE: u16 = 1;
    /// Goodbye; not answered.
    pub const DISCONNECT: u16 = 2;
    /// Make durable what was answered before.
    pub const FLUSH: u16 = 3;
    /// Give the space back.
    pub const TRIM: u16 = 4;
    /// Make it read as zeroes.
    pub const WRITE_ZEROES: u16 = 6;
    /// Say what is allocated.
    pub const BLOCK_STATUS: u16 = 7;
}

/// The flags of requests.
pub mod command_flag {
    /// Durable before the answer.
    pub const FUA: u16 = 1;
    /// Zeroes that keep their space.
    pub const NO_HOLE: u16 = 2;
    /// One chunk only.
    pub const DONT_FRAGMENT: u16 = 4;
    /// One extent only.
    pub const REQ_ONE: u16 = 8;
}

/// The kinds of chunks of a structured reply. Errors have the top bit set.
pub mod chunk {
    /// Nothing: ends a reply.
    pub const NONE: u16 = 0;
    /// offset(8) data
    pub const OFFSET_DATA: u16 = 1;
    /// offset(8) length(4): zeroes.
    pub const OFFSET_HOLE: u16 = 2;
    /// context(4) then length(4) flags(4) for each extent.
    pub const BLOCK_STATUS: u16 = 5;
    /// The bit that all errors have.
    pub const ERROR_BIT: u16 = 1 << 15;
    /// errno(4) length(2) text
    pub const ERROR: u16 = ERROR_BIT | 1;
    /// errno(4) length(2) text offset(8)
    pub const ERROR_OFFSET: u16 = ERROR_BIT | 2;
    /// The flag of the last chunk of a reply.
    pub const DONE: u16 = 1;
}

/// The flags of an extent in the context `base:allocation`.
pub mod extent {
    /// Nothing is allocated.
    pub const HOLE: u32 = 1;
    /// It reads as zeroes.
    pub const ZERO: u32 = 2;
}

/// The one metadata context we know.
pub const BASE_ALLOCATION: &str = "base:allocation";

/// Bytes that are no message; says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// Takes fields off the front of a message.
#[derive(Debug)]
pub struct Fields<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of `bytes`, which are a `what`.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(*head)
    }

    /// The next 2 bytes as a number.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// The next 4 bytes as a number.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next 8 bytes as a number.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// The next 8 bytes, which must be `magic`.
    pub fn magic(&mut self, magic: u64) -> Result<(), Malformed> {
        let found = self.u64()?;
        self.same(found, magic)
    }

    /// The next 4 bytes, which must be `magic`.
    pub fn magic32(&mut self, magic: u32) -> Result<(), Malformed> {
        let found = self.u32()?;
        self.same(found.into(), magic.into())
    }

    fn same(&self, found: u64, magic: u64) -> Result<(), Malformed> {
        if found == magic {
            return Ok(());
        }
        Err(Malformed(format!("{}: magic {found:#x}, not {magic:#x}", self.what)))
    }

    /// The next `len` bytes as text.
    pub fn text(&mut self, len: usize) -> Result<&'a str, Malformed> {
        if len > STRING_MAX {
            return Err(Malformed(format!(
                "{}: a text of {len} bytes, the limit is {STRING_MAX}",
                self.what
            )));
        }
        let (head, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.short())?;
        self.rest = rest;
        std::str::from_utf8(head)
            .map_err(|_| Malformed(format!("{}: text is not UTF-8", self.what)))
    }

    /// A text with its length in 4 bytes before it.
    pub fn text32(&mut self) -> Result<&'a str, Malformed> {
        let len = self.u32()?;
        self.text(crate::units::usize_of(len.into()))
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Fine if nothing is left.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Malformed(format!("{}: {} bytes too many", self.what, self.rest.len())))
    }

    fn short(&self) -> Malformed {
        Malformed(format!("{}: ends too early", self.what))
    }
}

#[cfg(test)]
pub(in crate::nbd) mod tests;
