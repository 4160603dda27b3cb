//! Frames in bytes, little-endian.
//!
//! ```text
//!   0         4      5      6        8            16         24         32          36         40
//!   ┌─────────┬──────┬──────┬────────┬────────────┬──────────┬──────────┬───────────┬──────────┬─────────┐
//!   │ magic   │ type │ ver  │ volume │ sequence   │ first    │ second   │ payload   │ crc32c   │ payload │
//!   │ "USLK"  │ u8   │ u8   │ u16    │ u64        │ u64      │ u64      │ length u32│ u32      │ ...     │
//!   └─────────┴──────┴──────┴────────┴────────────┴──────────┴──────────┴───────────┴──────────┴─────────┘
//!                                                                         crc over bytes 0..36 and payload
//!   type          first            second      payload
//!   1 hello       highest epoch    record      [`Hello`]
//!   2 write       offset           length      the data, `length` bytes
//!   3 zeroes      offset           length      -
//!   4 discard     offset           length      -
//!   5 flush       -                -           -
//!   6 begin-epoch epoch it opens   cut, µs     -                       (since 1970, for people; volume:
//!                                                                      how many the closed one covers)
//!   7 ack         received up to   applied     undo space in use, u64  (sequences, bytes)
//!   8 record      epoch            -           -
//!   9 flushed     sequence         -           -
//!  10 error       -                -           text, UTF-8
//!  11 status      -                -           -
//!  12 stop        epoch            -           -                       (both ways: asked, done)
//!  13 resync      offset           length      the data: a write that the peer may have already
//! ```
//!
//! Sequences grow within a session; gaps are frames that were dropped before they were sent.

mod decode;
mod encode;
mod fields;
mod hello;

pub use decode::{Header, decode, decode_header};
pub use encode::encode;
pub use hello::Hello;

use crate::runtime::{Data, Wall};
use crate::units::{ByteRange, Epoch, VolumeCount, VolumeIndex};

/// Bytes of a frame before its payload.
pub const HEADER_LEN: usize = 40;

/// The largest payload, in bytes. A larger write is several frames.
pub const PAYLOAD_MAX: u64 = 1 << 20;

/// The largest range of one zeroes or discard frame, in bytes: bounds the old content that one
/// frame makes the secondary save.
pub const ZEROES_MAX: u64 = 4 << 20;

/// The version of this protocol. Others are refused in the hello.
pub const VERSION: u8 = 2;

const MAGIC: u32 = u32::from_le_bytes(*b"USLK");
const HELLO_MAX: u64 = 16 << 10;
const ERROR_MAX: u64 = 4 << 10;

/// What a frame says.
#[derive(Clone, Debug)]
pub enum Body {
    /// The first frame of either side.
    Hello(Box<Hello>),
    /// New content.
    Write(VolumeIndex, ByteRange, Data),
    /// Content that the peer lacks, or may lack: what it finds equal costs it nothing.
    Resync(VolumeIndex, ByteRange, Data),
    /// Reads as zeroes from now on, and keeps its space.
    Zeroes(VolumeIndex, ByteRange),
    /// Reads as zeroes from now on, and gives its space back.
    Discard(VolumeIndex, ByteRange),
    /// Make everything before it durable, then say flushed.
    Flush,
    /// All frames before it are epochs before this one; all behind it are this one. The time is that
    /// of the cut, on the primary's clock: for people. The checkpoint that it closes covers so many
    /// volumes; those behind them are joining.
    BeginEpoch(Epoch, Wall, VolumeCount),
    /// What the secondary has taken.
    Ack(Ack),
    /// Checkpoint N is durable.
    Record(Epoch),
    /// The flush with this sequence is done.
    Flushed(u64),
    /// The sender gives up this session, and why.
    Error(String),
    /// A sign of life.
    Status,
    /// The replication ends at this checkpoint, and both keep it.
    Stop(Epoch),
}

/// How far the secondary has come with the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ack {
    /// Staged up to this sequence.
    pub received: u64,
    /// Applied up to this one.
    pub applied: u64,
    /// What its open undo logs hold of what is applied, in bytes.
    pub undo: u64,
}

/// A frame that is not one, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad frame: {0}")]
pub struct FrameError(pub String);
#[cfg(test)]
mod tests;
