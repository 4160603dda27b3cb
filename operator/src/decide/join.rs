//! A volume joins a running group.
//!
//! ```text
//!   the source names it ─► members: group object names it, marked as joining in this generation
//!     ─► adopt: its ReplicatedVolume names the group
//!     ─► secondary: replica made, started with the longer list
//!     ─► primary: started with the longer list; what it has alone comes over into the group
//!     ─► sent, named by a checkpoint, recorded ─► group object: the mark goes
//! ```
//!
//! The secondary is first, so that no primary ever has a volume that its secondary refuses. Until the
//! mark goes a failover leaves the volume behind (see `behind`).

use understudy_core::engine::api::{GroupStatus, LinkState, Member, Role, Stage};
use understudy_crds::block_replication_status::JoiningStatus;
use understudy_crds::replication_group::GroupSide;

use super::{Case, Step, adopt};
use crate::apply::Action;
use crate::desired::signed;
use crate::engines::Call;
use crate::store::Group;

/// What a side is started with, other than to let volumes join: what checkpoints cover, and of those
/// that join what is in the engines' groups already.
pub(super) fn list(case: &Case<'_>, role: Role) -> Vec<Member> {
    let (primary, secondary) = (case.primary(), case.secondary());
    let reached = |m: &Member| {
        !case.group.joins(&m.volume)
            || case.has(primary, &m.volume)
            || (role == Role::Secondary && secondary.is_some_and(|s| case.has(s, &m.volume)))
    };
    let mut members = case.members();
    members.truncate(members.iter().rposition(reached).map_or(0, |last| last + 1));
    members
}

/// Takes back what was to join and is not wanted any more, or can't: as long as no engine has it.
pub(super) fn withdraw(case: &Case<'_>) -> Step {
    let (primary, secondary) = (case.primary(), case.secondary());
    let Ok(wanted) = &case.desired.volumes else { return Step::default() };
    if !case.answers(primary) || secondary.is_some_and(|s| !case.answers(s)) {
        return Step::default();
    }
    let joining = case.group.joining();
    let on_any = |m: &&Member| {
        case.has(primary, &m.volume) || secondary.is_some_and(|s| case.has(s, &m.volume))
    };
    let first = joining.iter().rposition(on_any).map_or(0, |last| last + 1);
    for member in joining.into_iter().skip(first) {
        let volume = case.observed.volumes.as_ref().map(|known| known.get(&member.volume));
        let lost = volume.is_some_and(|v| {
            v.is_none_or(|v| {
                let other = v.spec.group.as_deref().is_some_and(|g| g != case.group.name.as_str());
                other || v.spec.node.as_ref() != Some(&primary.node)
            })
        });
        if !lost && wanted.iter().any(|w| w.member.volume == member.volume) {
            continue;
        }
        let mut actions: Vec<_> = adopt::let_go(case, &member.volume).into_iter().collect();
        actions.push(case.put(|spec| {
            spec.members.retain(|m| m.volume != member.volume.as_str());
        }));
        return Step::act(actions);
    }
    Step::default()
}

/// Brings the volumes that join into both engines' groups, and takes the mark off those that
/// checkpoints cover.
pub(super) fn enter(case: &Case<'_>) -> Step {
    let joining = case.group.joining();
    let Some(first) = joining.first() else { return Step::default() };
    let primary = case.primary();
    let Some(view) = case.primary_view().filter(|v| v.stage != Stage::None) else {
        return Step::wait(format!("the engine of {}, the primary, to answer", primary.node));
    };
    if matches!(view.stage, Stage::Failover | Stage::FailoverFailed) {
        return Step::wait(format!(
            "the roll-back to be merged, before volume {} can join",
            first.volume
        ));
    }
    let lacks = |side: &GroupSide| joining.iter().any(|m| !case.has(side, &m.volume));
    let copy = case.secondary().filter(|s| view.link != LinkState::Solo && case.follows(s));
    let link = copy.and_then(|s| case.observed.nodes.get(&s.node)?.link.clone());
    let (Some(copy), Some(link)) = (copy, link) else {
        return Step::wait(format!("a copy that follows, before volume {} can join", first.volume));
    };
    let mut actions = Vec::new();
    if lacks(primary) {
        match made(case, &joining) {
            Ok(made) => actions.extend(made),
            Err(words) => return Step::hold(words),
        }
    }
    if lacks(copy) {
        actions.extend(prepare(case, copy));
        let order = case.order(Role::Secondary, case.proof(primary), case.members(), false);
        actions.push(Case::engine(&copy.node, Call::Start(order)));
    }
    if lacks(primary) {
        let order = case.order(Role::Primary, Some(link), case.members(), true);
        actions.push(Case::engine(&primary.node, Call::Start(order)));
    }
    if !actions.is_empty() {
        return Step::act(actions);
    }
    let covered = |volume: &str| !view.joining.iter().any(|v| v.as_str() == volume);
    if joining.iter().any(|m| covered(m.volume.as_str())) {
        return Step::act(vec![case.put(|spec| {
            for member in spec.members.iter_mut().filter(|m| covered(&m.volume)) {
                member.joining = None;
            }
        })]);
    }
    Step { waiting: Some(waiting(&progress(case.group, Some(view)))), ..Step::default() }
}

