//! Bytes to a frame's body, in two steps: the header, whose lengths are checked before the payload
//! is read, and the whole, whose checksum is checked before anything of it counts.

use std::time::Duration;

use super::fields::Take;
use super::{
    Ack, Body, ERROR_MAX, FrameError, HEADER_LEN, HELLO_MAX, Hello, MAGIC, PAYLOAD_MAX, VERSION,
    ZEROES_MAX,
};
use crate::runtime::{Buf, Wall};
use crate::units::{ByteRange, Epoch, VolumeCount, VolumeIndex, usize_of};

/// A header whose checksum can't be checked yet: the payload is still to come.
#[derive(Debug, Clone)]
pub struct Header {
    kind: u8,
    volume: VolumeIndex,
    /// The frame's number in its session.
    pub sequence: u64,
    first: u64,
    second: u64,
    /// How many bytes follow.
    pub payload_len: usize,
    crc: u32,
    /// The checksum of the header's own part.
    own_crc: u32,
}

/// Decodes a header; refuses what no sender of this version writes, before its payload is read.
pub fn decode_header(b: &[u8; HEADER_LEN]) -> Result<Header, FrameError> {
    let mut t = Take(b);
    let magic = t.u32()?;
    let kind = t.u8()?;
    let version = t.u8()?;
    if magic != MAGIC {
        return Err(FrameError(
            "it does not begin with USLK: the far end is no Understudy link".into(),
        ));
    }
    if version != VERSION {
        return Err(FrameError(format!(
            "link protocol version {version}, this engine speaks {VERSION}: run the same version on both sides"
        )));
    }
    let volume = VolumeIndex(t.u16()?);
    let sequence = t.u64()?;
    let (first, second) = (t.u64()?, t.u64()?);
    let payload_len = u64::from(t.u32()?);
    let crc = t.u32()?;
    let good = match kind {
        1 => payload_len <= HELLO_MAX,
        2 | 13 => payload_len == second && (1..=PAYLOAD_MAX).contains(&payload_len),
        7 => payload_len == 8,
        3 | 4 => payload_len == 0 && (1..=ZEROES_MAX).contains(&second),
        5 | 6 | 8 | 9 | 11 | 12 => payload_len == 0,
        10 => payload_len <= ERROR_MAX,
        _ => return Err(FrameError(format!("unknown type {kind}"))),
    };
    if !good {
        return Err(FrameError(format!(
            "type {kind} with a payload of {payload_len} bytes for a length of {second}"
        )));
    }
    let own_crc = crc32c::crc32c(b.get(..36).unwrap_or_default());
    Ok(Header {
        kind,
        volume,
        sequence,
        first,
        second,
        payload_len: usize_of(payload_len),
        crc,
        own_crc,
    })
}

/// Decodes the whole frame, its checksum first.
pub fn decode(h: &Header, payload: Buf) -> Result<Body, FrameError> {
    if crc32c::crc32c_append(h.own_crc, &payload) != h.crc {
        return Err(FrameError(format!("checksum of frame {} (type {})", h.sequence, h.kind)));
    }
    let range = || {
        ByteRange::at(crate::units::ByteOffset(h.first), h.second).ok_or_else(|| {
            FrameError(format!("offset {} + length {} overflows", h.first, h.second))
        })
    };
    Ok(match h.kind {
        1 => {
            let mut hello = Hello::decode(&payload)?;
            (hello.epoch, hello.record) = (Epoch(h.first), Epoch(h.second));
            Body::Hello(Box::new(hello))
        }
        2 => Body::Write(h.volume, range()?, payload.freeze()),
        3 => Body::Zeroes(h.volume, range()?),
        4 => Body::Discard(h.volume, range()?),
        5 => Body::Flush,
        6 => {
            let cut = Wall(Duration::from_micros(h.second));
            Body::BeginEpoch(Epoch(h.first), cut, VolumeCount(h.volume.0))
        }
        7 => Body::Ack(Ack { received: h.first, applied: h.second, undo: Take(&payload).u64()? }),
        8 => Body::Record(Epoch(h.first)),
        9 => Body::Flushed(h.first),
        10 => Body::Error(String::from_utf8_lossy(&payload).into_owned()),
        11 => Body::Status,
        12 => Body::Stop(Epoch(h.first)),
        13 => Body::Resync(h.volume, range()?, payload.freeze()),
        other => return Err(FrameError(format!("unknown type {other}"))),
    })
}
