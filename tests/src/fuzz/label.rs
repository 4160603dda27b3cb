//! The label of a replica, from any block.
//!
//! Holds: a label that is read is written and read back as it is; rot is never read.

use understudy_core::disk::ErrorKind;
use understudy_core::overlay::{LABEL_LEN, Label};
use understudy_core::units::{NAME_MAX, Uuid, VOLUME_MAX};

use super::input::{Input, Script};
use super::seal::{patch, rot};
use super::watched::{Watched, now};

fn sample() -> Label {
    let volume = "pvc-1".parse().unwrap();
    Label { uuid: Uuid(7 << 80), volume, size: 1 << 30, grown_from: 1 << 29 }
}

/// mode(1): 0 rot, 1 patches to a good block, else the block itself.
fn block(bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut input = Input(bytes);
    let mut block = sample().encode().to_vec();
    let size = block.len();
    let rotten = match input.u8() {
        0 => rot(&mut block, size, &mut input).is_some(),
        1 => {
            patch(&mut block, size, |_| size, &mut input);
            false
        }
        _ => {
            block = input.rest().to_vec();
            false
        }
    };
    (block, rotten)
}

/// The target.
pub fn label(bytes: &[u8]) {
    let (block, rotten) = block(bytes);
    match Label::decode(&block) {
        Ok(label) => {
            assert!(!rotten, "rot was taken for {label:?}");
            assert!(label.size <= VOLUME_MAX && label.volume.as_str().len() <= NAME_MAX);
            assert!(label.grown_from <= label.size, "grown from more than it has: {label:?}");
            let disk = Watched::new(&vec![0xff; usize::try_from(LABEL_LEN).unwrap()]);
            now(label.write(&disk)).unwrap();
            assert_eq!(now(Label::read(&disk)).unwrap(), label);
        }
        Err(e) => assert!(matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::TooNew), "{e}"),
    }
}

pub(super) fn reaches(bytes: &[u8]) -> bool {
    Label::decode(&block(bytes).0).is_ok() == (bytes.first() != Some(&0))
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let patched =
        |at: u16, bytes: &[u8]| Script::default().u8(1).u16(0).u8(1).u16(at).short(bytes).0;
    vec![
        ("rot", Script::default().u8(0).u32(41).raw(&[1, 0, 0, 0]).0),
        ("name", patched(40, b"\x03abc")),
        ("size", patched(32, &(2u64 << 30).to_le_bytes())),
        ("raw", Script::default().u8(2).raw(&sample().encode()).0),
    ]
}
