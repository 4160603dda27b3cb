//! The messages of the handshake.
//!
//! ```text
//!   greeting      "NBDMAGIC"(8) "IHAVEOPT"(8) flags(2)              server, first
//!   client flags  flags(4)
//!   option        "IHAVEOPT"(8) option(4) length(4)                 [data]
//!   reply         0x0003e889045565a9(8) option(4) type(4) length(4) [data]
//!   export        size(8) flags(2) [124 zeroes]                     after EXPORT_NAME
//!
//!   data of  INFO, GO            n(4) name(n) count(2) kind(2)…
//!            *_META_CONTEXT      n(4) name(n) count(4) { n(4) query(n) }…
//!            reply SERVER        n(4) name(n) description
//!            reply META_CONTEXT  id(4) name
//!            reply INFO          0: kind(2) size(8) flags(2)   3: kind(2) min(4) preferred(4) max(4)
//!                                1, 2: kind(2) text
//! ```

use super::{Fields, Malformed, STRING_MAX, info};
use crate::nbd::BlockSizes;
use crate::units::{u32_of, u64_of, usize_of};

const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// The length of the greeting.
pub const GREETING_LEN: usize = 18;
/// The length of the client's flags.
pub const CLIENT_FLAGS_LEN: usize = 4;
/// The length of an option's header.
pub const OPTION_HEADER_LEN: usize = 16;
/// The length of an option reply's header.
pub const OPTION_REPLY_LEN: usize = 20;
/// The length of the answer to `EXPORT_NAME`, without the zeroes.
pub const EXPORT_LEN: usize = 10;
/// The zeroes behind it, unless both sides agreed to leave them out.
pub const EXPORT_ZEROES: usize = 124;

/// Puts fields together.
#[derive(Clone, Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// Appends raw bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends 2 bytes.
    #[must_use]
    pub fn u16(self, n: u16) -> Self {
        self.bytes(&n.to_be_bytes())
    }

    /// Appends 4 bytes.
    #[must_use]
    pub fn u32(self, n: u32) -> Self {
        self.bytes(&n.to_be_bytes())
    }

    /// Appends 8 bytes.
    #[must_use]
    pub fn u64(self, n: u64) -> Self {
        self.bytes(&n.to_be_bytes())
    }

    /// Appends a text behind its length in 4 bytes.
    #[must_use]
    pub fn text32(self, text: &str) -> Self {
        self.u32(u32_of(u64_of(text.len()))).bytes(text.as_bytes())
    }
}

/// The server's first words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Greeting {
    /// See [`super::handshake_flag`].
    pub flags: u16,
}

impl Greeting {
    /// Its bytes.
    pub fn encode(self) -> Vec<u8> {
        Writer::default().u64(NBD_MAGIC).u64(OPTION_MAGIC).u16(self.flags).0
    }

    /// From its bytes.
    pub fn decode(bytes: &[u8; GREETING_LEN]) -> Result<Self, Malformed> {
        let mut f = Fields::new("greeting", bytes);
        f.magic(NBD_MAGIC)?;
        let style = f.u64()?;
        if style == OLDSTYLE_MAGIC {
            return Err(Malformed("greeting: an oldstyle server, newstyle is needed".into()));
        }
        if style != OPTION_MAGIC {
            return Err(Malformed(format!("greeting: magic {style:#x}, not {OPTION_MAGIC:#x}")));
        }
        Ok(Self { flags: f.u16()? })
    }
}

/// The header of an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionHeader {
    /// See [`super::option`].
    pub option: u32,
    /// The length of the data behind this header.
    pub length: u32,
}

impl OptionHeader {
    /// The bytes of a whole option.
    pub fn encode(option: u32, data: &[u8]) -> Vec<u8> {
        let length = u32_of(u64_of(data.len()));
        Writer::default().u64(OPTION_MAGIC).u32(option).u32(length).bytes(data).0
    }

    /// From its bytes.
    pub fn decode(bytes: &[u8; OPTION_HEADER_LEN]) -> Result<Self, Malformed> {
        let mut f = Fields::new("option", bytes);
        f.magic(OPTION_MAGIC)?;
        Ok(Self { option: f.u32()?, length: f.u32()? })
    }
}

/// The header of an option's reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionReply {
    /// The option it answers.
    pub option: u32,
    /// See [`super::reply`].
    pub kind: u32,
    /// The length of the data behind this header.
    pub length: u32,
}

impl OptionReply {
    /// The bytes of a whole reply.
    pub fn encode(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
        let length = u32_of(u64_of(data.len()));
        Writer::default().u64(REPLY_MAGIC).u32(option).u32(kind).u32(length).bytes(data).0
    }

    /// From its bytes.
    pub fn decode(bytes: &[u8; OPTION_REPLY_LEN]) -> Result<Self, Malformed> {
        let mut f = Fields::new("option reply", bytes);
        f.magic(REPLY_MAGIC)?;
        Ok(Self { option: f.u32()?, kind: f.u32()?, length: f.u32()? })
    }
}

