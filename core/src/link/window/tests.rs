//! Room, acknowledgements, and frames taken back.

use super::*;
use crate::units::{ByteRange, VolumeIndex};

fn write(len: usize) -> Body {
    Body::Write(VolumeIndex(0), ByteRange::new(0, u64_of(len)), Data::zeroes(len))
}

#[test]
fn a_full_window_has_no_room_until_the_peer_acknowledges() {
    let w = Window::new(10_000);
    assert!(w.has_room(1 << 30), "an empty window takes any frame");
    let a = w.push(write(6000), false);
    assert!(!w.has_room(6000));
    assert_eq!(w.take().len(), 2);
    w.acknowledge(Ack { received: a, ..Ack::default() });
    assert!(w.has_room(6000));
    assert_eq!((w.bytes(), w.acknowledged(), w.applied()), (0, a, 0));
}

#[test]
fn unsent_frames_can_be_taken_back_and_sent_ones_cannot() {
    let w = Window::new(1 << 20);
    w.push(write(100), false);
    w.take();
    let b = w.push(write(200), false);
    let back = w.drop_unsent();
    assert_eq!(back.iter().map(|q| q.sequence).collect::<Vec<_>>(), [b]);
    assert_eq!(w.bytes(), 140);
    w.acknowledge(Ack { received: u64::MAX, applied: u64::MAX, undo: 0 });
    assert_eq!((w.bytes(), w.acknowledged(), w.applied()), (0, b, b));
}
