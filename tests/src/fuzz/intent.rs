//! The intent log, from any bytes of its file.
//!
//! Holds: it can always be opened, unless it is newer than us; whatever was marked in a sector that
//! was not forged stays marked; it is opened again the same, and a mark made then is found.

use understudy_core::disk::ErrorKind;
use understudy_core::overlay::IntentLog;
use understudy_core::runtime::Mono;
use understudy_core::units::{ByteRange, VolumeIndex, usize_of};

use super::input::{Input, Script};
use super::seal::{is_sealed, patch, rot};
use super::watched::{Watched, now};

const SECTOR: usize = 512;
/// One sector, eight sectors, and one more: two blocks.
const LENS: [u64; 3] = [(5 << 20) + 512, 30 << 30, 1 << 20];
/// Sectors in use, and the volume that each is of.
const SECTORS: [u16; 10] = [0, 1, 1, 1, 1, 1, 1, 1, 1, 2];
/// Bytes of the volume that a sector stands for.
const SPAN: u64 = 3904 << 20;

const MARKS: [(u16, u64, u64); 4] =
    [(0, 1 << 20, 2 << 20), (1, 0, 3 << 20), (1, 17 << 30, (17 << 30) + 5), (2, 0, 1)];

fn good() -> Vec<u8> {
    let disk = Watched::new(&vec![0; usize_of(IntentLog::<Watched>::file_len(&LENS))]);
    let log = now(IntentLog::create(disk.clone(), &LENS)).unwrap();
    for (volume, start, end) in MARKS {
        now(log.mark(VolumeIndex(volume), ByteRange::new(start, end))).unwrap();
    }
    disk.content()
}

/// mode(1): 0 rot, 1 patches. The file, and the sectors that were forged.
fn content(bytes: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let mut input = Input(bytes);
    let mut content = good();
    let used = SECTORS.len() * SECTOR;
    if input.u8() == 0 {
        rot(&mut content[..used], SECTOR, &mut input);
        return (content, Vec::new());
    }
    patch(&mut content[..used], SECTOR, |_| SECTOR, &mut input);
    let was = good();
    let is_forged = |sector: &usize| {
        let place = sector * SECTOR..(sector + 1) * SECTOR;
        content[place.clone()] != was[place.clone()] && is_sealed(&content[place])
    };
    let forged = (0..SECTORS.len()).filter(is_forged).collect();
    (content, forged)
}

fn marked(log: &IntentLog<Watched>) -> Vec<Vec<ByteRange>> {
    (0..3).map(|volume| log.marked(VolumeIndex(volume))).collect()
}

/// The target.
pub fn intent(bytes: &[u8]) {
    let (content, forged) = content(bytes);
    let disk = Watched::new(&content);
    let log = match now(IntentLog::open(disk.clone(), &LENS)) {
        Ok(log) => log,
        Err(e) => {
            assert!(e.kind() == ErrorKind::TooNew && !forged.is_empty(), "{e}");
            return;
        }
    };
    for (volume, start, end) in MARKS {
        let first = SECTORS.iter().position(|v| *v == volume).unwrap();
        let sector = first + usize_of(start / SPAN);
        if !forged.contains(&sector) {
            let range = ByteRange::new(start, end);
            assert!(log.is_marked(VolumeIndex(volume), range), "{range} of {volume} is forgotten");
        }
    }
    let before = marked(&log);
    for (ranges, len) in before.iter().zip(LENS) {
        assert!(ranges.windows(2).all(|two| two[0].end < two[1].start), "{ranges:?}");
        assert!(ranges.iter().all(|r| !r.is_empty() && r.end <= len), "{ranges:?}");
    }
    let again = now(IntentLog::open(disk.clone(), &LENS)).unwrap();
    assert_eq!(marked(&again), before, "opened again");
    let range = ByteRange::new((29 << 30) + 7, (29 << 30) + (3 << 20));
    now(again.mark(VolumeIndex(1), range)).unwrap();
    again.sweep(Mono::default(), |volume, r| (volume == VolumeIndex(0)).then_some(r.end));
    now(again.commit()).unwrap();
    let last = now(IntentLog::open(disk, &LENS)).unwrap();
    assert!(last.is_marked(VolumeIndex(1), range), "a mark that was just made is gone");
    assert_eq!(last.marked(VolumeIndex(0)), before[0], "a sweep took what was to be kept");
    assert_eq!(marked(&last), marked(&again), "what was swept differs from what is stored");
}

pub(super) fn reaches(bytes: &[u8]) -> bool {
    now(IntentLog::open(Watched::new(&content(bytes).0), &LENS)).is_ok()
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let patched = |sector, how, at: u16, bytes: &[u8]| {
        Script::default().u8(1).u16(sector).u8(how).u16(at).short(bytes).0
    };
    vec![
        ("rot", Script::default().u8(0).u32(512 + 24).raw(&[7]).0),
        ("rot-magic", Script::default().u8(0).u32(512).raw(&[7]).0),
        ("marks", patched(1, 1, 24, &[255; 40])),
        ("beyond-the-end", patched(0, 1, 24, &[255; 200])),
        ("misplaced", patched(3, 1, 16, &[2])),
        ("torn", patched(4, 0, 0, &[0; 255])),
    ]
}