/// The data of `INFO` and `GO`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InfoRequest {
    /// The export.
    pub name: String,
    /// What the client wants to know; see [`info`].
    pub wanted: Vec<u16>,
}

impl InfoRequest {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let count = u16::try_from(self.wanted.len()).unwrap_or(u16::MAX);
        let head = Writer::default().text32(&self.name).u16(count);
        self.wanted.iter().take(usize::from(count)).fold(head, |w, kind| w.u16(*kind)).0
    }

    /// From its bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut f = Fields::new("info request", bytes);
        let name = f.text32()?.to_owned();
        let count = f.u16()?;
        let wanted = (0..count).map(|_| f.u16()).collect::<Result<_, _>>()?;
        f.end()?;
        Ok(Self { name, wanted })
    }
}

/// One fact about an export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InfoReply {
    /// Size and transmission flags.
    Export(u64, u16),
    /// Its canonical name.
    Name(String),
    /// A text for people.
    Description(String),
    /// Its block sizes, as they were sent.
    Blocks(BlockSizes),
    /// A kind we don't know.
    Other(u16),
}

impl InfoReply {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let w = Writer::default();
        match self {
            Self::Export(size, flags) => w.u16(info::EXPORT).u64(*size).u16(*flags),
            Self::Name(text) => w.u16(info::NAME).bytes(text.as_bytes()),
            Self::Description(text) => w.u16(info::DESCRIPTION).bytes(text.as_bytes()),
            Self::Blocks(b) => {
                w.u16(info::BLOCK_SIZE).u32(b.minimum).u32(b.preferred).u32(b.maximum)
            }
            Self::Other(kind) => w.u16(*kind),
        }
        .0
    }

    /// From its bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut f = Fields::new("export information", bytes);
        let kind = f.u16()?;
        let text = |f: &mut Fields<'_>| f.text(bytes.len().saturating_sub(2)).map(str::to_owned);
        let reply = match kind {
            info::EXPORT => Self::Export(f.u64()?, f.u16()?),
            info::NAME => Self::Name(text(&mut f)?),
            info::DESCRIPTION => Self::Description(text(&mut f)?),
            info::BLOCK_SIZE => Self::Blocks(BlockSizes {
                minimum: f.u32()?,
                preferred: f.u32()?,
                maximum: f.u32()?,
            }),
            other => return Ok(Self::Other(other)),
        };
        f.end()?;
        Ok(reply)
    }
}

/// The data of `LIST_META_CONTEXT` and `SET_META_CONTEXT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContextQuery {
    /// The export.
    pub name: String,
    /// Which contexts; none in a list means all.
    pub queries: Vec<String>,
}

impl ContextQuery {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let count = u32_of(u64_of(self.queries.len()));
        let head = Writer::default().text32(&self.name).u32(count);
        self.queries.iter().fold(head, |w, q| w.text32(q)).0
    }

    /// From its bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut f = Fields::new("metadata query", bytes);
        let name = f.text32()?.to_owned();
        let count = f.u32()?;
        // Each query costs at least 4 bytes, so the count can't make us allocate more than we read.
        if usize_of(count.into()) > bytes.len() / 4 {
            return Err(Malformed(format!("metadata query: {count} queries do not fit")));
        }
        let queries =
            (0..count).map(|_| f.text32().map(str::to_owned)).collect::<Result<_, _>>()?;
        f.end()?;
        Ok(Self { name, queries })
    }
}

/// The data of a `META_CONTEXT` reply: number and name.
pub fn decode_context(bytes: &[u8]) -> Result<(u32, String), Malformed> {
    let mut f = Fields::new("metadata context", bytes);
    Ok((f.u32()?, f.text(bytes.len().saturating_sub(4))?.to_owned()))
}

/// The data of a `SERVER` reply: name and description (what is no text counts as none).
pub fn decode_listed(bytes: &[u8]) -> Result<(String, String), Malformed> {
    let mut f = Fields::new("listed export", bytes);
    let name = f.text32()?.to_owned();
    let text = f.rest();
    let text = text.get(..text.len().min(STRING_MAX)).unwrap_or_default();
    Ok((name, String::from_utf8_lossy(text).into_owned()))
}

/// The answer to `EXPORT_NAME`.
pub fn encode_export(size: u64, flags: u16, no_zeroes: bool) -> Vec<u8> {
    let zeroes = if no_zeroes { 0 } else { EXPORT_ZEROES };
    Writer::default().u64(size).u16(flags).bytes(&vec![0; zeroes]).0
}

/// Size and flags from the first bytes of the answer to `EXPORT_NAME`.
pub fn decode_export(bytes: &[u8; EXPORT_LEN]) -> Result<(u64, u16), Malformed> {
    let mut f = Fields::new("export", bytes);
    Ok((f.u64()?, f.u16()?))
}
