//! The group superblock, from any bytes in its two slots.
//!
//! Holds: what is opened is opened again the same, can be written elsewhere and read back, and takes
//! the next write, which then counts. Rot in a slot leads to the other one, never to another state.

use std::time::Duration;

use understudy_core::disk::ErrorKind;
use understudy_core::overlay::{
    ActiveId, CommitPosition, GroupState, Member, Policy, Role, SUPERBLOCK_LEN, Sessions, Stage,
    Superblock,
};
use understudy_core::runtime::Wall;
use understudy_core::units::{ByteOffset, Epoch, Generation, Uuid, VolumeCount, VolumeIndex};

use super::input::{Input, Script};
use super::seal::{patch, rot, seal};
use super::watched::{Watched, now};

const SLOT: usize = 32 << 10;
const STATE_AT: usize = 32;
const TAIL_AT: usize = SLOT - 8;

fn generation(number: u64) -> Generation {
    Generation { number, id: number * 3 }
}

fn sample(epoch: u64) -> GroupState {
    GroupState {
        group: "vm-1".parse().unwrap(),
        pool: Uuid(1),
        role: Role::Secondary,
        stage: Stage::Running,
        generation: generation(3),
        history: vec![generation(1), generation(2)],
        epoch: Epoch(epoch),
        record: Epoch(epoch - 1),
        record_cut: Wall(Duration::from_millis(1500)),
        record_done: Wall(Duration::from_millis(1501)),
        record_bytes: 77,
        peer_address: Some("tcp:b:7000".to_owned()),
        policy: Policy::default(),
        inbound: false,
        error: true,
        blank: false,
        anew: true,
        members: vec![Member {
            carried: vec![generation(1)],
            sessions: Sessions { issued: 8, let_in: 7, bound: generation(2) },
            ..Member::new("pvc-1".parse().unwrap(), Uuid(5), 1 << 30)
        }],
        joined: VolumeCount(1),
        active: Some(ActiveId { id: Uuid(6), generation: generation(3), checkpoint: Epoch(2) }),
        undo: vec![Uuid(10), Uuid(11)],
        commit: CommitPosition { volume: VolumeIndex(0), offset: ByteOffset(8192) },
        intent: 3,
    }
}

/// State 1 in slot 0, state 2 in slot 1.
fn two() -> Vec<u8> {
    let disk = Watched::new(&vec![0; usize::try_from(SUPERBLOCK_LEN).unwrap()]);
    let superblock = now(Superblock::create(disk.clone(), &sample(1))).unwrap();
    now(superblock.write(&sample(2))).unwrap();
    disk.content()
}

/// A whole slot: number(1) version(1) counter(8) state(2 + n).
fn slot(input: &mut Input<'_>) -> Vec<u8> {
    let mut slot = vec![0; SLOT];
    let (number, version, counter) = (input.u8(), input.u8(), input.u64());
    let state = input.bytes();
    let state = &state[..state.len().min(TAIL_AT - STATE_AT)];
    slot[..8].copy_from_slice(b"USTDSUPB");
    slot[8] = version;
    slot[10] = number;
    slot[16..24].copy_from_slice(&counter.to_le_bytes());
    slot[24..28].copy_from_slice(&u32::try_from(state.len()).unwrap().to_le_bytes());
    slot[STATE_AT..STATE_AT + state.len()].copy_from_slice(state);
    slot[TAIL_AT..].copy_from_slice(&counter.to_le_bytes());
    seal(&mut slot);
    slot
}

/// mode(1): 0 rot; 1 patches to good slots; 2 whole slots with any state; else raw bytes at an offset.
fn content(bytes: &[u8]) -> (Vec<u8>, Option<usize>) {
    let mut input = Input(bytes);
    let mut content = two();
    let mut rotten = None;
    match input.u8() {
        0 => rotten = rot(&mut content, SLOT, &mut input),
        1 => _ = patch(&mut content, SLOT, |_| SLOT, &mut input),
        2 => {
            content[..SLOT].copy_from_slice(&slot(&mut input));
            content[SLOT..].copy_from_slice(&slot(&mut input));
        }
        _ => {
            let at = usize::from(input.u16());
            content[at..].iter_mut().zip(input.rest()).for_each(|(to, from)| *to = *from);
        }
    }
    (content, rotten)
}

/// The target.
pub fn superblock(bytes: &[u8]) {
    let (content, rotten) = content(bytes);
    let disk = Watched::new(&content);
    let (superblock, state) = match now(Superblock::open(disk.clone())) {
        Ok(opened) => opened,
        Err(e) => {
            assert!(matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::TooNew), "{e}");
            assert!(rotten.is_none(), "the other slot is whole, but: {e}");
            return;
        }
    };
    if let Some(slot) = rotten {
        let other = sample(if slot == 1 { 1 } else { 2 });
        assert_eq!(state, other, "rot in slot {slot}");
        assert!(superblock.flaw().is_some());
    }
    assert_eq!(now(Superblock::open(disk.clone())).unwrap().1, state, "opened again");
    let elsewhere = Watched::new(&vec![0xff; content.len()]);
    now(Superblock::create(elsewhere.clone(), &state)).unwrap();
    assert_eq!(now(Superblock::open(elsewhere)).unwrap().1, state, "written elsewhere");
    now(superblock.write(&sample(9))).unwrap();
    assert_eq!(now(Superblock::open(disk)).unwrap().1, sample(9), "the next write counts");
}

pub(super) fn reaches(bytes: &[u8]) -> bool {
    now(Superblock::open(Watched::new(&content(bytes).0))).is_ok()
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let good = two();
    let len = usize::try_from(u32::from_le_bytes(good[24..28].try_into().unwrap())).unwrap();
    let state = &good[STATE_AT..STATE_AT + len];
    let version = good[8];
    let slot = |s: Script, number, counter| s.u8(number).u8(version).u64(counter).bytes(state);
    let first = slot(Script::default().u8(2), 0, 5);
    let patched = Script::default().u8(1).u16(1).u8(1);
    vec![
        ("rot-newest", Script::default().u8(0).u32(32768 + 40).raw(&[1, 2, 3, 4]).0),
        ("rot-older", Script::default().u8(0).u32(16).raw(&[255]).0),
        ("slots", slot(first.clone(), 1, 6).0),
        ("one-slot", first.0),
        ("patched-epoch", patched.u16(120).short(&[1]).0),
        ("torn", Script::default().u8(3).u16(0).raw(&[0; 600]).0),
    ]
}
