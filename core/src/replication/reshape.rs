//! What changes the shape of a group while nobody has it open: volumes that join, leave, grow.
//!
//! ```text
//!   adopt   new directory: superblock (role, generation, members, what each carries) ─► published
//!           or one write of the old superblock: the same, and the next intent log
//!   leave   one write of the superblock: without the member, and the next intent log
//!   join    a group with a peer, secondary first ─► intent-N+1 with the marks of intent-N, and all of
//!           what joins ─► one write of the superblock: more members behind the others, intent-N+1
//!   let_go  what was joining at a replaced primary ─► one write: without it, and the next intent log
//!   grow    the label is larger than the superblock says ─► intent-N+1 with the marks of intent-N
//!           ─► one write of the superblock: new sizes, intent-N+1
//! ```
//!
//! Each is one atomic write of one superblock, so it has happened or not. Intent logs that do not
//! count any more go when the group is opened.

use super::group::intent_name;
use crate::bug::{Bug, bug};
use crate::disk::{Dir, Error, ErrorKind, Host, Result, Space};
use crate::overlay::{
    CommitPosition, GroupState, HISTORY_MAX, IntentLog, Member, Policy, Role, SUPERBLOCK_LEN,
    Stage, Superblock,
};
use crate::runtime::Wall;
use crate::units::{
    ByteRange, CLUSTER, Epoch, Generation, GroupId, Uuid, VolumeCount, VolumeId, VolumeIndex,
};

use super::replica::Replica;

/// What becomes of volumes that a primary takes over.
#[derive(Clone, Debug)]
pub struct TakeOver {
    /// The group that takes them.
    pub group: GroupId,
    /// The pool it lies in.
    pub pool: Uuid,
    /// Its generation; above all that the members were of.
    pub generation: Generation,
    /// Interval, limits, mode.
    pub policy: Policy,
    /// All its members from now on, with what they carry.
    pub members: Vec<Member>,
}

/// What the superblock in `dir` holds; the group is not open.
pub async fn read_state<D: Dir>(dir: &D) -> Result<GroupState> {
    Ok(open(dir).await?.1)
}

async fn open<D: Dir>(dir: &D) -> Result<(Superblock<D::Disk>, GroupState)> {
    let file = dir
        .open("superblock")
        .await?
        .ok_or_else(|| Error::own(ErrorKind::Corrupt, "the group has no superblock file"))?;
    Superblock::open(file).await
}

/// Whether a group is the primary of its volumes, alone, with no roll-back to merge: then its
/// superblock, members and disks are all there is of it. Says why not.
pub fn check_solo(s: &GroupState) -> std::result::Result<(), String> {
    let (group, why) = (&s.group, match (s.role, s.stage, &s.peer_address) {
        (Role::Primary, Stage::Running | Stage::Done, None) => return Ok(()),
        (Role::Primary, Stage::Running | Stage::Done, Some(peer)) => {
            format!("replicates to {peer}: stop it first")
        }
        (Role::Primary, Stage::Failover, _) => {
            "still merges the roll-back of its promotion: try again when its stage is Done".into()
        }
        (Role::Primary, Stage::FailoverFailed, _) => {
            "could not merge the roll-back of its promotion: see its error, ask for the failover again"
                .into()
        }
        (Role::Secondary, Stage::Running, _) => {
            "is a running secondary: its volumes belong to the primary; stop it first".into()
        }
        (Role::Primary, Stage::None, _) | (Role::Secondary | Role::None, ..) => {
            "is stopped: delete its replicas, or start it as a primary".into()
        }
    });
    Err(format!("group {group} {why}"))
}

