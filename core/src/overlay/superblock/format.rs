//! The bytes of one slot.
//!
//! ```text
//!       0  16  sealed header, magic "USTDSUPB"; its own field: the number of the slot (0, 1)
//!      16   8  counter
//!      24   4  length of the state
//!      28   4  zero
//!      32   n  state:
//!              group         u8 length, bytes          pool          u128
//!              role, stage, inbound, error,
//!              blank, anew, mode                       u8 each
//!              generation    u64 number, u64 id        history       u8 count, generations
//!              epoch, record u64 each                  cut, done     u64 seconds, u32 nanoseconds
//!              record_bytes  u64                       peer          u16 length (0: none), bytes
//!              interval      u64, u32                  undo_limit    u64
//!              window        u64                       max_delay     u64, u32
//!              undo_full     u8                        active_limit  u64
//!              resync_floor  u64                       resync_ceiling u64
//!              members       u8 count, (u8 length, name, u128 uuid, u64 size,
//!                            u8 count, generations carried over, u64 issued, u64 let in,
//!                            generation that is bound) each
//!              active        u8 count 0..1, u128 id, generation, u64 checkpoint
//!              undo          u16 count, u128 each
//!              commit        u16 volume, u64 offset
//!              intent        u32                       joined        u16
//!       ..     zeroes
//!   32760   8  counter once more: differs from the first one when the write was torn
//! ```
//!
//! 64 members with names of 128 characters that carry 8 generations, a full history and 512 logs
//! take 30 KiB. Version 1 had neither what is carried and let in nor the number of the intent log;
//! version 2 had nothing of the policy behind max_delay; version 3 no joining volumes.

use std::time::Duration;

use super::super::block::{Fields, Flaw, put, seal, u16_at, u32_at, u64_at, verify};
use super::state::{
    ActiveId, CARRIED_MAX, CommitPosition, GroupState, HISTORY_MAX, Member, Mode, Policy, Role,
    Sessions, Stage, UNDO_LOGS_MAX, UndoFull,
};
use crate::disk::{Error, ErrorKind, Result};
use crate::runtime::{Buf, Data, Wall};
use crate::units::{
    ByteOffset, Epoch, GROUP_VOLUMES_MAX, Generation, Name, Uuid, VOLUME_MAX, VolumeCount,
    VolumeIndex, u32_of, u64_of, usize_of,
};

/// Bytes of one slot.
pub(super) const SLOT_LEN: usize = 32 << 10;

const MAGIC: [u8; 8] = *b"USTDSUPB";
const VERSION: u16 = 4;
const STATE_AT: usize = 32;
const TAIL_AT: usize = SLOT_LEN - 8;
const ADDRESS_MAX: usize = 1024;

/// The highest counter that is believed: no group writes so often, and the next one must fit too.
const COUNTER_MAX: u64 = 1 << 62;

/// What a slot turned out to be.
pub(super) enum Slot {
    /// Whole: its counter and state.
    Good(u64, Box<GroupState>),
    /// Never written.
    Blank,
    /// Anything else; the error says what.
    Bad(Error),
}

/// The whole slot around an encoded state.
pub(super) fn slot(state: &[u8], number: u16, counter: u64) -> Data {
    let mut slot = Buf::zeroed(SLOT_LEN);
    put(&mut slot, 10, &number.to_le_bytes());
    put(&mut slot, 16, &counter.to_le_bytes());
    put(&mut slot, 24, &u32_of(u64_of(state.len())).to_le_bytes());
    put(&mut slot, STATE_AT, state);
    put(&mut slot, TAIL_AT, &counter.to_le_bytes());
    seal(&mut slot, MAGIC, VERSION);
    slot.freeze()
}

/// Reads what was found in the place of slot `number`.
pub(super) fn decode(bytes: &[u8], number: u16) -> Slot {
    let what = format!("slot {number} of the group superblock");
    let corrupt = |why: &str| Slot::Bad(Error::own(ErrorKind::Corrupt, format!("{what} {why}")));
    match verify(bytes, MAGIC, VERSION) {
        Ok(()) => {}
        Err(Flaw::Blank) => return Slot::Blank,
        Err(Flaw::Checksum) if u64_at(bytes, 16) != u64_at(bytes, TAIL_AT) => {
            return corrupt("is torn: the write of it was cut off");
        }
        Err(flaw) => return Slot::Bad(flaw.error(&what)),
    }
    let stored = u16_at(bytes, 10);
    if stored != number {
        return corrupt(&format!("holds slot {stored}: the write of it went to the wrong place"));
    }
    let counter = u64_at(bytes, 16);
    if counter > COUNTER_MAX {
        return corrupt(&format!("is damaged: it counts {counter} writes"));
    }
    let len = usize_of(u64::from(u32_at(bytes, 24)));
    let Some(state) =
        STATE_AT.checked_add(len).and_then(|end| bytes.get(STATE_AT..end.min(TAIL_AT + 1)))
    else {
        return corrupt("is damaged: its length is beyond its end");
    };
    let mut fields = Fields(state);
    match read(&mut fields, u16_at(bytes, 8)) {
        Some(state) if fields.0.is_empty() => Slot::Good(counter, Box::new(state)),
        _ => corrupt("is damaged: its checksum matches, but it holds no state of a group"),
    }
}

