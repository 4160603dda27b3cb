//! Whether the source names the volumes that the group has, and what is to become of the difference.
//!
//! ```text
//!   more than the group has ─┬─ can join ──► group object names it, marked as joining
//!                            ├─ not yet ───► what is waited for
//!                            └─ can't ─────► refused with the reason; the group goes on
//!   fewer ──────────────────► refused: a volume that engines have does not leave
//! ```

use understudy_core::engine::api::{LinkState, Role, Stage, VolumeId};
use understudy_core::units::GROUP_VOLUMES_MAX;
use understudy_crds::conditions::accepted;
use understudy_crds::replication_group::GroupMember;

use super::{Case, Step, adopt, begin};
use crate::desired::{Refusal, SourceVolume, signed};
use crate::store::Volume;

/// Why a volume does not join now.
enum Not {
    /// It can't.
    Ever(Refusal),
    /// This has to be first.
    Yet(String),
}

/// What the source says about the group's volumes.
#[derive(Default)]
pub(super) struct Difference<'a> {
    /// They can join.
    joins: Vec<&'a SourceVolume>,
    /// What is waited for before others can.
    waiting: Option<String>,
    /// Why what the source says is not followed.
    pub(super) refused: Option<Refusal>,
}

impl Difference<'_> {
    /// Whether there is something that joins, or will.
    pub(super) fn names_more(&self) -> bool {
        !self.joins.is_empty() || self.waiting.is_some()
    }
}

/// Compares the source with the group.
pub(super) fn compare<'a>(case: &Case<'a>) -> Difference<'a> {
    let mut all = Difference::default();
    let volumes = match &case.desired.volumes {
        Ok(volumes) => volumes,
        Err(refusal) => return Difference { refused: Some(refusal.clone()), ..all },
    };
    all.refused = shrinks(case, volumes).or_else(|| leaves(case, volumes));
    for volume in volumes.iter().filter(|v| !case.group.has(&v.member.volume)) {
        match may_join(case, volume) {
            Ok(()) => all.joins.push(volume),
            Err(Not::Yet(words)) => all.waiting = all.waiting.or(Some(words)),
            Err(Not::Ever(refusal)) => all.refused = all.refused.or(Some(refusal)),
        }
    }
    if case.group.members.len() + all.joins.len() > GROUP_VOLUMES_MAX {
        let words = format!("with what is new it would have more than {GROUP_VOLUMES_MAX} volumes");
        all.refused = Some(goes_on(&words, "take some out of the source"));
        all.joins.clear();
    }
    all
}

/// Names the volumes that can join in the group object.
pub(super) fn take_in(case: &Case<'_>, difference: &Difference<'_>) -> Step {
    let waiting = difference.waiting.clone();
    let Some(first) = difference.joins.first() else { return Step { waiting, ..Step::default() } };
    if let Some(busy) = busy(case) {
        let words = format!("{busy}, before volume {} can join", first.member.volume);
        return Step::wait(words);
    }
    Step::act(vec![case.put(|spec| {
        for volume in &difference.joins {
            let mut member =
                GroupMember::new(volume.member.volume.as_str(), signed(volume.member.size.0));
            member.joining = Some(spec.generation.clone());
            spec.left_behind.retain(|l| l.volume != member.volume);
            spec.members.push(member);
        }
    })])
}

/// What the group has to come to before a volume can join it.
fn busy(case: &Case<'_>) -> Option<String> {
    let primary = &case.primary().node;
    let Some(view) = case.primary_view().filter(|v| v.stage != Stage::None) else {
        return Some(format!("the engine of {primary}, the primary, to answer"));
    };
    if matches!(view.stage, Stage::Failover | Stage::FailoverFailed) {
        return Some("the roll-back to be merged".to_owned());
    }
    match (view.link, case.secondary()) {
        (LinkState::Syncing, _) => Some("the first checkpoint".to_owned()),
        (LinkState::Running | LinkState::Degraded, Some(side)) if case.follows(side) => None,
        // A primary alone takes nothing in: what is new is served beside it, and joins the copy that
        // follows then.
        (_, Some(side)) => {
            Some(format!("the engine of {}, the secondary, to answer and to follow", side.node))
        }
        (_, None) => Some("a copy that follows".to_owned()),
    }
}

/// Whether a volume can join, as far as it depends on the volume.
fn may_join(case: &Case<'_>, volume: &SourceVolume) -> Result<(), Not> {
    let handle = &volume.member.volume;
    match &case.observed.volumes {
        // The engine is further than the group object: an older one was put back.
        _ if case.has(case.primary(), handle) => Ok(()),
        Some(known) => match known.get(handle) {
            Some(found) => kept(case, volume, found),
            None => Err(Not::Yet(format!("the ReplicatedVolume {handle} to be there"))),
        },
        None => not_kept(case, volume),
    }
}