/// Makes room for new replicas on a side, and makes them.
fn prepare(case: &Case<'_>, side: &GroupSide) -> Vec<Action> {
    let (mut actions, cleared) = adopt::clear(case, side);
    let engine = case.observed.engine(&side.node);
    let lacking = case.members().into_iter().filter(|m| {
        cleared.iter().any(|c| c.volume == m.volume)
            || engine.is_some_and(|e| e.replica(&m.volume).is_none())
    });
    actions.extend(lacking.map(|m| Case::engine(&side.node, Call::CreateReplica(m))));
    actions
}

/// Where no CSI driver makes volumes: the primary's replica of a volume that never was anywhere. Or why
/// none is made.
fn made(case: &Case<'_>, joining: &[&Member]) -> Result<Vec<Action>, String> {
    let primary = case.primary();
    let engine = case.observed.engine(&primary.node);
    let lacking = joining.iter().filter(|m| engine.is_some_and(|e| e.replica(&m.volume).is_none()));
    let mut actions = Vec::new();
    for member in lacking {
        let begun = case.secondary().is_some_and(|s| case.has(s, &member.volume));
        if case.adopts() || begun {
            return Err(format!(
                "{}, the primary, has lost the replica of {}, which joins {}: give its engine its pool \
                 back, or fail over",
                primary.node, member.volume, case.group.name
            ));
        }
        actions.push(Case::engine(&primary.node, Call::CreateReplica((*member).clone())));
    }
    Ok(actions)
}

/// How far each volume that joins has come, by the word of the primary.
pub(super) fn progress(group: &Group, view: Option<&GroupStatus>) -> Vec<JoiningStatus> {
    let joining = group.joining();
    let begun = |m: &&&Member| view.is_some_and(|v| v.joining.contains(&m.volume));
    let all: u64 = joining.iter().filter(begun).map(|m| m.size.0).sum();
    // What the others lack is counted among it: never more than a moment's writes while all is well.
    let missing = view.map_or(0, |v| v.missing.0.min(all));
    let percent = (u128::from(all - missing) * 100).checked_div(u128::from(all));
    let percent = percent.map(|p| signed(u64::try_from(p).unwrap_or(0)));
    let one = |m: &&Member| JoiningStatus {
        volume: m.volume.to_string(),
        sent_percent: percent.filter(|_| begun(&m)),
    };
    joining.iter().map(one).collect()
}

/// What joins and how far it is, in words.
pub(super) fn words(joining: &[JoiningStatus]) -> Option<String> {
    let (whose, what) = match joining {
        [] => return None,
        [_] => ("joins", "it"),
        _ => ("join", "them"),
    };
    Some(format!(
        "{} {whose}: {}, a failover now would leave {what} behind",
        names(joining),
        sent(joining)
    ))
}

fn waiting(joining: &[JoiningStatus]) -> String {
    format!("a checkpoint that covers {}: {}", names(joining), sent(joining))
}

/// `volume x`, or `volumes x, y`.
pub(super) fn names(joining: &[JoiningStatus]) -> String {
    let all: Vec<_> = joining.iter().map(|j| j.volume.as_str()).collect();
    format!("volume{} {}", if all.len() == 1 { "" } else { "s" }, all.join(", "))
}

fn sent(joining: &[JoiningStatus]) -> String {
    match joining.iter().find_map(|j| j.sent_percent) {
        Some(percent) => format!("{percent} % sent"),
        None => "nothing sent yet".to_owned(),
    }
}