fn read(f: &mut Fields<'_>, version: u16) -> Option<GroupState> {
    let group = name(f)?;
    let pool = Uuid(f.u128()?);
    let role = [Role::None, Role::Primary, Role::Secondary].get(usize::from(f.u8()?)).copied()?;
    let stages = [Stage::None, Stage::Running, Stage::Failover, Stage::FailoverFailed, Stage::Done];
    let stage = stages.get(usize::from(f.u8()?)).copied()?;
    let inbound = flag(f)?;
    let error = flag(f)?;
    let blank = flag(f)?;
    let anew = flag(f)?;
    let mode = [Mode::Checkpointed, Mode::Synchronous].get(usize::from(f.u8()?)).copied()?;
    let generation_now = generation(f)?;
    let history = usize::from(f.u8()?);
    let history = list(history, HISTORY_MAX, || generation(f))?;
    let epoch = Epoch(f.u64()?);
    let record = Epoch(f.u64()?);
    let record_cut = Wall(duration(f)?);
    let record_done = Wall(duration(f)?);
    let record_bytes = f.u64()?;
    let peer_address = match usize::from(f.u16()?) {
        0 => None,
        len if len <= ADDRESS_MAX => Some(std::str::from_utf8(f.bytes(len)?).ok()?.to_owned()),
        _ => return None,
    };
    let mut policy = Policy {
        mode,
        checkpoint_interval: duration(f)?,
        undo_limit: f.u64()?,
        window: f.u64()?,
        max_delay: duration(f)?,
        ..Policy::default()
    };
    if version > 2 {
        let choices = [UndoFull::KeepCheckpoint, UndoFull::DropCheckpoint];
        policy.undo_full = choices.get(usize::from(f.u8()?)).copied()?;
        policy.active_limit = f.u64()?;
        policy.resync_floor = f.u64()?;
        policy.resync_ceiling = f.u64()?;
    }
    let members = usize::from(f.u8()?);
    let members = list(members, GROUP_VOLUMES_MAX, || member(f, version))?;
    let active = match f.u8()? {
        0 => None,
        1 => Some(ActiveId {
            id: Uuid(f.u128()?),
            generation: generation(f)?,
            checkpoint: Epoch(f.u64()?),
        }),
        _ => return None,
    };
    let undo = usize::from(f.u16()?);
    let undo = list(undo, UNDO_LOGS_MAX, || f.u128().map(Uuid))?;
    let commit = CommitPosition { volume: VolumeIndex(f.u16()?), offset: ByteOffset(f.u64()?) };
    let intent = if version == 1 { 0 } else { f.u32()? };
    let all = VolumeCount::of(members.len());
    let joined = if version < 4 { all } else { VolumeCount(f.u16()?) };
    if joined > all {
        return None;
    }
    Some(GroupState {
        group,
        pool,
        role,
        stage,
        generation: generation_now,
        history,
        epoch,
        record,
        record_cut,
        record_done,
        record_bytes,
        peer_address,
        policy,
        inbound,
        error,
        blank,
        anew,
        members,
        joined,
        active,
        undo,
        commit,
        intent,
    })
}

/// `count` of them; `None` if that is beyond the limit.
fn list<T>(count: usize, limit: usize, mut next: impl FnMut() -> Option<T>) -> Option<Vec<T>> {
    if count > limit {
        return None;
    }
    (0..count).map(|_| next()).collect()
}

fn name(f: &mut Fields<'_>) -> Option<Name> {
    let len = usize::from(f.u8()?);
    std::str::from_utf8(f.bytes(len)?).ok()?.parse().ok()
}

fn flag(f: &mut Fields<'_>) -> Option<bool> {
    [false, true].get(usize::from(f.u8()?)).copied()
}

fn generation(f: &mut Fields<'_>) -> Option<Generation> {
    Some(Generation { number: f.u64()?, id: f.u64()? })
}

fn duration(f: &mut Fields<'_>) -> Option<Duration> {
    let (seconds, nanoseconds) = (f.u64()?, f.u32()?);
    (nanoseconds < 1_000_000_000).then(|| Duration::new(seconds, nanoseconds))
}

fn member(f: &mut Fields<'_>, version: u16) -> Option<Member> {
    let mut member = Member::new(name(f)?, Uuid(f.u128()?), f.u64()?);
    if version > 1 {
        let carried = usize::from(f.u8()?);
        member.carried = list(carried, CARRIED_MAX, || generation(f))?;
        member.sessions = Sessions { issued: f.u64()?, let_in: f.u64()?, bound: generation(f)? };
    }
    (member.size <= VOLUME_MAX).then_some(member)
}

