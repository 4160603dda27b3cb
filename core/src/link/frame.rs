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
//!   6 begin-epoch epoch it opens   cut, µs     -                       (since 1970, for people)
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

use std::time::Duration;

use crate::runtime::{Buf, Data, Wall};
use crate::units::{
    ByteRange, Epoch, Generation, GroupId, Name, Uuid, VolumeIndex, u32_of, u64_of, usize_of,
};

/// Bytes of a frame before its payload.
pub const HEADER_LEN: usize = 40;

/// The largest payload, in bytes. A larger write is several frames.
pub const PAYLOAD_MAX: u64 = 1 << 20;

/// The largest range of one zeroes or discard frame, in bytes: bounds the old content that one
/// frame makes the secondary save.
pub const ZEROES_MAX: u64 = 4 << 20;

/// The version of this protocol. Others are refused in the hello.
pub const VERSION: u8 = 1;

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
    /// of the cut, on the primary's clock: for people.
    BeginEpoch(Epoch, Wall),
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
    /// What its open undo logs hold, in bytes, once that was applied.
    pub undo: u64,
}

/// Who one side is and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The group.
    pub group: GroupId,
    /// Its generation; both sides must agree.
    pub generation: Generation,
    /// The pool of the sender: no engine replicates to itself.
    pub pool: Uuid,
    /// The highest epoch the sender ever opened. The higher one of both is the open epoch.
    pub epoch: Epoch,
    /// The sender's last record. The secondary's decides what completed.
    pub record: Epoch,
    /// The sender's replicas were just made and hold nothing but zeroes.
    pub blank: bool,
    /// Primary: nothing is known of what the peer holds; it has to forget its checkpoint.
    pub anew: bool,
    /// Names and sizes of the volumes, in group order.
    pub members: Vec<(Name, u64)>,
}

/// A frame that is not one, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad frame: {0}")]
pub struct FrameError(pub String);

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
    header_crc: u32,
}

/// Encodes a frame as its header and, for a write, its payload: no copy of the data.
pub fn encode(sequence: u64, body: &Body) -> (Data, Option<Data>) {
    let none = VolumeIndex::default();
    let text;
    let (kind, volume, first, second, payload): (u8, _, _, _, Option<Data>) = match body {
        Body::Hello(h) => {
            text = Data::copy_of(&h.encode());
            (1, none, h.epoch.0, h.record.0, Some(text))
        }
        Body::Write(v, r, d) => (2, *v, r.start, r.len(), Some(d.clone())),
        Body::Resync(v, r, d) => (13, *v, r.start, r.len(), Some(d.clone())),
        Body::Zeroes(v, r) => (3, *v, r.start, r.len(), None),
        Body::Discard(v, r) => (4, *v, r.start, r.len(), None),
        Body::Flush => (5, none, 0, 0, None),
        Body::BeginEpoch(e, cut) => (6, none, e.0, micros(*cut), None),
        Body::Ack(a) => {
            (7, none, a.received, a.applied, Some(Data::copy_of(&a.undo.to_le_bytes())))
        }
        Body::Record(e) => (8, none, e.0, 0, None),
        Body::Flushed(s) => (9, none, *s, 0, None),
        Body::Error(t) => {
            let cut = (0..=t.len().min(usize_of(ERROR_MAX)))
                .rev()
                .find(|i| t.is_char_boundary(*i))
                .unwrap_or(0);
            text = Data::copy_of(t.get(..cut).unwrap_or_default().as_bytes());
            (10, none, 0, 0, Some(text))
        }
        Body::Status => (11, none, 0, 0, None),
        Body::Stop(e) => (12, none, e.0, 0, None),
    };
    let mut header = Buf::new(HEADER_LEN);
    let len = payload.as_ref().map_or(0, |p| p.len());
    let mut w = Put(&mut header);
    w.u32(MAGIC);
    w.bytes(&[kind, VERSION]);
    w.bytes(&volume.0.to_le_bytes());
    w.u64(sequence);
    w.u64(first);
    w.u64(second);
    w.u32(u32_of(u64_of(len)));
    let mut crc = crc32c::crc32c(header.get(..36).unwrap_or_default());
    if let Some(p) = &payload {
        crc = crc32c::crc32c_append(crc, p);
    }
    if let Some(end) = header.get_mut(36..) {
        end.copy_from_slice(&crc.to_le_bytes());
    }
    (header.freeze(), payload)
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
    let header_crc = crc32c::crc32c(b.get(..36).unwrap_or_default());
    Ok(Header {
        kind,
        volume,
        sequence,
        first,
        second,
        payload_len: usize_of(payload_len),
        crc,
        header_crc,
    })
}

