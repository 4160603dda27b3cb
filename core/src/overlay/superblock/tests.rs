use super::*;
use std::time::Duration;

use crate::disk::{Fault, Memory};
use crate::overlay::block::seal;
use crate::runtime::{Data, Wall};
use crate::units::{ByteOffset, Epoch, Generation, Uuid, VolumeCount, VolumeIndex};
use futures::executor::block_on;

fn state(epoch: u64) -> GroupState {
    GroupState {
        group: "vm-1".parse().unwrap(),
        pool: Uuid(1),
        role: Role::Secondary,
        stage: Stage::Running,
        generation: Generation { number: 3, id: 9 },
        history: vec![Generation { number: 1, id: 4 }],
        epoch: Epoch(epoch),
        record: Epoch(epoch.saturating_sub(1)),
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
            carried: vec![Generation { number: 1, id: 4 }, Generation { number: 2, id: 5 }],
            sessions: Sessions { issued: 8, let_in: 7, bound: Generation { number: 2, id: 5 } },
            ..Member::new("pvc-1".parse().unwrap(), Uuid(5), 1 << 30)
        }],
        joined: VolumeCount(1),
        active: Some(ActiveId {
            id: Uuid(6),
            generation: Generation { number: 3, id: 9 },
            checkpoint: Epoch(2),
        }),
        undo: vec![Uuid(10), Uuid(11)],
        commit: CommitPosition { volume: VolumeIndex(0), offset: ByteOffset(8192) },
        intent: 3,
    }
}

fn largest() -> GroupState {
    let name = |n: usize| format!("{n:0>128}").parse().unwrap();
    GroupState {
        group: name(1),
        history: vec![Generation { number: 1, id: 4 }; HISTORY_MAX],
        peer_address: Some("x".repeat(1024)),
        members: (0..64)
            .map(|n| Member {
                carried: vec![Generation { number: 1, id: 4 }; CARRIED_MAX],
                ..Member::new(name(n), Uuid(5), 1 << 46)
            })
            .collect(),
        joined: VolumeCount(63),
        undo: vec![Uuid(u128::MAX); UNDO_LOGS_MAX],
        ..state(9)
    }
}

/// A disk with state 1 in slot 0 and state 2 in slot 1.
fn two() -> Memory {
    let disk = Memory::new(SUPERBLOCK_LEN, 0);
    let superblock = block_on(Superblock::create(disk.clone(), &state(1))).unwrap();
    block_on(superblock.write(&state(2))).unwrap();
    disk
}

fn poke(disk: &Memory, at: u64, bytes: &[u8]) {
    block_on(disk.write(ByteOffset(at), Data::copy_of(bytes))).unwrap();
}

fn opened(disk: &Memory) -> GroupState {
    block_on(Superblock::open(disk.clone())).unwrap().1
}

#[test]
fn a_state_reads_back_as_it_was_written_up_to_every_limit() {
    let bare = GroupState {
        peer_address: None,
        active: None,
        undo: vec![],
        members: vec![],
        joined: VolumeCount(0),
        history: vec![],
        ..state(1)
    };
    for state in [state(1), largest(), bare] {
        let disk = Memory::new(SUPERBLOCK_LEN, 0xff);
        block_on(Superblock::create(disk.clone(), &state)).unwrap();
        let (superblock, found) = block_on(Superblock::open(disk)).unwrap();
        assert_eq!(found, state);
        assert_eq!(superblock.flaw(), None);
    }
}

#[test]
fn writes_take_turns_between_the_slots_and_the_newest_counts() {
    let disk = two();
    assert_eq!(opened(&disk), state(2));
    let (superblock, _) = block_on(Superblock::open(disk.clone())).unwrap();
    for n in 3..8 {
        block_on(superblock.write(&state(n))).unwrap();
        assert_eq!(opened(&disk), state(n));
    }
}

