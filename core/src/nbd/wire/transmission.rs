//! The messages of the transmission phase.
//!
//! ```text
//!   request       0x25609513(4) flags(2) command(2) cookie(8) offset(8) length(4)   [data]
//!   simple reply  0x67446698(4) errno(4) cookie(8)                                  [data]
//!   chunk         0x668e33ef(4) flags(2) kind(2) cookie(8) length(4)                content
//!      OFFSET_DATA   offset(8) data          OFFSET_HOLE   offset(8) length(4)
//!      BLOCK_STATUS  context(4) { length(4) flags(4) }…
//!      ERROR         errno(4) n(2) text(n)   ERROR_OFFSET  the same, offset(8)
//! ```

use super::{Fields, Malformed, STRING_MAX, chunk};

const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_MAGIC: u32 = 0x6744_6698;
const CHUNK_MAGIC: u32 = 0x668e_33ef;

/// The length of a request's header.
pub const REQUEST_LEN: usize = 28;
/// The length of a simple reply's header.
pub const SIMPLE_LEN: usize = 16;
/// The length of a chunk's header.
pub const CHUNK_LEN: usize = 20;

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// See [`super::command_flag`].
    pub flags: u16,
    /// See [`super::command`].
    pub command: u16,
    /// Comes back in the reply.
    pub cookie: u64,
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub length: u32,
}

/// Copies `fields` one behind the other; they fill `N` bytes exactly.
fn join<const N: usize>(fields: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    let mut rest = &mut out[..];
    for field in fields {
        let Some((to, behind)) = std::mem::take(&mut rest).split_at_mut_checked(field.len()) else {
            debug_assert!(false, "fields of more than {N} bytes");
            break;
        };
        to.copy_from_slice(field);
        rest = behind;
    }
    debug_assert!(rest.is_empty(), "fields of less than {N} bytes");
    out
}

impl Request {
    /// Its bytes.
    pub fn encode(&self) -> [u8; REQUEST_LEN] {
        join(&[
            &REQUEST_MAGIC.to_be_bytes(),
            &self.flags.to_be_bytes(),
            &self.command.to_be_bytes(),
            &self.cookie.to_be_bytes(),
            &self.offset.to_be_bytes(),
            &self.length.to_be_bytes(),
        ])
    }

    /// From its bytes. Flags and commands are not judged here.
    pub fn decode(bytes: &[u8; REQUEST_LEN]) -> Result<Self, Malformed> {
        let mut f = Fields::new("request", bytes);
        f.magic32(REQUEST_MAGIC)?;
        Ok(Self {
            flags: f.u16()?,
            command: f.u16()?,
            cookie: f.u64()?,
            offset: f.u64()?,
            length: f.u32()?,
        })
    }
}

/// An answer without chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SimpleReply {
    /// 0, or what went wrong.
    pub errno: u32,
    /// The request's.
    pub cookie: u64,
}

impl SimpleReply {
    /// Its bytes; the data of a read follows them.
    pub fn encode(&self) -> [u8; SIMPLE_LEN] {
        join(&[&SIMPLE_MAGIC.to_be_bytes(), &self.errno.to_be_bytes(), &self.cookie.to_be_bytes()])
    }

    /// Whether a reply that begins with these bytes is a simple one.
    pub fn is_simple(magic: [u8; 4]) -> bool {
        magic == SIMPLE_MAGIC.to_be_bytes()
    }

    /// From its bytes.
    pub fn decode(bytes: &[u8; SIMPLE_LEN]) -> Result<Self, Malformed> {
        let mut f = Fields::new("simple reply", bytes);
        f.magic32(SIMPLE_MAGIC)?;
        Ok(Self { errno: f.u32()?, cookie: f.u64()? })
    }
}

/// The header of one chunk of a structured reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// [`chunk::DONE`] on the last one.
    pub flags: u16,
    /// See [`chunk`].
    pub kind: u16,
    /// The request's.
    pub cookie: u64,
    /// The length of the content behind this header.
    pub length: u32,
}

