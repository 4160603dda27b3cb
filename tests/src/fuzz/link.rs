//! The frames of a link, from any bytes of a stream.
//!
//! ```text
//!   script:  mode(1)   0 rot of a good frame │ 1 frames with their checksums right │ else raw bytes
//!            frame:    type(1) volume(2) step(1) first(8) second(8) text(2+n)
//! ```
//!
//! Holds: a connection ends with an error after no more frames than its bytes can be; sequences grow;
//! ranges and payloads are within their limits; each frame is encoded and read back the same. Rot
//! in a frame ends the session.

use std::time::Duration;

use understudy_core::link::frame::{
    Body, HEADER_LEN, Hello, PAYLOAD_MAX, VERSION, ZEROES_MAX, decode, decode_header, encode,
};
use understudy_core::link::{Connection, LinkError};
use understudy_core::runtime::{Buf, Data, Wall};
use understudy_core::units::{
    ByteRange, Epoch, GROUP_VOLUMES_MAX, Generation, Uuid, VolumeCount, VolumeIndex, u64_of,
};

use super::input::{Input, Script};
use super::seal::rot;
use super::world::{Far, Next, Wire, World};

/// Where the checksum stands in a frame.
const CHECKSUM_AT: usize = 36;
/// How long a frame may take.
const SILENCE: Duration = Duration::from_secs(5);

/// Says its bytes in pieces, and then nothing.
struct Talker {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
    /// Whether it falls silent at the end, instead of hanging up.
    silent: bool,
}

impl Far for Talker {
    fn next(&mut self) -> Next {
        let end = (self.at + self.piece).min(self.bytes.len());
        if self.at == end {
            return if self.silent { Next::Wait } else { Next::End };
        }
        let piece = self.bytes[self.at..end].to_vec();
        self.at = end;
        Next::Bytes(piece)
    }

    fn sent(&mut self, bytes: &[u8]) {
        panic!("a receiver sends {} bytes", bytes.len());
    }
}

fn whole(sequence: u64, body: &Body) -> Vec<u8> {
    let (header, payload) = encode(sequence, body);
    [&header[..], payload.as_deref().unwrap_or_default()].concat()
}

fn hello() -> Hello {
    Hello {
        group: "vm-1".parse().unwrap(),
        generation: Generation { number: 3, id: 4 },
        pool: Uuid(9),
        epoch: Epoch(5),
        record: Epoch(4),
        blank: true,
        anew: false,
        members: vec![("a".parse().unwrap(), 512), ("b".parse().unwrap(), 1024)],
        joined: VolumeCount(2),
    }
}