#[test]
fn a_flipped_bit_in_any_byte_of_the_newest_slot_leads_to_the_other() {
    let disk = two();
    let good = disk.content();
    for at in SLOT_LEN..2 * SLOT_LEN {
        poke(&disk, u64_of(at), &[good[at] ^ (1 << (at % 8))]);
        let (superblock, found) = block_on(Superblock::open(disk.clone())).unwrap();
        assert_eq!(found, state(1), "byte {at}");
        assert!(superblock.flaw().is_some());
        poke(&disk, u64_of(at), &good[at..=at]);
    }
}

#[test]
fn a_slot_torn_at_any_sector_is_called_torn_and_the_other_counts() {
    let disk = two();
    let (superblock, _) = block_on(Superblock::open(disk.clone())).unwrap();
    let before = disk.content();
    block_on(superblock.write(&state(3))).unwrap();
    let after = disk.content();
    for sectors in 1..SLOT_LEN / 512 {
        poke(&disk, 0, &after[..sectors * 512]);
        poke(&disk, u64_of(sectors * 512), &before[sectors * 512..]);
        let (superblock, found) = block_on(Superblock::open(disk.clone())).unwrap();
        assert_eq!(found, state(2), "{sectors} sectors");
        assert!(superblock.flaw().unwrap().contains("torn"));
        // And the next write heals it.
        block_on(superblock.write(&state(4))).unwrap();
        assert_eq!(opened(&disk), state(4));
    }
}

#[test]
fn a_slot_in_the_wrong_place_does_not_count() {
    let disk = two();
    let content = disk.content();
    poke(&disk, 0, &content[SLOT_LEN..]);
    poke(&disk, u64_of(SLOT_LEN), &content[..SLOT_LEN]);
    let error = block_on(Superblock::open(disk)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("wrong place"), "{error}");
}

#[test]
fn two_bad_slots_or_none_are_an_error_that_says_so() {
    let blank = block_on(Superblock::open(Memory::new(SUPERBLOCK_LEN, 0))).unwrap_err();
    assert!(blank.to_string().contains("never written"), "{blank}");
    let garbage = block_on(Superblock::open(Memory::new(SUPERBLOCK_LEN, 0x5a))).unwrap_err();
    assert_eq!(garbage.kind(), ErrorKind::Corrupt);
    let short = block_on(Superblock::open(Memory::new(SUPERBLOCK_LEN - 512, 0))).unwrap_err();
    assert!(short.to_string().contains("cut off"), "{short}");
}

#[test]
fn a_newer_version_is_refused_even_beside_a_slot_of_ours() {
    let disk = two();
    let mut slot = disk.content()[SLOT_LEN..].to_vec();
    seal(&mut slot, *b"USTDSUPB", 5);
    poke(&disk, u64_of(SLOT_LEN), &slot);
    assert_eq!(block_on(Superblock::open(disk)).unwrap_err().kind(), ErrorKind::TooNew);
}

#[test]
fn random_bytes_with_a_right_checksum_are_refused_without_a_panic() {
    let mut random = crate::overlay::tests::Random::from_environment("superblock");
    for _ in 0..300 {
        let len = usize::try_from(random.below(1200)).unwrap();
        let mut payload = encode(&state(1)).unwrap();
        payload.truncate(len);
        for _ in 0..random.below(4) {
            let at = usize::try_from(random.below(u64_of(payload.len()))).unwrap();
            if let Some(byte) = payload.get_mut(at) {
                *byte = u8::try_from(random.below(256)).unwrap();
            }
        }
        if let Slot::Good(_, found) = decode(&format::slot(&payload, 0, 1), 0) {
            assert_eq!(encode(&found).unwrap(), payload);
        }
    }
}

