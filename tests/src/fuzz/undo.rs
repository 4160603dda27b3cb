//! The undo log of an epoch, from any bytes of its file.
//!
//! ```text
//!   script:  mode(1) freed(1) older(1) newer(1) idle(1)  entry... for each batch, then patches or rot
//!   file:    [batches of the newer log][what is left of the older log][never written]
//! ```
//!
//! Holds: an untouched log is found as it was written, whatever lies behind it. A log that is found is
//! found again, is readable in all it holds, and takes a further batch. Rot in a log whose last batch
//! is an idle one is damage, and never another content. The file is read a bounded number of times.

use understudy_core::disk::ErrorKind;
use understudy_core::overlay::{Content, Saved, UndoLog};
use understudy_core::runtime::{Buf, Data};
use understudy_core::units::{
    ByteOffset, ByteRange, CLUSTER, Epoch, Uuid, VolumeIndex, u64_of, usize_of,
};

use super::input::{Input, Script};
use super::seal::{patch, rot};
use super::watched::{Watched, now};

const BLOCK: usize = 4096;
const FILE: usize = 32 * BLOCK;
const VOLUMES: u16 = 3;
const OLDER: (Uuid, Epoch) = (Uuid(1), Epoch(4));
const NEWER: (Uuid, Epoch) = (Uuid(2), Epoch(5));

/// What a log holds of each volume: ranges and bytes.
type Held = Vec<(u16, ByteRange, Vec<u8>)>;

/// What a script makes.
struct Case {
    content: Vec<u8>,
    freed: Epoch,
    /// The log that was written last, and what it holds, if any batch was.
    written: Option<(Uuid, Held)>,
    touched: bool,
    rotten: bool,
}

/// entries(1), then for each: volume and kind(1), clusters(1). No cluster comes twice.
fn batch(input: &mut Input<'_>, next: &mut u64) -> Vec<Saved> {
    // The header of so many entries takes two blocks.
    let entries = match input.u8() {
        255 => 180,
        n => usize::from(n % 5),
    };
    (0..entries)
        .map(|number| {
            let (how, clusters) = match entries {
                180 => (3, 1),
                _ => (input.u8(), u64::from(input.u8() % 4) + 1),
            };
            let start = *next * CLUSTER;
            *next += clusters + u64::from(how >> 4);
            let range = ByteRange::new(start, start + clusters * CLUSTER);
            let content = if how & 1 == 1 {
                Content::Zero
            } else {
                let fill = how ^ u8::try_from(number & 0xff).unwrap();
                Content::Data(Data::copy_of(&vec![fill; usize_of(range.len())]))
            };
            Saved { volume: VolumeIndex(u16::from(how >> 1) % VOLUMES), range, content }
        })
        .collect()
}

fn log(
    disk: &Watched,
    who: (Uuid, Epoch),
    count: u8,
    idle: bool,
    input: &mut Input<'_>,
) -> UndoLog<Watched> {
    let log = now(UndoLog::create(disk.clone(), who.0, who.1)).unwrap();
    let mut next = u64::from(input.u8());
    for _ in 0..count % 4 {
        let batch = batch(input, &mut next);
        if log.room_for(&batch) {
            now(log.append(batch)).unwrap();
        }
    }
    if idle {
        now(log.idle_sync()).unwrap();
    }
    log
}

fn held(log: &UndoLog<Watched>) -> Held {
    let mut held = Held::new();
    for volume in 0..u16::try_from(understudy_core::units::GROUP_VOLUMES_MAX).unwrap() {
        for range in log.ranges(VolumeIndex(volume)) {
            for (piece, _) in log.pieces(VolumeIndex(volume), range) {
                // A claim of zeroes can be as long as a volume.
                let piece = ByteRange::new(piece.start, piece.end.min(piece.start + (64 << 10)));
                let (buf, result) =
                    now(log.read(VolumeIndex(volume), piece, Buf::new(usize_of(piece.len()))));
                result.unwrap();
                held.push((volume, piece, buf.to_vec()));
            }
        }
    }
    held
}

fn case(bytes: &[u8]) -> Case {
    let mut input = Input(bytes);
    let (mode, freed) = (input.u8(), Epoch(u64::from(input.u8())));
    let (older, newer, idle) = (input.u8(), input.u8(), input.u8() & 1 == 1 || mode == 0);
    let disk = Watched::new(&vec![0; FILE]);
    log(&disk, OLDER, older, true, &mut input);
    let log = log(&disk, NEWER, newer, idle, &mut input);
    let written = (log.used() > 0).then(|| (log.uuid(), held(&log)));
    let used = usize_of(log.used());
    let mut content = disk.content();
    let mut touched = false;
    let mut rotten = false;
    if mode == 0 {
        // Headers stand between data, so the rot keeps away from every block's checksum.
        rotten = used > 0 && rot(&mut content[..used], BLOCK, &mut input).is_some();
    } else {
        let span =
            |rest: &[u8]| usize_of(u64::from(u32::from_le_bytes(rest[64..68].try_into().unwrap())));
        touched = patch(&mut content, BLOCK, |rest| span(rest).max(BLOCK), &mut input) > 0;
    }
    Case { content, freed, written, touched, rotten }
}