/// Writes the superblock of a group that begins with volumes taken over, into an empty directory.
pub async fn create_over<D: Dir>(dir: &D, over: TakeOver) -> Result<()> {
    let TakeOver { group, pool, generation, policy, members } = over;
    let mut history: Vec<_> = members.iter().filter_map(|m| m.carried.last().copied()).collect();
    history.sort_by_key(|g| (g.number, g.id));
    history.dedup();
    history.drain(..history.len().saturating_sub(HISTORY_MAX));
    let state = GroupState {
        group,
        pool,
        role: Role::Primary,
        stage: Stage::Running,
        generation,
        history,
        epoch: Epoch(1),
        record: Epoch::NONE,
        record_cut: Wall::default(),
        record_done: Wall::default(),
        record_bytes: 0,
        peer_address: None,
        policy,
        inbound: false,
        error: false,
        blank: false,
        anew: false,
        joined: VolumeCount::of(members.len()),
        members,
        active: None,
        undo: Vec::new(),
        commit: CommitPosition::default(),
        intent: 0,
    };
    let file = dir.create("superblock", SUPERBLOCK_LEN, Space::Written).await?;
    Superblock::create(file, &state).await.map(drop)
}

/// Gives a solo primary the members of `over`, in its generation.
pub async fn rewrite_over<D: Dir>(dir: &D, over: TakeOver) -> Result<()> {
    let (superblock, mut state) = open(dir).await?;
    check_solo(&state).map_err(|why| Error::own(ErrorKind::NotPermitted, why))?;
    super::operate::set_generation(&mut state.generation, &mut state.history, over.generation);
    alone(&mut state);
    state.members = over.members;
    state.all_joined();
    state.policy = over.policy;
    dir.remove(&intent_name(state.intent)).await?;
    superblock.write(&state).await
}

/// Takes volumes out of a solo primary; says which are left. The group must go with its last one,
/// so nothing is written then.
pub async fn leave<D: Dir>(dir: &D, leaving: &[VolumeId]) -> Result<Vec<VolumeId>> {
    let (superblock, mut state) = open(dir).await?;
    let before = state.members.len();
    state.members.retain(|m| !leaving.contains(&m.volume));
    let left: Vec<_> = state.members.iter().map(|m| m.volume.clone()).collect();
    if left.is_empty() || left.len() == before {
        return Ok(left);
    }
    check_solo(&state).map_err(|why| Error::own(ErrorKind::NotPermitted, why))?;
    alone(&mut state);
    dir.remove(&intent_name(state.intent)).await?;
    superblock.write(&state).await?;
    Ok(left)
}

/// Gives a group with a peer more members, behind those that it has. They are joining until a record
/// covers them: the primary counts all of them as missing, the secondary saves nothing of them.
pub async fn join<D: Dir>(dir: &D, joining: Vec<Member>) -> Result<()> {
    let (superblock, state) = open(dir).await?;
    check_joinable(&state).map_err(|why| Error::own(ErrorKind::NotPermitted, why))?;
    let known = |m: &Member| state.members.iter().any(|old| old.volume == m.volume);
    let joining: Vec<_> = joining.into_iter().filter(|m| !known(m)).collect();
    if joining.is_empty() {
        return Ok(());
    }
    let mut next = state.clone();
    next.members.extend(joining);
    // Of these replicas it is not known.
    next.blank &= bug(Bug::UsedJoinsAsBlank);
    if state.role == Role::Secondary && state.record == Epoch::NONE {
        // Nothing is covered yet, so the first record covers all. A primary asks the secondary.
        next.all_joined();
    }
    next.intent = next_intent(dir, &state, &next.members).await?;
    superblock.write(&next).await
}

/// Whether volumes can join a group that has a peer; says why not.
pub fn check_joinable(s: &GroupState) -> std::result::Result<(), String> {
    let why = match (s.role, s.stage, &s.peer_address) {
        _ if s.inbound => {
            "takes writes from an NBD client, which would end with an error: stop it first"
        }
        (Role::Secondary, Stage::Running, _) | (Role::Primary, Stage::Running, Some(_)) => {
            return Ok(());
        }
        (_, Stage::Failover, _) => {
            "still merges the roll-back of its promotion: try again when its stage is Done"
        }
        (_, Stage::FailoverFailed, _) => {
            "could not merge the roll-back of its promotion: ask for the failover again first"
        }
        _ => "does not run with a peer: start it with all its volumes",
    };
    Err(format!("group {} {why}", s.group))
}

