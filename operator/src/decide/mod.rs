//! What to do next: pure, from what is wanted and what is there.
//!
//! ```text
//!   no group object ─► begin ─► group object ─┬─ a replica is ahead of it ──► hold
//!                                             ├─ a failover is ordered ─────► raise the generation
//!                                             ├─ the primary is behind it ──► promote
//!                                             ├─ volumes were left behind ──► let them go
//!                                             ├─ pods of before are there ──► delete them
//!                                             └─ else, as wished: run │ stop │ delete
//! ```
//!
//! Intent comes first: the group object names a replica before that replica is made or started, and
//! a generation before an engine hears of it. So whatever a killed operator has left undone follows
//! from the group object, and repeating a step changes nothing.

pub mod adopt;
pub mod begin;
pub mod behind;
pub mod conditions;
pub mod delete;
pub mod failover;
pub mod grow;
pub mod join;
pub mod leftovers;
pub mod members;
pub mod pods;
pub mod replace;
pub mod run;
pub mod status;
pub mod stop;

#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use understudy_core::engine::api::{Address, GroupStatus, Member, Role, Stage, Start, VolumeId};
use understudy_crds::conditions::ENGINES_REACHABLE;
use understudy_crds::replication_group::GroupSide;
use understudy_crds::{BlockReplicationStatus, ReplicationGroupSpec};

use crate::apply::Action;
use crate::desired::{Desired, Refusal, Wish, engine_policy};
use crate::engines::Call;
use crate::observe::Observed;
use crate::store::Group;

/// How soon to look again. Checkpoints are the engines' own business; this is how late the
/// operator notices a change at an engine.
pub const REQUEUE: Duration = Duration::from_millis(500);

/// How long a secondary may be away, or lack writes, before a stop goes on without it. Its copy then
/// keeps the checkpoint before; the primary has everything.
pub const ABANDON_AFTER: Duration = Duration::from_secs(30);

/// How long the secondary's pool may be away while another one answers at its node, or the node itself
/// while it is in no list, before a new copy is made elsewhere. A pool that is only mounted late, and a
/// node that registers anew, are back by then.
pub const RENEW_AFTER: Duration = Duration::from_mins(5);

/// What to do, and what to say.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// In this order; the first failure ends the pass.
    pub actions: Vec<Action>,
    /// What is true now, before the actions.
    pub status: BlockReplicationStatus,
    /// When to look again.
    pub requeue: Duration,
}

/// What a phase decided.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Step {
    /// What to do.
    pub actions: Vec<Action>,
    /// Why what is wanted can't be done.
    pub refused: Option<Refusal>,
    /// What is waited for.
    pub waiting: Option<String>,
    /// A replica is ahead of, or missing from, what the group object says: hands off.
    pub held: Option<String>,
    /// What became of the failover that was ordered: done or not, reason, words.
    pub failover: Option<(bool, &'static str, String)>,
}

impl Step {
    fn act(actions: Vec<Action>) -> Self {
        Self { actions, ..Self::default() }
    }

    fn wait(message: impl Into<String>) -> Self {
        Self { waiting: Some(message.into()), ..Self::default() }
    }

    fn hold(message: impl Into<String>) -> Self {
        Self { held: Some(message.into()), ..Self::default() }
    }
}

/// Decides. The same arguments give the same plan; a plan that was carried out gives an empty one.
pub fn decide(desired: &Desired, observed: &Observed, now: Timestamp) -> Plan {
    if is_changing(desired, observed) {
        return Plan { actions: Vec::new(), status: observed.status.clone(), requeue: REQUEUE };
    }
    let mut step = next(desired, observed, now);
    step.refused = desired.refused.clone().or(step.refused);
    let status = status::of(desired, observed, &step, now);
    Plan { actions: step.actions, status, requeue: REQUEUE }
}

/// Whether an engine contradicts itself: a replica of the group, and no such group. It is closed for a
/// change, and open again in a moment; what was seen is half of the truth, and nothing to act upon.
fn is_changing(desired: &Desired, observed: &Observed) -> bool {
    let engines = observed.nodes.values().filter_map(|node| node.engine.as_ref().ok());
    let mut holders = engines.filter(|engine| {
        engine.replicas.iter().any(|replica| replica.group.as_ref() == Some(&desired.group))
    });
    holders.any(|engine| engine.group(&desired.group).is_none())
}

fn next(desired: &Desired, observed: &Observed, now: Timestamp) -> Step {
    let Some(group) = &observed.group else {
        return match desired.wish {
            Wish::Run => begin::begin(desired, observed),
            Wish::Stop => Step::default(),
            Wish::Delete => delete::without_group(desired, observed),
        };
    };
    let case = Case { desired, observed, group, now };
    if desired.wish == Wish::Delete && desired.abandoned {
        return delete::abandon(&case);
    }
    if let Some(words) = ahead(&case) {
        return Step::hold(words);
    }
    let order = failover::ordered(&case);
    if !order.actions.is_empty() {
        return order;
    }
    let promotion = failover::finish(&case);
    let behind = behind::settle(&case);
    let pods = pods::pods(&case);
    let mut step = if !promotion.actions.is_empty() || promotion.held.is_some() {
        promotion
    } else if !behind.actions.is_empty() || !group.undecided().is_empty() {
        behind.clone()
    } else if pods.actions.is_empty() {
        match desired.wish {
            Wish::Run => run::run(&case),
            Wish::Stop => stop::as_asked(&case),
            Wish::Delete => delete::delete(&case),
        }
    } else {
        pods.clone()
    };
    step.waiting = step.waiting.or(behind.waiting).or(pods.waiting);
    step.failover = order.failover;
    step
}