/// The target.
pub fn undo(bytes: &[u8]) {
    let case = case(bytes);
    let disk = Watched::new(&case.content);
    // The damage that rot makes counts only in a log that somebody may need.
    let freed = if case.rotten { Epoch(0) } else { case.freed };
    let found = now(UndoLog::recover(disk.clone(), freed));
    // Each block may claim to begin a header of all that follows, and the search comes twice.
    let blocks = u64_of(FILE / BLOCK);
    assert!(
        disk.bytes_read() <= 3 * blocks * u64_of(FILE),
        "{} bytes were read",
        disk.bytes_read()
    );
    let log = match found {
        Err(e) => {
            assert!(matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::TooNew), "{e}");
            assert!(case.touched || case.rotten, "nothing is wrong, but: {e}");
            return;
        }
        Ok(None) => {
            assert!(case.touched || case.written.is_none(), "the log is gone");
            return;
        }
        Ok(Some(log)) => log,
    };
    if !case.touched
        && let Some((uuid, content)) = &case.written
    {
        assert_eq!(log.uuid(), *uuid);
        assert!(held(&log) == *content, "another content than was saved");
    }
    let before = (log.uuid(), log.epoch(), log.used(), held(&log));
    assert!(log.used() <= u64_of(FILE));
    let again = now(UndoLog::recover(disk.clone(), freed)).unwrap().expect("it is there");
    assert_eq!((again.uuid(), again.epoch(), again.used()), (before.0, before.1, before.2));
    assert!(held(&again) == before.3, "found again with another content");
    takes_more(&again, &disk, freed, &before.3);
}

/// A further batch is found together with what was there.
fn takes_more(log: &UndoLog<Watched>, disk: &Watched, freed: Epoch, before: &Held) {
    let volume = VolumeIndex(63);
    if !log.ranges(volume).is_empty() {
        return;
    }
    let range = ByteRange::new(CLUSTER, 2 * CLUSTER);
    let saved = Saved { volume, range, content: Content::Data(Data::copy_of(&[0x77; 4096])) };
    if !log.room_for(std::slice::from_ref(&saved)) {
        return;
    }
    now(log.append(vec![saved])).unwrap();
    let found = now(UndoLog::recover(disk.clone(), freed));
    let Ok(Some(found)) = found else { panic!("behind a further batch: {found:?}") };
    // A forged batch may now follow the further one, but the first save of a cluster stays.
    for (volume, range, bytes) in before.iter().chain([&(63, range, vec![0x77; 4096])]) {
        let mut at = 0;
        for (piece, place) in found.pieces(VolumeIndex(*volume), *range) {
            assert!(place.is_some(), "{piece} of {volume} is gone");
            let buf = Buf::new(usize_of(piece.len()));
            let (buf, result) = now(found.read(VolumeIndex(*volume), piece, buf));
            result.unwrap();
            assert!(bytes[at..at + buf.len()] == buf[..], "{piece} of {volume} has changed");
            at += buf.len();
        }
    }
}

pub(super) fn reaches(bytes: &[u8]) -> bool {
    let case = case(bytes);
    let found = now(UndoLog::recover(Watched::new(&case.content), Epoch(0)));
    if case.rotten { found.is_err() } else { matches!(found, Ok(Some(_))) }
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let head =
        |mode, older, newer, idle| Script::default().u8(mode).u8(3).u8(older).u8(newer).u8(idle);
    // The older log: from cluster 0 on, two batches of two entries each.
    let older = |s: Script| s.u8(0).u8(2).raw(&[0, 1, 3, 0]).u8(2).raw(&[2, 2, 4, 1]);
    let newer = |s: Script| s.u8(9).u8(3).raw(&[0, 1, 3, 3, 16, 0]).u8(1).raw(&[2, 0]);
    let both = |mode, idle| newer(older(head(mode, 2, 2, idle)));
    let patched = |s: Script, at: u16, bytes: &[u8]| s.u16(0).u8(1).u16(at).short(bytes).0;
    vec![
        ("recycled", both(1, 0).0),
        ("idle", both(1, 1).0),
        ("rot", both(0, 1).u32(100).raw(&[1]).0),
        ("long-header", head(1, 0, 1, 0).u8(0).u8(0).u8(255).0),
        ("known", patched(both(1, 0), 48, &[0])),
        ("moved-entry", patched(both(1, 0), 80, &(64u64 << 12).to_le_bytes())),
        ("volume", patched(both(1, 1), 96, &[9, 0])),
        // Newer batches of which the first is gone: only the one behind it proves that.
        ("first-is-gone", both(0, 1).u32(16).raw(&[255]).0),
        ("offset-unused", both(1, 1).u16(31).u8(0).u16(0).short(&ByteOffset(5).0.to_le_bytes()).0),
    ]
}
