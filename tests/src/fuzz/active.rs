//! The map of an active disk, from any bytes of its file.
//!
//! Holds: what is opened says the same of each cluster by every question, nothing of what is beyond
//! the volume, and is opened again the same; a write and a zero after that are found. Rot in a page
//! leads to its state at the flush before, or to an error; never to anything else.

use understudy_core::disk::ErrorKind;
use understudy_core::overlay::{Active, ActiveState};
use understudy_core::runtime::Data;
use understudy_core::units::{ByteRange, CLUSTER, ClusterIndex, Uuid, usize_of};

use super::input::{Input, Script};
use super::seal::{patch, rot};
use super::watched::{Watched, now};

const ID: Uuid = Uuid(6);
const SLOT: usize = 4096;
/// A page and a half, and a piece of a cluster.
const LEN: u64 = (63 << 20) + (1 << 20) + 1536;

type Pieces = Vec<(ByteRange, ActiveState)>;

fn open(map: &Watched) -> Result<Active<Watched>, ErrorKind> {
    now(Active::open(Watched::hollow(LEN), map.clone(), ID, LEN)).map_err(|e| e.kind())
}

fn pieces(active: &Active<Watched>) -> Pieces {
    active.pieces(ByteRange::new(0, LEN))
}

fn write(active: &Active<Watched>, cluster: u64) {
    let range = ClusterIndex(cluster).range();
    now(active.write(range, Data::copy_of(&[1; 4096]))).unwrap();
}

/// After one flush, and after two.
fn good() -> (Vec<u8>, Pieces, Pieces) {
    let map = Watched::new(&vec![0; usize_of(Active::<Watched>::map_len(LEN))]);
    let active = Active::blank(Watched::hollow(LEN), map.clone(), ID, LEN);
    write(&active, 0);
    write(&active, 63 * 256 + 3);
    now(active.zero(ByteRange::new(8 * CLUSTER, 20 * CLUSTER))).unwrap();
    now(active.flush()).unwrap();
    let first = pieces(&active);
    write(&active, 9);
    write(&active, 63 * 256 + 9);
    now(active.flush()).unwrap();
    (map.content(), first, pieces(&active))
}

/// mode(1): 0 rot, 1 patches.
fn content(bytes: &[u8]) -> (Vec<u8>, Option<[Pieces; 2]>) {
    let mut input = Input(bytes);
    let (mut content, first, second) = good();
    if input.u8() == 0 {
        rot(&mut content, SLOT, &mut input);
        return (content, Some([first, second]));
    }
    patch(&mut content, SLOT, |_| SLOT, &mut input);
    (content, None)
}

/// The target.
pub fn active(bytes: &[u8]) {
    let (content, rotten) = content(bytes);
    let map = Watched::new(&content);
    let active = match open(&map) {
        Ok(active) => active,
        Err(kind) => return assert!(matches!(kind, ErrorKind::Corrupt | ErrorKind::TooNew)),
    };
    let found = pieces(&active);
    agree(&active, &found);
    if let Some(flushes) = rotten {
        let page = |of: &Pieces, page: u64| {
            let span = ByteRange::new(page * (63 << 20), (page + 1) * (63 << 20));
            let cut: Pieces = of.iter().map(|(r, s)| (r.intersect(span), *s)).collect();
            cut.into_iter().filter(|(r, _)| !r.is_empty()).collect::<Pieces>()
        };
        for number in 0..2 {
            let is = page(&found, number);
            assert!(flushes.iter().any(|flush| page(flush, number) == is), "page {number}: {is:?}");
        }
    }
    assert_eq!(pieces(&open(&map).unwrap()), found, "opened again");
    write(&active, 100);
    now(active.zero(ByteRange::new((63 << 20) + (1 << 20), LEN))).unwrap();
    now(active.flush()).unwrap();
    let again = open(&map).unwrap();
    assert_eq!(again.state(ClusterIndex(100)), ActiveState::Data);
    assert_eq!(again.state(ClusterIndex(64 * 256)), ActiveState::Zero);
    assert_eq!(pieces(&again), pieces(&active), "after a flush");
}

fn agree(active: &Active<Watched>, pieces: &Pieces) {
    let mut at = 0;
    let mut known = 0;
    let mut data = 0;
    for (range, state) in pieces {
        assert!(range.start == at && !range.is_empty(), "{pieces:?}");
        at = range.end;
        for byte in [range.start, range.end - 1] {
            assert_eq!(active.state(ClusterIndex(byte / CLUSTER)), *state, "byte {byte}");
        }
        if *state != ActiveState::Absent {
            known += range.len();
            assert!(active.intersects(*range));
        }
        if *state == ActiveState::Data {
            data += range.len();
        }
    }
    assert_eq!(at, LEN);
    assert_eq!(
        active.ranges().iter().map(|r| r.len()).sum::<u64>(),
        known,
        "{:?}",
        active.ranges()
    );
    assert!(active.ranges().iter().all(|r| !r.is_empty() && r.end <= LEN), "{:?}", active.ranges());
    assert!(active.bytes().abs_diff(data) < CLUSTER, "{} and {data} bytes", active.bytes());
    assert_eq!(active.is_blank(), known == 0);
}

pub(super) fn reaches(bytes: &[u8]) -> bool {
    open(&Watched::new(&content(bytes).0)).is_ok()
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let patched = |slot, how, at: u16, bytes: &[u8]| {
        Script::default().u8(1).u16(slot).u8(how).u16(at).short(bytes).0
    };
    vec![
        // The second flush of a page goes to its slot 0.
        ("rot", Script::default().u8(0).u32(64).raw(&[1]).0),
        ("rot-older", Script::default().u8(0).u32(4096 + 64).raw(&[1]).0),
        ("bits", patched(0, 1, 70, &[0x55; 100])),
        ("counter", patched(1, 1, 40, &[5])),
        ("stranger", patched(0, 1, 16, &[1])),
        ("torn", patched(2, 0, 512, &[7; 255])),
    ]
}