/// A time as a frame carries it: microseconds since 1970.
fn micros(time: Wall) -> u64 {
    u64::try_from(time.0.as_micros()).unwrap_or(u64::MAX)
}

/// Decodes the whole frame, its checksum first.
pub fn decode(h: &Header, payload: Buf) -> Result<Body, FrameError> {
    if crc32c::crc32c_append(h.header_crc, &payload) != h.crc {
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
        6 => Body::BeginEpoch(Epoch(h.first), Wall(Duration::from_micros(h.second))),
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

impl Hello {
    /// ```text
    ///   generation number u64, id u64 │ pool u128 │ flags u8 (1 blank, 2 anew) │ group │ count u16 │ count × (name, size u64)
    ///   a name: length u8, bytes
    /// ```
    fn encode(&self) -> Vec<u8> {
        let mut b = Vec::with_capacity(64);
        b.extend(self.generation.number.to_le_bytes());
        b.extend(self.generation.id.to_le_bytes());
        b.extend(self.pool.0.to_le_bytes());
        b.push(u8::from(self.blank) | u8::from(self.anew) << 1);
        let name = |b: &mut Vec<u8>, n: &Name| {
            // A name has at most 128 bytes.
            b.push(u8::try_from(n.as_str().len()).unwrap_or(0));
            b.extend(n.as_str().as_bytes());
        };
        name(&mut b, &self.group);
        b.extend(u16::try_from(self.members.len()).unwrap_or(u16::MAX).to_le_bytes());
        for (n, size) in &self.members {
            name(&mut b, n);
            b.extend(size.to_le_bytes());
        }
        b
    }

    fn decode(b: &[u8]) -> Result<Self, FrameError> {
        let mut t = Take(b);
        let generation = Generation { number: t.u64()?, id: t.u64()? };
        let pool = Uuid(u128::from_le_bytes(t.array()?));
        let flags = t.u8()?;
        let (blank, anew) = (flags & 1 != 0, flags & 2 != 0);
        let group = t.name()?;
        let count = t.u16()?;
        if usize::from(count) > crate::units::GROUP_VOLUMES_MAX {
            return Err(FrameError(format!("a hello with {count} volumes")));
        }
        let members =
            (0..count).map(|_| Ok((t.name()?, t.u64()?))).collect::<Result<_, FrameError>>()?;
        Ok(Self {
            group,
            generation,
            pool,
            epoch: Epoch::NONE,
            record: Epoch::NONE,
            blank,
            anew,
            members,
        })
    }
}

/// Writes one field behind the other.
struct Put<'a>(&'a mut [u8]);

impl Put<'_> {
    fn bytes(&mut self, b: &[u8]) {
        let (head, rest) = std::mem::take(&mut self.0).split_at_mut(b.len());
        head.copy_from_slice(b);
        self.0 = rest;
    }
    fn u32(&mut self, n: u32) {
        self.bytes(&n.to_le_bytes());
    }
    fn u64(&mut self, n: u64) {
        self.bytes(&n.to_le_bytes());
    }
}

/// Reads one field behind the other; too short is an error.
struct Take<'a>(&'a [u8]);