/// Where the CSI driver makes volumes: what its object says.
fn kept(case: &Case<'_>, volume: &SourceVolume, found: &Volume) -> Result<(), Not> {
    let (handle, primary) = (&volume.member.volume, case.primary());
    if let Some(other) = found.spec.group.as_ref().filter(|g| **g != case.group.name.as_str()) {
        let reason = accepted::SOURCE_CONFLICT;
        let what = format!("volume {handle} is in group {other}: a volume is in one group");
        let refusal = goes_on(&what, "take it out of that one first");
        return Err(Not::Ever(Refusal { reason, ..refusal }));
    }
    let (Some(node), Some(pool), Some(generation)) =
        (&found.spec.node, &found.spec.pool, found.generation)
    else {
        return Err(Not::Yet(format!("the volume {handle} to be made by the CSI driver")));
    };
    if *node != primary.node {
        return Err(Not::Ever(elsewhere(case, handle, node)));
    }
    if *pool != primary.pool {
        return Err(Not::Ever(goes_on(
            &format!("volume {handle} lies in pool {pool}, the primary in {}", primary.pool),
            &format!("give the engine of {node} its pool back, or take the volume out"),
        )));
    }
    if let Some((node, other)) = adopt::ahead(&volume.member, generation, case.observed) {
        return Err(Not::Ever(goes_on(
            &format!(
                "the replica of volume {handle} on {node} obeys generation {other}, its ReplicatedVolume \
                 says {generation}"
            ),
            "it can't join before that is settled",
        )));
    }
    let ours = case.group.generation;
    if generation.number >= ours.number {
        return Err(Not::Ever(goes_on(
            &format!(
                "volume {handle} has generation {generation}, which is not below the group's, {ours}"
            ),
            "delete this BlockReplication and ask for all volumes again: it begins above all of them",
        )));
    }
    comes_over(case, handle)
}

/// Where nobody makes volumes: what the engines have.
fn not_kept(case: &Case<'_>, volume: &SourceVolume) -> Result<(), Not> {
    let (handle, primary) = (&volume.member.volume, case.primary());
    if let Some(node) = volume.node.as_ref().filter(|node| **node != primary.node) {
        return Err(Not::Ever(elsewhere(case, handle, node)));
    }
    let left = case.group.spec.left_behind.iter().find(|l| l.volume == handle.as_str());
    if let Some(left) = left.filter(|l| l.node != primary.node) {
        return Err(Not::Ever(elsewhere(case, handle, &left.node)));
    }
    if let Some(side) = case.secondary() {
        let fits = begin::fits(volume, &side.node, case.desired, case.observed);
        fits.map_err(Not::Ever)?;
    }
    let replica = case.observed.engine(&primary.node).and_then(|e| e.replica(handle));
    match replica.filter(|r| r.size != volume.member.size) {
        Some(_) => {
            let fits = begin::fits(volume, &primary.node, case.desired, case.observed);
            fits.map_err(Not::Ever)
        }
        None => comes_over(case, handle),
    }
}

/// Whether what serves the volume on the primary's node now lets it go.
fn comes_over(case: &Case<'_>, handle: &VolumeId) -> Result<(), Not> {
    let node = &case.primary().node;
    let Some(engine) = case.observed.engine(node) else {
        return Err(Not::Yet(format!("the engine of {node}, the primary, to answer")));
    };
    let Some(replica) = engine.replica(handle) else {
        return if case.adopts() {
            Err(Not::Yet(format!("the replica of volume {handle} on {node} to be there")))
        } else {
            Ok(())
        };
    };
    let Some(view) = replica.group.as_ref().and_then(|g| engine.group(g)) else { return Ok(()) };
    let alone = view.role == Some(Role::Primary)
        && view.link == LinkState::Solo
        && matches!(view.stage, Stage::Running | Stage::Done)
        && view.generation.number < case.group.generation.number;
    if alone {
        return Ok(());
    }
    Err(Not::Ever(goes_on(
        &format!(
            "volume {handle} is in the engine's group {} on {node}, at generation {}, which is not alone, \
             not older, or still merges a roll-back",
            view.group, view.generation
        ),
        "let it end that first",
    )))
}

fn elsewhere(case: &Case<'_>, handle: &VolumeId, node: &str) -> Refusal {
    let primary = &case.primary().node;
    let left = case.group.spec.left_behind.iter().any(|l| l.volume == handle.as_str());
    let why = if left {
        format!(
            "volume {handle} was left behind on {node} when {primary} took over, for no checkpoint \
             covered it yet"
        )
    } else {
        format!("volume {handle} is on {node}, the primary is {primary}")
    };
    goes_on(
        &why,
        &format!("it joins once {node} is the primary; or take it out, and replicate it by itself"),
    )
}

/// Whether the source asks for less of a volume.
fn shrinks(case: &Case<'_>, volumes: &[SourceVolume]) -> Option<Refusal> {
    // Where the CSI driver grows volumes, the volume itself is the last to say so.
    if case.adopts() {
        return None;
    }
    let smaller = |v: &&SourceVolume| {
        let known = case.group.members.iter().find(|m| m.volume == v.member.volume)?;
        (v.member.size < known.size).then_some((v.member.clone(), known.size))
    };
    let (member, size) = volumes.iter().find_map(|v| smaller(&v))?;
    Some(Refusal::new(
        accepted::SIZE_MISMATCH,
        format!(
            "volume {} is to be {} bytes, in its group it has {size}: a volume never shrinks; ask for the \
             size it has, or a larger one",
            member.volume, member.size
        ),
    ))
}

/// Whether the source leaves a volume out. (The place for volumes that leave a running group.)
fn leaves(case: &Case<'_>, volumes: &[SourceVolume]) -> Option<Refusal> {
    let gone =
        case.group.members.iter().find(|m| !volumes.iter().any(|v| v.member.volume == m.volume))?;
    Some(goes_on(
        &format!("{} is missing from the source", gone.volume),
        "a volume can't leave a running group yet: put it back, or delete this BlockReplication and ask for \
         the others again",
    ))
}

fn goes_on(what: &str, remedy: &str) -> Refusal {
    Refusal::new(
        accepted::MEMBERS_CHANGED,
        format!("the group goes on with the volumes it has: {what}; {remedy}"),
    )
}