#[test]
fn a_state_beyond_a_limit_is_refused_and_changes_nothing() {
    let disk = two();
    let (superblock, _) = block_on(Superblock::open(disk.clone())).unwrap();
    let mut large = largest();
    large.undo.push(Uuid(1));
    assert_eq!(block_on(superblock.write(&large)).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(opened(&disk), state(2));
    block_on(superblock.write(&largest())).unwrap();
    assert_eq!(opened(&disk), largest());
}

#[test]
fn after_a_write_that_failed_or_was_dropped_all_others_refuse() {
    let (disk, faults) = Fault::new(two());
    let (superblock, _) = block_on(Superblock::open(disk)).unwrap();
    faults.fail_writes(true);
    assert_eq!(block_on(superblock.write(&state(3))).unwrap_err().kind(), ErrorKind::Io);
    faults.fail_writes(false);
    assert_eq!(block_on(superblock.write(&state(3))).unwrap_err().kind(), ErrorKind::Poisoned);
}

#[test]
fn writes_come_in_the_order_of_their_calls() {
    let disk = two();
    let (superblock, _) = block_on(Superblock::open(disk.clone())).unwrap();
    let (a, b) = (superblock.write(&state(3)), superblock.write(&state(4)));
    let (b, a) = block_on(async { futures::join!(b, a) });
    a.unwrap();
    b.unwrap();
    assert_eq!(opened(&disk), state(4));
}

/// Bytes at the end that version 4 brought.
const JOINED_LEN: usize = 2;

/// Where the policy's fields behind `max_delay` are: version 3 brought them.
fn newer_policy(bytes: &[u8]) -> std::ops::Range<usize> {
    let p = Policy::default();
    let tail = [p.active_limit, p.resync_floor, p.resync_ceiling].map(u64::to_le_bytes).concat();
    let at = bytes.windows(tail.len()).position(|w| w == tail).unwrap();
    at - 1..at + tail.len()
}

/// The state that version 1 could hold, in its bytes.
fn version_1(s: &GroupState) -> (GroupState, Vec<u8>) {
    let mut old = s.clone();
    old.intent = 0;
    old.members.iter_mut().for_each(Member::begin_anew);
    let mut bytes = encode(&old).unwrap();
    bytes.truncate(bytes.len() - 4 - JOINED_LEN);
    bytes.drain(newer_policy(&bytes));
    for m in &old.members {
        let name = m.volume.as_str().as_bytes();
        let at = bytes.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 24;
        bytes.drain(at..at + 33);
    }
    (old, bytes)
}

#[test]
fn a_superblock_of_an_older_version_is_read_and_the_next_write_brings_it_up() {
    let mut version_3 = encode(&state(2)).unwrap();
    version_3.truncate(version_3.len() - JOINED_LEN);
    let mut version_2 = version_3.clone();
    version_2.drain(newer_policy(&version_2));
    let (old, version_1) = version_1(&state(2));
    let versions = [(1, version_1, old), (2, version_2, state(2)), (3, version_3, state(2))];
    for (version, payload, old) in versions {
        let mut slot = format::slot(&payload, 0, 9).to_vec();
        seal(&mut slot, *b"USTDSUPB", version);
        let disk = two();
        poke(&disk, 0, &slot);
        let (superblock, found) = block_on(Superblock::open(disk.clone())).unwrap();
        assert_eq!(found, old);
        block_on(superblock.write(&state(3))).unwrap();
        assert_eq!(opened(&disk), state(3));
    }
}

#[test]
fn the_oldest_generation_is_carried_no_longer_unless_a_device_is_bound_to_it() {
    let generation = |number| Generation { number, id: number };
    let mut m = Member::new("pvc-1".parse().unwrap(), Uuid(5), 1 << 30);
    m.sessions.bound = generation(2);
    for number in 1..=u64_of(CARRIED_MAX) + 3 {
        m.carry(generation(number));
        m.carry(generation(number));
    }
    assert_eq!(m.carried.len(), CARRIED_MAX);
    let kept: Vec<u64> = m.carried.iter().map(|g| g.number).collect();
    assert_eq!(kept, [2, 5, 6, 7, 8, 9, 10, 11]);
}

#[test]
fn a_counter_that_no_group_reaches_is_damage_and_the_next_write_has_room() {
    let disk = two();
    for counter in [u64::MAX, (1 << 62) + 1] {
        poke(&disk, u64_of(SLOT_LEN), &format::slot(&encode(&state(5)).unwrap(), 1, counter));
        let (superblock, found) = block_on(Superblock::open(disk.clone())).unwrap();
        assert_eq!(found, state(1));
        assert!(superblock.flaw().unwrap().contains("it counts"));
        block_on(superblock.write(&state(6))).unwrap();
        assert_eq!(opened(&disk), state(6));
    }
}
