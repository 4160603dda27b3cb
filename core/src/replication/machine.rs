//! Which operation is allowed in which stage: pure, one table.
//!
//! ```text
//!                start                     failover (secondary)           commit merged
//!   ┌──────┐ ───────────► ┌─────────┐ ─────────────────────► ┌──────────┐ ────────────► ┌──────┐
//!   │ None │              │ Running │                         │ Failover │               │ Done │
//!   └──────┘ ◄─────────── └─────────┘                         └──────────┘               └──────┘
//!                stop          ▲                     error │  ▲ failover again (retry)      │
//!                              │                           ▼  │                             │
//!                              │                    ┌────────────────┐                      │
//!                              └────────────────────│ FailoverFailed │      start with a peer
//!                                                   └────────────────┘ ◄── not from here    │
//!                              ▲────────────────────────────────────────────────────────────┘
//! ```
//!
//! The stages and what is ignored after a failover are those of QEMU's `block/replication.c` (since
//! 5.0). Corrected: a start that fails leaves None, a failed failover can be retried, a stop without
//! failover works.

use crate::overlay::{Role, Stage};

/// An operation of the filter, as far as the decision depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Start in a role; whether it names a peer (or inbound writers), and whether it says exactly
    /// what runs already.
    Start {
        /// It names a peer, or expects one.
        peer: bool,
        /// Role, generation and peer are those that run already.
        same: bool,
        /// A primary goes on in a later generation.
        adopt: bool,
    },
    /// Close the epoch.
    Checkpoint,
    /// Ask for the first error.
    GetError,
    /// End replication and keep both sides.
    Stop,
    /// Promote.
    Failover,
}

/// What to do with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Do it.
    Go,
    /// Say that all is well and do nothing.
    Ignore,
    /// Refuse, with this reason.
    Refuse(&'static str),
}

/// Decides. `promotable`: a checkpoint is recorded here.
#[allow(
    clippy::match_same_arms,
    reason = "a table: one line for each stage and operation, read from top to bottom"
)]
pub fn decide(role: Role, stage: Stage, promotable: bool, operation: Operation) -> Verdict {
    use Operation as Op;
    use Verdict::{Go, Ignore, Refuse};
    match (stage, operation) {
        (Stage::None | Stage::Done, Op::Start { peer: true, .. })
        | (Stage::None, Op::Start { .. }) => Go,
        (Stage::Running, Op::Start { same: true, .. }) => Ignore,
        (Stage::Running, Op::Start { peer: true, .. }) if role == Role::Primary => Go,
        (Stage::Running | Stage::Done, Op::Start { adopt: true, .. }) if role == Role::Primary => {
            Go
        }
        (Stage::Running, Op::Start { .. }) => {
            Refuse("the group runs already, with another role, generation or peer: stop it first")
        }
        // A promoted group is asked again by whoever has not heard of it: nothing to do.
        (
            Stage::Failover | Stage::Done,
            Op::Start { peer: false, .. } | Op::Checkpoint | Op::Stop | Op::GetError,
        ) => Ignore,
        (Stage::Failover, Op::Start { peer: true, .. }) => Refuse(
            "the roll-back to the checkpoint is still being merged: try again when the stage is Done",
        ),
        (Stage::Failover | Stage::Done, Op::Failover) => Ignore,
        (Stage::None, Op::Failover) if role == Role::Secondary && promotable => Go,
        (Stage::None, Op::Checkpoint | Op::GetError | Op::Stop | Op::Failover) => {
            Refuse("block replication is not running: start it first")
        }
        (Stage::Running, Op::Checkpoint | Op::GetError | Op::Stop) => Go,
        (Stage::Running, Op::Failover) => match role {
            Role::Secondary if promotable => Go,
            Role::Secondary => {
                Refuse("this replica has no checkpoint yet, so there is nothing to promote to")
            }
            Role::Primary | Role::None => {
                Refuse("only a secondary is promoted; this replica is the primary")
            }
        },
        (Stage::FailoverFailed, Op::Failover | Op::GetError) => Go,
        (Stage::FailoverFailed, Op::Start { .. } | Op::Checkpoint | Op::Stop) => Refuse(
            "the last failover could not be merged: see the error, mend its cause, ask for the failover again",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operation as Op;

    const START_PEER: Op = Op::Start { peer: true, same: false, adopt: false };
    const START_SOLO: Op = Op::Start { peer: false, same: false, adopt: false };

    #[test]
    fn before_a_start_everything_but_start_is_refused() {
        for op in [Op::Checkpoint, Op::GetError, Op::Stop, Op::Failover] {
            assert!(
                matches!(decide(Role::None, Stage::None, false, op), Verdict::Refuse(_)),
                "{op:?}"
            );
        }
        assert_eq!(decide(Role::None, Stage::None, false, START_PEER), Verdict::Go);
        assert_eq!(decide(Role::None, Stage::None, false, START_SOLO), Verdict::Go);
    }

    #[test]
    fn after_a_failover_calls_that_name_no_peer_are_ignored() {
        for stage in [Stage::Failover, Stage::Done] {
            for op in [START_SOLO, Op::Checkpoint, Op::Stop, Op::GetError, Op::Failover] {
                assert_eq!(
                    decide(Role::Primary, stage, true, op),
                    Verdict::Ignore,
                    "{stage:?} {op:?}"
                );
            }
        }
        assert_eq!(decide(Role::Primary, Stage::Done, true, START_PEER), Verdict::Go);
        assert!(matches!(
            decide(Role::Primary, Stage::Failover, true, START_PEER),
            Verdict::Refuse(_)
        ));
    }

    #[test]
    fn a_secondary_without_a_checkpoint_is_not_promoted() {
        assert!(matches!(
            decide(Role::Secondary, Stage::Running, false, Op::Failover),
            Verdict::Refuse(_)
        ));
        assert_eq!(decide(Role::Secondary, Stage::Running, true, Op::Failover), Verdict::Go);
        assert_eq!(decide(Role::Secondary, Stage::None, true, Op::Failover), Verdict::Go);
    }

    #[test]
    fn a_failed_failover_can_be_retried_and_nothing_else() {
        assert_eq!(decide(Role::Primary, Stage::FailoverFailed, true, Op::Failover), Verdict::Go);
        for op in [START_PEER, Op::Checkpoint, Op::Stop] {
            assert!(matches!(
                decide(Role::Primary, Stage::FailoverFailed, true, op),
                Verdict::Refuse(_)
            ));
        }
    }

    #[test]
    fn a_second_start_is_fine_only_if_it_says_the_same() {
        for role in [Role::Primary, Role::Secondary] {
            let same = Op::Start { peer: true, same: true, adopt: false };
            assert_eq!(decide(role, Stage::Running, true, same), Verdict::Ignore);
        }
        assert!(matches!(
            decide(Role::Secondary, Stage::Running, true, START_PEER),
            Verdict::Refuse(_)
        ));
    }
}
