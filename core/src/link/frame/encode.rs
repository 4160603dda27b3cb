//! A frame's body to bytes: the header, and the payload beside it as it is.

use super::fields::Put;
use super::{Body, ERROR_MAX, HEADER_LEN, MAGIC, VERSION};
use crate::runtime::{Buf, Data, Wall};
use crate::units::{VolumeIndex, u32_of, u64_of, usize_of};

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
        Body::BeginEpoch(e, cut, k) => (6, VolumeIndex(k.0), e.0, micros(*cut), None),
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

/// A time as a frame carries it: microseconds since 1970.
fn micros(time: Wall) -> u64 {
    u64::try_from(time.0.as_micros()).unwrap_or(u64::MAX)
}