impl Take<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (head, rest) =
            self.0.split_first_chunk::<N>().ok_or_else(|| FrameError("it is too short".into()))?;
        self.0 = rest;
        Ok(*head)
    }
    fn u8(&mut self) -> Result<u8, FrameError> {
        Ok(u8::from_le_bytes(self.array()?))
    }
    fn u16(&mut self) -> Result<u16, FrameError> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    fn u32(&mut self) -> Result<u32, FrameError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    fn u64(&mut self) -> Result<u64, FrameError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    fn name(&mut self) -> Result<Name, FrameError> {
        let len = usize::from(self.u8()?);
        let (head, rest) =
            self.0.split_at_checked(len).ok_or_else(|| FrameError("it is too short".into()))?;
        self.0 = rest;
        let text = std::str::from_utf8(head).map_err(|e| FrameError(e.to_string()))?;
        text.parse().map_err(|e: crate::units::ParseError| FrameError(e.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(body: &Body) -> Body {
        let (h, p) = encode(7, body);
        let header = decode_header(h[..].try_into().unwrap()).unwrap();
        assert_eq!(header.sequence, 7);
        decode(&header, Buf::copy_of(&p.map(|p| p.to_vec()).unwrap_or_default())).unwrap()
    }

    fn hello() -> Hello {
        Hello {
            group: "g".parse().unwrap(),
            generation: Generation { number: 3, id: 4 },
            pool: Uuid(9),
            epoch: Epoch(5),
            record: Epoch(4),
            blank: true,
            anew: false,
            members: vec![("a".parse().unwrap(), 512), ("b".parse().unwrap(), 1024)],
        }
    }

    #[test]
    fn every_frame_reads_back_as_it_was_written() {
        let v = VolumeIndex(3);
        let r = ByteRange::new(512, 1024);
        let all = [
            Body::Hello(Box::new(hello())),
            Body::Write(v, r, Data::copy_of(&[7; 512])),
            Body::Zeroes(v, r),
            Body::Discard(v, r),
            Body::Flush,
            Body::BeginEpoch(Epoch(8), Wall(Duration::from_micros(1_764_000_000_123_456))),
            Body::Ack(Ack { received: 5, applied: 4, undo: 3 }),
            Body::Resync(v, r, Data::copy_of(&[8; 512])),
            Body::Record(Epoch(7)),
            Body::Flushed(6),
            Body::Error("disk on fire".into()),
            Body::Status,
            Body::Stop(Epoch(1)),
        ];
        for body in all {
            let back = round_trip(&body);
            assert_eq!(format!("{body:?}"), format!("{back:?}"));
            if let (Body::Write(.., a), Body::Write(.., b)) = (&body, &back) {
                assert_eq!(a[..], b[..]);
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_in_a_frame_is_refused() {
        let (h, p) =
            encode(1, &Body::Write(VolumeIndex(0), ByteRange::new(0, 64), Data::copy_of(&[1; 64])));
        let whole: Vec<u8> = h.iter().chain(p.unwrap().iter()).copied().collect();
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let (head, tail) = bad.split_at(HEADER_LEN);
            let r = decode_header(head.try_into().unwrap()).and_then(|h| {
                if h.payload_len == tail.len() {
                    decode(&h, Buf::copy_of(tail))
                } else {
                    Err(FrameError("length".into()))
                }
            });
            assert!(r.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn absurd_lengths_are_refused_before_the_payload_is_read() {
        let (h, _) = encode(1, &Body::Zeroes(VolumeIndex(0), ByteRange::new(0, 1 << 40)));
        assert!(decode_header(h[..].try_into().unwrap()).is_err());
        let mut b: [u8; HEADER_LEN] = h[..].try_into().unwrap();
        b[4] = 2;
        b[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(decode_header(&b).is_err());
    }

    #[test]
    fn a_truncated_hello_is_refused_at_every_length() {
        let b = hello().encode();
        for n in 0..b.len() {
            assert!(Hello::decode(&b[..n]).is_err(), "{n}");
        }
    }
}