impl Chunk {
    /// Its bytes.
    pub fn encode(&self) -> [u8; CHUNK_LEN] {
        join(&[
            &CHUNK_MAGIC.to_be_bytes(),
            &self.flags.to_be_bytes(),
            &self.kind.to_be_bytes(),
            &self.cookie.to_be_bytes(),
            &self.length.to_be_bytes(),
        ])
    }

    /// From its bytes.
    pub fn decode(bytes: &[u8; CHUNK_LEN]) -> Result<Self, Malformed> {
        let mut f = Fields::new("reply chunk", bytes);
        f.magic32(CHUNK_MAGIC)?;
        Ok(Self { flags: f.u16()?, kind: f.u16()?, cookie: f.u64()?, length: f.u32()? })
    }

    /// Whether it ends its reply.
    pub fn is_done(&self) -> bool {
        self.flags & chunk::DONE != 0
    }
}

/// The content of a chunk that says what went wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErrorChunk {
    /// What went wrong.
    pub errno: u32,
    /// The same, for people.
    pub text: String,
    /// Where, if that is known.
    pub offset: Option<u64>,
}

impl ErrorChunk {
    /// The kind of chunk it makes.
    pub fn kind(&self) -> u16 {
        if self.offset.is_some() { chunk::ERROR_OFFSET } else { chunk::ERROR }
    }

    /// Its bytes; a text too long for the protocol is cut.
    pub fn encode(&self) -> Vec<u8> {
        let text = self.text.get(..self.text.floor_char_boundary(STRING_MAX)).unwrap_or_default();
        let mut out = self.errno.to_be_bytes().to_vec();
        out.extend(u16::try_from(text.len()).unwrap_or_default().to_be_bytes());
        out.extend(text.as_bytes());
        out.extend(self.offset.iter().flat_map(|o| o.to_be_bytes()));
        out
    }

    /// From the content of a chunk of `kind`. Error kinds we don't know are read as far as all
    /// errors are alike.
    pub fn decode(kind: u16, bytes: &[u8]) -> Result<Self, Malformed> {
        let mut f = Fields::new("error chunk", bytes);
        let errno = f.u32()?;
        let len = f.u16()?;
        let text = f.text(len.into())?.to_owned();
        let offset = if kind == chunk::ERROR_OFFSET { Some(f.u64()?) } else { None };
        if matches!(kind, chunk::ERROR | chunk::ERROR_OFFSET) {
            f.end()?;
        }
        Ok(Self { errno, text, offset })
    }
}

/// A run of bytes of one state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// How many bytes; never 0.
    pub length: u32,
    /// See [`super::extent`].
    pub flags: u32,
}

/// The content of an `OFFSET_HOLE` chunk: offset and length.
pub fn decode_hole(bytes: &[u8]) -> Result<(u64, u32), Malformed> {
    let mut f = Fields::new("hole chunk", bytes);
    let hole = (f.u64()?, f.u32()?);
    f.end()?;
    Ok(hole)
}

/// The content of a `BLOCK_STATUS` chunk: the context's number and at least one extent.
pub fn decode_extents(bytes: &[u8]) -> Result<(u32, Vec<Extent>), Malformed> {
    let mut f = Fields::new("block status", bytes);
    let context = f.u32()?;
    let rest = f.rest();
    let pairs = rest.chunks_exact(8);
    if rest.is_empty() || !pairs.remainder().is_empty() {
        return Err(Malformed(format!(
            "block status: {} bytes are no list of extents",
            rest.len()
        )));
    }
    let mut extents = Vec::with_capacity(rest.len() / 8);
    for pair in pairs {
        let mut f = Fields::new("extent", pair);
        let extent = Extent { length: f.u32()?, flags: f.u32()? };
        if extent.length == 0 {
            return Err(Malformed("block status: an extent of no bytes".into()));
        }
        extents.push(extent);
    }
    Ok((context, extents))
}
