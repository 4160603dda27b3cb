//! What is wanted of one group, parsed: everything here can be obeyed, or says why it can't.

use std::fmt;

use understudy_core::engine::api::{Generation, GroupId, Member, Mode, Policy, UndoFull};
use understudy_core::units::ByteLen;
use understudy_crds::BlockReplication;
use understudy_crds::block_replication::{DesiredState, ReplicationMode, WhenUndoFull};
use understudy_crds::conditions::accepted;
use understudy_crds::replication_group::{AppliedPolicy, Owner};

/// Namespace and name of a `BlockReplication`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectName {
    /// The name of its group. A namespace holds no dot, so two objects never share one.
    pub fn group(&self) -> Result<GroupId, Refusal> {
        format!("{}.{}", self.namespace, self.name).parse().map_err(|_| {
            Refusal::new(
                accepted::INVALID_MANIFEST,
                format!(
                    "namespace and name of {self} are too long together: at most 127 characters"
                ),
            )
        })
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl From<&Owner> for ObjectName {
    fn from(owner: &Owner) -> Self {
        Self { namespace: owner.namespace.clone(), name: owner.name.clone() }
    }
}

/// Why something that is asked for can't be done, and the remedy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// One of the reasons of the condition `Accepted`.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What is to become of the group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Replicate.
    Run,
    /// A last checkpoint, then no more; the copy stays.
    Stop,
    /// The `BlockReplication` is gone: stop, and the copy goes too.
    Delete,
}

/// A volume of the source, resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceVolume {
    /// Its handle and size.
    pub member: Member,
    /// Where it was born, where that is known.
    pub node: Option<String>,
}

/// The order to fail over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FailoverOrder {
    /// The generation to replace.
    pub replace: Generation,
    /// The node that takes over.
    pub target: String,
}

/// What is wanted of one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Desired {
    /// Whose group it is.
    pub name: ObjectName,
    /// The group.
    pub group: GroupId,
    /// The metadata.generation that says so.
    pub observed_generation: Option<i64>,
    /// What is to become of it.
    pub wish: Wish,
    /// Its volumes, or why they can't be told. A group that exists goes on without.
    pub volumes: Result<Vec<SourceVolume>, Refusal>,
    /// How to replicate.
    pub policy: AppliedPolicy,
    /// The text of a one-shot checkpoint.
    pub checkpoint_trigger: Option<String>,
    /// Where the primary is to begin.
    pub primary: Option<String>,
    /// Where the copy is to be.
    pub secondary: Option<String>,
    /// The order to fail over.
    pub failover: Option<FailoverOrder>,
    /// It is to end without any engine being asked.
    pub abandoned: bool,
    /// The manifest has become one that can't be obeyed: this is what it said before.
    pub refused: Option<Refusal>,
}

impl Desired {
    /// Parses a manifest whose volumes were resolved.
    pub fn parse(
        object: &BlockReplication,
        volumes: Result<Vec<SourceVolume>, Refusal>,
    ) -> Result<Self, Refusal> {
        let metadata = &object.metadata;
        let name = ObjectName {
            namespace: metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            name: metadata.name.clone().unwrap_or_default(),
        };
        let spec = &object.spec;
        let failover = match &spec.failover.trigger {
            None => None,
            Some(trigger) => Some(FailoverOrder {
                replace: trigger.generation.parse().map_err(|e| {
                    Refusal::new(accepted::INVALID_MANIFEST, format!("spec.failover.trigger: {e}"))
                })?,
                target: trigger.target.clone(),
            }),
        };
        let policy = &spec.checkpoint;
        Ok(Self {
            group: name.group()?,
            name,
            observed_generation: metadata.generation,
            wish: match spec.state {
                DesiredState::Running => Wish::Run,
                DesiredState::Stopped => Wish::Stop,
            },
            volumes,
            policy: AppliedPolicy {
                synchronous: spec.mode == ReplicationMode::Synchronous,
                interval_millis: millis(policy.interval.duration()),
                undo_limit_bytes: signed(policy.undo_limit.bytes()),
                window_bytes: signed(policy.window.bytes()),
                max_delay_millis: millis(policy.max_delay.duration()),
                drop_checkpoint: policy.when_undo_full == WhenUndoFull::DropCheckpoint,
                active_limit_bytes: signed(policy.active_limit.bytes()),
                resync_floor_bytes: signed(spec.resync.floor.bytes()),
                resync_ceiling_bytes: spec.resync.ceiling.as_ref().map_or(0, |c| signed(c.bytes())),
            },
            checkpoint_trigger: policy.trigger.clone(),
            primary: spec.primary.as_ref().map(|p| p.node.clone()),
            secondary: spec.secondary.as_ref().map(|p| p.node.clone()),
            failover,
            abandoned: false,
            refused: None,
        })
    }
}

/// A policy as the engine's client takes it.
pub fn engine_policy(policy: &AppliedPolicy) -> Policy {
    let some = |bytes| Some(ByteLen(unsigned(bytes))).filter(|b| b.0 > 0);
    let span = |millis| std::time::Duration::from_millis(unsigned(millis));
    Policy {
        mode: if policy.synchronous { Mode::Synchronous } else { Mode::Checkpointed },
        checkpoint_interval: Some(span(policy.interval_millis)).filter(|i| !i.is_zero()),
        undo_limit: Some(ByteLen(unsigned(policy.undo_limit_bytes))),
        window: Some(ByteLen(unsigned(policy.window_bytes))),
        max_delay: Some(span(policy.max_delay_millis)),
        undo_full: if policy.drop_checkpoint {
            UndoFull::DropCheckpoint
        } else {
            UndoFull::KeepCheckpoint
        },
        active_limit: some(policy.active_limit_bytes),
        resync_floor: some(policy.resync_floor_bytes),
        resync_ceiling: some(policy.resync_ceiling_bytes),
    }
}

/// As the API writes counts; saturates far above any real one.
pub fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Back from the API; what is below zero was never written by us.
pub fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn millis(span: std::time::Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
