//! The condition types of a `BlockReplication` and their reasons, each text once.
//!
//! ```text
//!   Accepted          the manifest and what it names can be obeyed
//!   EnginesReachable  the engines that hold its replicas answer, and are the ones that are meant
//!   Reconciled        the last action did not fail
//!   Protected         a failover now would bring back the last checkpoint
//!   FailedOver        what became of the failover that was ordered; absent: none was
//! ```

/// The manifest and everything it names can be obeyed.
pub const ACCEPTED: &str = "Accepted";
/// Every engine that holds a replica answers, and is the one that is meant.
pub const ENGINES_REACHABLE: &str = "EnginesReachable";
/// The last action did not fail.
pub const RECONCILED: &str = "Reconciled";
/// The secondary has a complete checkpoint and checkpoints go on.
pub const PROTECTED: &str = "Protected";
/// What became of the failover that was ordered.
pub const FAILED_OVER: &str = "FailedOver";

/// Reasons of [`ACCEPTED`].
pub mod accepted {
    /// It can be obeyed.
    pub const ACCEPTED: &str = "Accepted";
    /// Unknown, mistyped or contradictory fields.
    pub const INVALID_MANIFEST: &str = "InvalidManifest";
    /// A claim or virtual machine that does not exist.
    pub const SOURCE_NOT_FOUND: &str = "SourceNotFound";
    /// A claim or virtual machine that can't be used.
    pub const SOURCE_UNUSABLE: &str = "SourceUnusable";
    /// A claim that has no volume yet.
    pub const CLAIM_NOT_BOUND: &str = "ClaimNotBound";
    /// A claim whose volume another driver made.
    pub const NOT_OURS: &str = "NotOurs";
    /// A volume that another BlockReplication replicates.
    pub const SOURCE_CONFLICT: &str = "SourceConflict";
    /// A replica whose size is not the volume's.
    pub const SIZE_MISMATCH: &str = "SizeMismatch";
    /// The list of volumes is not the group's.
    pub const MEMBERS_CHANGED: &str = "MembersChanged";
    /// A node that nobody has told us of.
    pub const UNKNOWN_NODE: &str = "UnknownNode";
    /// The node takes no links.
    pub const NODE_HAS_NO_LINK: &str = "NodeHasNoLink";
    /// It can't be told which replica serves the VM.
    pub const PRIMARY_UNKNOWN: &str = "PrimaryUnknown";
    /// Another primary is named than the group has: only a failover changes it.
    pub const PRIMARY_CHANGED: &str = "PrimaryChanged";
    /// It can't be told where the copy is to be.
    pub const SECONDARY_UNKNOWN: &str = "SecondaryUnknown";
}

/// Reasons of [`ENGINES_REACHABLE`].
pub mod engines {
    /// They answer.
    pub const REACHABLE: &str = "Reachable";
    /// One does not answer.
    pub const UNREACHABLE: &str = "EngineUnreachable";
    /// Another pool answers at a node's address.
    pub const WRONG_POOL: &str = "WrongPool";
}

/// Reasons of [`RECONCILED`].
pub mod reconciled {
    /// Nothing is left to do.
    pub const SETTLED: &str = "Settled";
    /// Something is being done, or waited for.
    pub const PROGRESSING: &str = "Progressing";
    /// An action failed; it is tried again.
    pub const ACTION_FAILED: &str = "ActionFailed";
    /// A replica is ahead of the group object: nothing is touched until a person decides.
    pub const REPLICA_AHEAD: &str = "ReplicaAhead";
}

/// Reasons of [`PROTECTED`].
pub mod protected {
    /// Checkpoints complete.
    pub const RUNNING: &str = "Running";
    /// The secondary has no checkpoint yet.
    pub const SYNCING: &str = "Syncing";
    /// The secondary has a checkpoint but lacks writes of the open epoch.
    pub const DEGRADED: &str = "Degraded";
    /// The primary has no secondary.
    pub const SOLO: &str = "Solo";
    /// Stopped, as asked.
    pub const STOPPED: &str = "Stopped";
    /// Not started yet.
    pub const NOT_STARTED: &str = "NotStarted";
    /// The primary's engine does not answer: fail over, or bring it back.
    pub const PRIMARY_UNREACHABLE: &str = "PrimaryUnreachable";
}

/// Reasons of [`FAILED_OVER`].
pub mod failed_over {
    /// The generation was raised; the target is being promoted.
    pub const PROMOTING: &str = "Promoting";
    /// It serves; the roll-back is being merged.
    pub const MERGING: &str = "Merging";
    /// It serves, and the roll-back is merged.
    pub const PROMOTED: &str = "Promoted";
    /// The merge failed; it is tried again and the volumes can be used meanwhile.
    pub const MERGE_FAILED: &str = "MergeFailed";
    /// The order names a generation that is not the group's.
    pub const STALE_GENERATION: &str = "StaleGeneration";
    /// The order names a node that is not the secondary.
    pub const NOT_THE_SECONDARY: &str = "TargetIsNotSecondary";
    /// The target's engine does not answer.
    pub const TARGET_UNREACHABLE: &str = "TargetUnreachable";
    /// The target has no complete checkpoint.
    pub const NOTHING_TO_PROMOTE: &str = "NothingToPromote";
}
