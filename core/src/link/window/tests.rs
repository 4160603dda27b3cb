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

#[test]
fn a_frame_that_was_taken_back_is_never_acknowledged_though_later_ones_are() {
    let w = Window::new(1 << 20);
    let sent = w.push(write(100), false);
    w.take();
    let dropped = w.push(write(200), false);
    w.drop_unsent();
    let later = w.push(write(300), false);
    w.take();
    w.acknowledge(Ack { received: later, applied: later, undo: 0 });
    let fate = |s| (w.is_acknowledged(s), w.is_dropped(s));
    assert_eq!(
        [fate(sent), fate(dropped), fate(later)],
        [(true, false), (false, true), (true, false)]
    );
}

#[test]
fn drops_beyond_the_limit_are_merged_and_none_is_forgotten() {
    let w = Window::new(1 << 20);
    let dropped: Vec<_> = (0..3 * DROPS_MAX)
        .map(|_| {
            let sequence = w.push(write(100), false);
            w.drop_unsent();
            sequence
        })
        .collect();
    assert!(dropped.iter().all(|s| w.is_dropped(*s)));
    assert!(w.0.dropped.borrow().len() <= DROPS_MAX);
}

#[test]
fn answers_to_a_peer_that_does_not_read_are_bounded() {
    let w = Window::one_way();
    for received in 0..100_000 {
        w.push(Body::Ack(Ack { received, ..Ack::default() }), true);
        w.push(Body::Status, true);
    }
    assert_eq!(w.0.unsent.borrow().len(), 1, "the newest acknowledgement says it all");
    assert!(!w.is_closed());
    for n in 0..100_000 {
        w.push(Body::Flushed(n), true);
    }
    assert_eq!(w.0.unsent.borrow().len(), ANSWERS_MAX);
    assert!(w.is_closed(), "and too many others end the session");
}
