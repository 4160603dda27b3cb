//! Frames there and back, and all that is refused.

use std::time::Duration;

use super::*;
use crate::runtime::Buf;
use crate::units::{Generation, Uuid};

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
        joined: VolumeCount(1),
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
        Body::BeginEpoch(
            Epoch(8),
            Wall(Duration::from_micros(1_764_000_000_123_456)),
            VolumeCount(2),
        ),
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