/// The state as bytes, or what of it is beyond a limit.
pub(super) fn encode(s: &GroupState) -> Result<Vec<u8>> {
    let limits = [
        ("volumes", s.members.len(), GROUP_VOLUMES_MAX),
        ("joined volumes", s.joined.get(), s.members.len()),
        ("generations of history", s.history.len(), HISTORY_MAX),
        ("undo logs", s.undo.len(), UNDO_LOGS_MAX),
        (
            "bytes of the peer's address",
            s.peer_address.as_ref().map_or(0, String::len),
            ADDRESS_MAX,
        ),
    ];
    for (what, count, limit) in limits {
        if count > limit {
            let why =
                format!("group superblock of {}: {count} {what}, the limit is {limit}", s.group);
            return Err(Error::own(ErrorKind::Invalid, why));
        }
    }
    if let Some(m) = s.members.iter().find(|m| m.carried.len() > CARRIED_MAX) {
        let (volume, count) = (&m.volume, m.carried.len());
        let why =
            format!("volume {volume} carries {count} generations, the limit is {CARRIED_MAX}");
        return Err(Error::own(ErrorKind::Invalid, why));
    }
    if let Some(m) = s.members.iter().find(|m| m.size > VOLUME_MAX) {
        let why = format!("volume {} has {} bytes, the limit is {VOLUME_MAX}", m.volume, m.size);
        return Err(Error::own(ErrorKind::Invalid, why));
    }
    let mut out = Vec::with_capacity(1024);
    put_name(&mut out, &s.group);
    out.extend(s.pool.0.to_le_bytes());
    out.push(match s.role {
        Role::None => 0,
        Role::Primary => 1,
        Role::Secondary => 2,
    });
    out.push(match s.stage {
        Stage::None => 0,
        Stage::Running => 1,
        Stage::Failover => 2,
        Stage::FailoverFailed => 3,
        Stage::Done => 4,
    });
    out.extend([u8::from(s.inbound), u8::from(s.error), u8::from(s.blank), u8::from(s.anew)]);
    out.push(match s.policy.mode {
        Mode::Checkpointed => 0,
        Mode::Synchronous => 1,
    });
    put_generation(&mut out, s.generation);
    out.push(small(s.history.len()));
    s.history.iter().for_each(|g| put_generation(&mut out, *g));
    out.extend(s.epoch.0.to_le_bytes());
    out.extend(s.record.0.to_le_bytes());
    put_duration(&mut out, s.record_cut.0);
    put_duration(&mut out, s.record_done.0);
    out.extend(s.record_bytes.to_le_bytes());
    put_bytes(&mut out, s.peer_address.as_deref().unwrap_or_default().as_bytes());
    put_duration(&mut out, s.policy.checkpoint_interval);
    out.extend(s.policy.undo_limit.to_le_bytes());
    out.extend(s.policy.window.to_le_bytes());
    put_duration(&mut out, s.policy.max_delay);
    out.push(match s.policy.undo_full {
        UndoFull::KeepCheckpoint => 0,
        UndoFull::DropCheckpoint => 1,
    });
    out.extend(s.policy.active_limit.to_le_bytes());
    out.extend(s.policy.resync_floor.to_le_bytes());
    out.extend(s.policy.resync_ceiling.to_le_bytes());
    out.push(small(s.members.len()));
    for member in &s.members {
        put_name(&mut out, &member.volume);
        out.extend(member.uuid.0.to_le_bytes());
        out.extend(member.size.to_le_bytes());
        out.push(small(member.carried.len()));
        member.carried.iter().for_each(|g| put_generation(&mut out, *g));
        out.extend(member.sessions.issued.to_le_bytes());
        out.extend(member.sessions.let_in.to_le_bytes());
        put_generation(&mut out, member.sessions.bound);
    }
    out.push(u8::from(s.active.is_some()));
    if let Some(active) = s.active {
        out.extend(active.id.0.to_le_bytes());
        put_generation(&mut out, active.generation);
        out.extend(active.checkpoint.0.to_le_bytes());
    }
    put_count(&mut out, s.undo.len());
    s.undo.iter().for_each(|uuid| out.extend(uuid.0.to_le_bytes()));
    out.extend(s.commit.volume.0.to_le_bytes());
    out.extend(s.commit.offset.0.to_le_bytes());
    out.extend(s.intent.to_le_bytes());
    out.extend(s.joined.0.to_le_bytes());
    debug_assert!(STATE_AT + out.len() <= TAIL_AT, "the limits above keep it within a slot");
    Ok(out)
}

/// A count that a limit below 256 has bounded.
fn small(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}

/// A count that a limit below 65536 has bounded.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend(u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_name(out: &mut Vec<u8>, name: &Name) {
    out.push(small(name.as_str().len()));
    out.extend_from_slice(name.as_str().as_bytes());
}

fn put_generation(out: &mut Vec<u8>, g: Generation) {
    out.extend(g.number.to_le_bytes());
    out.extend(g.id.to_le_bytes());
}

fn put_duration(out: &mut Vec<u8>, d: Duration) {
    out.extend(d.as_secs().to_le_bytes());
    out.extend(d.subsec_nanos().to_le_bytes());
}