fn seal(frame: &mut [u8]) {
    let sum = crc32c::crc32c(&frame[..CHECKSUM_AT]);
    let sum = crc32c::crc32c_append(sum, &frame[HEADER_LEN..]);
    frame[CHECKSUM_AT..HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
}

/// A frame of any content whose checksum is right.
fn frame(input: &mut Input<'_>, sequence: &mut u64) -> Vec<u8> {
    let (kind, volume, step) = (input.u8(), input.u16(), input.u8());
    let (first, second) = (input.u64(), input.u64());
    let mut payload = input.bytes().to_vec();
    let mut length = payload.len();
    *sequence = sequence.wrapping_add(u64::from(step));
    // Most writes are as long as they say; what is missing is zeroes.
    if matches!(kind, 2 | 13) && (1..=PAYLOAD_MAX).contains(&second) && volume & 0x8000 == 0 {
        length = usize::try_from(second).unwrap();
        payload.resize(length, 0);
    }
    let mut frame = b"USLK".to_vec();
    frame.extend([kind, VERSION]);
    frame.extend((volume & 0x7fff).to_le_bytes());
    frame.extend(sequence.to_le_bytes());
    frame.extend(first.to_le_bytes());
    frame.extend(second.to_le_bytes());
    frame.extend(u32::try_from(length).unwrap().to_le_bytes());
    frame.extend([0; 4]);
    frame.extend(payload);
    seal(&mut frame);
    frame
}

fn stream(bytes: &[u8]) -> (Talker, bool) {
    let mut input = Input(bytes);
    let mode = input.u8();
    let (silent, piece) = (mode & 0x80 != 0, [1 << 20, 1, 40, 4096][usize::from(mode >> 4 & 3)]);
    let mut rotten = false;
    let bytes = match mode & 0xf {
        0 => {
            let range = ByteRange::new(4096, 4096 + 64);
            let mut frame = match input.u8() & 1 {
                0 => whole(7, &Body::Write(VolumeIndex(1), range, Data::copy_of(&[9; 64]))),
                _ => whole(7, &Body::Hello(Box::new(hello()))),
            };
            // In the header the checksum stands at the end, so a change is on one side of it.
            let (head, payload) = frame.split_at_mut(CHECKSUM_AT);
            let part = if input.u8() & 1 == 0 { head } else { &mut payload[4..] };
            let len = part.len();
            rotten = rot(part, len, &mut input).is_some();
            frame
        }
        1 => {
            let mut all = Vec::new();
            let mut sequence = 0;
            while !input.is_empty() && all.len() < 4 << 20 {
                all.extend(frame(&mut input, &mut sequence));
            }
            all
        }
        _ => input.rest().to_vec(),
    };
    (Talker { bytes, at: 0, piece, silent }, rotten)
}

/// What a session brings until it ends.
fn received(talker: Talker) -> (Vec<(u64, Body)>, LinkError) {
    let world = World::new();
    let env = world.clone();
    world.run(async move {
        let mut connection = Connection::new(&env, Wire::new(talker));
        let mut frames = Vec::new();
        loop {
            match connection.receive(SILENCE).await {
                Ok(frame) => frames.push(frame),
                Err(e) => return (frames, e),
            }
        }
    })
}

/// The target.
pub fn link(bytes: &[u8]) {
    let (talker, rotten) = stream(bytes);
    let (length, silent) = (talker.bytes.len(), talker.silent);
    let (frames, end) = received(talker);
    assert!(frames.len() <= length / HEADER_LEN);
    assert!(!rotten || frames.is_empty(), "rot was taken for {frames:?}");
    match end {
        LinkError::Frame(_) => {}
        LinkError::Stream(_) => assert!(!silent, "a silent peer did not hang up"),
        LinkError::Silent(limit) => assert!(silent && limit == SILENCE),
        LinkError::Peer(why) | LinkError::Own(why) => panic!("nobody ended the session: {why}"),
    }
    let mut last = 0;
    for (sequence, body) in &frames {
        assert!(*sequence > last, "frame {sequence} behind frame {last}");
        last = *sequence;
        within_limits(body);
        reads_back(*sequence, body);
    }
}

fn within_limits(body: &Body) {
    let (range, limit) = match body {
        Body::Write(_, range, data) | Body::Resync(_, range, data) => {
            assert_eq!(u64_of(data.len()), range.len());
            (*range, PAYLOAD_MAX)
        }
        Body::Zeroes(_, range) | Body::Discard(_, range) => (*range, ZEROES_MAX),
        Body::Hello(hello) => return assert!(hello.members.len() <= GROUP_VOLUMES_MAX),
        _ => return,
    };
    assert!((1..=limit).contains(&range.len()), "{body:?}");
}

fn reads_back(sequence: u64, body: &Body) {
    let again = |body: &Body| {
        let bytes = whole(sequence, body);
        let (head, payload) = bytes.split_at(HEADER_LEN);
        let header = decode_header(head.try_into().unwrap()).unwrap();
        assert_eq!((header.sequence, header.payload_len), (sequence, payload.len()));
        decode(&header, Buf::copy_of(payload)).unwrap()
    };
    let back = again(body);
    match (body, &back) {
        (Body::Write(.., a), Body::Write(.., b)) | (Body::Resync(.., a), Body::Resync(.., b)) => {
            assert!(a[..] == b[..], "{body:?} has other data");
        }
        // What is no text became longer when it was read, and is cut at the limit.
        (Body::Error(a), Body::Error(b)) => return assert!(a.starts_with(b), "{a:?}, then {b:?}"),
        _ => {}
    }
    assert_eq!(format!("{body:?}"), format!("{back:?}"));
}

pub(super) fn reaches(bytes: &[u8]) -> bool {
    let (talker, rotten) = stream(bytes);
    rotten || !received(talker).0.is_empty()
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let (v, r) = (VolumeIndex(1), ByteRange::new(4096, 4096 + 64));
    let bodies = [
        Body::Hello(Box::new(hello())),
        Body::Write(v, r, Data::copy_of(&[7; 64])),
        Body::Zeroes(v, r),
        Body::Discard(v, r),
        Body::Flush,
        Body::BeginEpoch(Epoch(8), Wall(Duration::from_hours(490_000)), VolumeCount(1)),
        Body::Ack(understudy_core::link::frame::Ack { received: 5, applied: 4, undo: 3 }),
        Body::Resync(v, r, Data::copy_of(&[8; 64])),
        Body::Record(Epoch(7)),
        Body::Flushed(6),
        Body::Error("disk on fire".into()),
        Body::Status,
        Body::Stop(Epoch(1)),
    ];
    let raw: Vec<u8> = (1..).zip(&bodies).flat_map(|(n, body)| whole(n, body)).collect();
    let script = (1..).zip(&bodies).fold(Script::default().u8(1), |s, (n, body)| {
        let frame = whole(n, body);
        // Type and volume, a step of one, both numbers, the payload.
        s.u8(frame[4]).raw(&frame[6..8]).u8(1).raw(&frame[16..32]).bytes(&frame[HEADER_LEN..])
    });
    vec![
        ("every-frame", Script::default().u8(2).raw(&raw).0),
        ("in-pieces", Script::default().u8(0x92).raw(&raw).0),
        ("sealed", script.0),
        ("rot-write", Script::default().u8(0).u8(0).u8(1).u32(5).raw(&[1]).0),
        ("rot-hello", Script::default().u8(0).u8(1).u8(0).u32(16).raw(&[1, 2]).0),
    ]
}