/// Takes out of a replaced primary what was joining there and is not in the group that replaced it:
/// these replicas stay as they are, in no group, for nobody else has what they hold.
pub async fn let_go<D: Dir>(dir: &D, left: usize) -> Result<()> {
    let (superblock, state) = open(dir).await?;
    if state.members.len() <= left {
        return Ok(());
    }
    if state.joined.get() > left || left == 0 {
        let text = format!(
            "group {} can't go on with {left} volumes: its checkpoint covers {}",
            state.group,
            state.joined.get()
        );
        return Err(Error::own(ErrorKind::NotPermitted, text));
    }
    let mut next = state.clone();
    next.members.truncate(left);
    next.joined = next.joined.min(VolumeCount::of(left));
    next.intent = next_intent(dir, &state, &next.members).await?;
    superblock.write(&next).await
}

/// Writes the intent log for these members: the marks of the one that counts, and all of those that it
/// does not know. Says its number; a group that has none needs none.
async fn next_intent<D: Dir>(dir: &D, state: &GroupState, members: &[Member]) -> Result<u32> {
    let Some(file) = dir.open(&intent_name(state.intent)).await? else { return Ok(state.intent) };
    let padded = |m: &Member| m.size.next_multiple_of(CLUSTER);
    let lens = |of: &[Member]| of.iter().map(padded).collect::<Vec<u64>>();
    let (old, new) = (lens(&state.members), lens(members));
    let marks = IntentLog::open(file, &old).await?;
    let number = state.intent.wrapping_add(1);
    let name = intent_name(number);
    dir.remove(&name).await?;
    let len = IntentLog::<D::Disk>::file_len(&new);
    let next = IntentLog::create(dir.create(&name, len, Space::Written).await?, &new).await?;
    let known = VolumeCount::of(old.len());
    for (v, len) in (0..).map(VolumeIndex).zip(new) {
        let ranges = if known.covers(v) { marks.marked(v) } else { vec![ByteRange::new(0, len)] };
        next.mark_many(v, ranges).await?;
    }
    Ok(number)
}

/// What is said of volumes by their number in the group no longer holds.
fn alone(state: &mut GroupState) {
    state.stage = Stage::Running;
    state.record = Epoch::NONE;
    state.undo.clear();
    state.active = None;
    state.commit = CommitPosition::default();
    state.all_joined();
    state.intent = state.intent.wrapping_add(1);
}

/// Brings what a group remembers up to replicas that were expanded.
pub(super) async fn grow<H: Host>(
    dir: &H::Dir,
    superblock: &Superblock<H::Disk>,
    state: &mut GroupState,
    replicas: &[Replica<H>],
) -> Result<()> {
    let fits = |(m, r): (&Member, &Replica<H>)| m.uuid == r.label.uuid && m.size <= r.label.size;
    let pairs = || state.members.iter().zip(replicas);
    if !pairs().all(fits) || pairs().all(|(m, r)| m.size == r.label.size) {
        // Other replicas than it names, or nothing to do: whoever opens it looks on.
        return Ok(());
    }
    let mut next = state.clone();
    for (m, r) in next.members.iter_mut().zip(replicas) {
        m.size = r.label.size;
    }
    next.intent = next_intent(dir, state, &next.members).await?;
    superblock.write(&next).await?;
    *state = next;
    Ok(())
}

/// Removes intent logs that do not count.
pub(super) async fn sweep_intents<D: Dir>(dir: &D, counts: u32) -> Result<()> {
    let counts = intent_name(counts);
    for name in dir.list().await? {
        if (name == "intent" || name.starts_with("intent-")) && name != counts {
            dir.remove(&name).await?;
        }
    }
    Ok(())
}