/// A replica that obeys a generation which the group object does not know: a restored store, or a
/// group object that was lost. Never overwritten.
fn ahead(case: &Case<'_>) -> Option<String> {
    let ours = case.group.generation;
    for (node, seen) in &case.observed.nodes {
        let Some(view) = seen.engine.as_ref().ok().and_then(|e| e.group(&case.group.name)) else {
            continue;
        };
        let theirs = view.generation;
        if theirs.number > ours.number || (theirs.number == ours.number && theirs.id != ours.id) {
            return Some(format!(
                "the replica of {} on {node} obeys generation {theirs}, the group object says {ours}: \
                 nothing is touched. Put the group object that names {theirs} back, or take {node} \
                 out of the list of nodes if that replica does not count",
                case.group.name
            ));
        }
    }
    None
}

/// Everything that a phase of an existing group looks at.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// What is wanted.
    pub desired: &'a Desired,
    /// What is there.
    pub observed: &'a Observed,
    /// The group object.
    pub group: &'a Group,
    /// The time.
    pub now: Timestamp,
}

impl<'a> Case<'a> {
    fn primary(&self) -> &'a GroupSide {
        &self.group.spec.primary
    }

    fn secondary(&self) -> Option<&'a GroupSide> {
        self.group.spec.secondary.as_ref()
    }

    /// What the side's engine says of the group.
    fn view(&self, side: &GroupSide) -> Option<&'a GroupStatus> {
        self.observed.view(self.group, &side.node, &side.pool)
    }

    /// Whether the side's engine answers and is the one that is meant.
    fn answers(&self, side: &GroupSide) -> bool {
        self.observed.engine(&side.node).is_some_and(|e| e.pool.to_string() == side.pool)
    }

    /// What the primary says, if it is one under the group's generation.
    fn primary_view(&self) -> Option<&'a GroupStatus> {
        self.view(self.primary())
            .filter(|v| v.role == Some(Role::Primary) && v.generation == self.group.generation)
    }

    /// Whether no engine has ever been told of this group, as far as the group object says.
    fn never_started(&self) -> bool {
        self.primary().policy.is_none() && self.group.spec.promotion.is_none()
    }

    /// Whether the group's volumes come from, and go back to, the CSI driver.
    fn adopts(&self) -> bool {
        self.observed.volumes.is_some()
    }

    /// The members as both sides can start them now: with the sizes that the primary has, which may
    /// be about to grow, or have grown just before the group object says so.
    fn members(&self) -> Vec<Member> {
        let primary = self.observed.engine(&self.primary().node);
        let now = |m: &Member| {
            let replica = primary.and_then(|e| e.replica(&m.volume));
            Member { volume: m.volume.clone(), size: replica.map_or(m.size, |r| r.size) }
        };
        self.group.members.iter().map(now).collect()
    }

    /// The primary's address, where the secondary can hold it against the certificate that the
    /// primary proves itself with: links from anybody else are refused.
    fn proof(&self, primary: &GroupSide) -> Option<Address> {
        let link = self.observed.nodes.get(&primary.node)?.link.clone()?;
        link.to_string().starts_with("tls:").then_some(link)
    }

    /// Whether the engines have been unreachable for so long that a stop goes on without them.
    fn given_up(&self) -> bool {
        let conditions = &self.observed.status.conditions;
        conditions.iter().any(|c| {
            c.type_ == ENGINES_REACHABLE
                && c.status == "False"
                && self.is_past(c.last_transition_time.0, ABANDON_AFTER)
        })
    }

    /// Whether it is so long since then.
    fn is_past(&self, since: Timestamp, span: Duration) -> bool {
        Duration::try_from(self.now.duration_since(since)).is_ok_and(|passed| passed >= span)
    }

    /// Makes a secondary give up what it follows. One that runs takes no start under another
    /// generation, and is not deleted.
    fn give_up(&self, side: &GroupSide) -> Option<Action> {
        let view = self.view(side)?;
        (view.role == Some(Role::Secondary) && view.stage == Stage::Running).then(|| {
            let call = Call::Stop {
                group: self.group.name.clone(),
                generation: view.generation,
                abandon_peer: true,
            };
            Self::engine(&side.node, call)
        })
    }

    /// Whether the side's engine has the volume in this group.
    fn has(&self, side: &GroupSide, volume: &VolumeId) -> bool {
        let engine = self.observed.engine(&side.node).filter(|_| self.answers(side));
        let replica = engine.and_then(|e| e.replica(volume));
        replica.is_some_and(|r| r.group.as_ref() == Some(&self.group.name))
    }

    /// Whether the side follows the group's primary.
    fn follows(&self, side: &GroupSide) -> bool {
        self.view(side).is_some_and(|v| {
            v.role == Some(Role::Secondary)
                && v.generation == self.group.generation
                && v.stage == Stage::Running
        })
    }

    fn engine(node: &str, call: Call) -> Action {
        Action::Engine { node: node.to_owned(), call }
    }

    /// Changes the group object.
    fn put(&self, change: impl FnOnce(&mut ReplicationGroupSpec)) -> Action {
        let mut spec = self.group.spec.clone();
        change(&mut spec);
        Action::PutGroup { expected: Some(self.group.version.clone()), spec: Box::new(spec) }
    }

    /// Begins a role. `peer` is where the other side takes links.
    fn start(&self, node: &str, role: Role, peer: Option<Address>) -> Action {
        let adopt = role == Role::Primary && self.adopts();
        Self::engine(node, Call::Start(self.order(role, peer, join::list(self, role), adopt)))
    }

    fn order(&self, role: Role, peer: Option<Address>, members: Vec<Member>, adopt: bool) -> Start {
        Start {
            group: self.group.name.clone(),
            generation: self.group.generation,
            role,
            members,
            peer,
            policy: engine_policy(&self.desired.policy),
            inbound: false,
            adopt,
        }
    }
}
