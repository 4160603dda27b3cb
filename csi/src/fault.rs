//! What can go wrong in a call, and the tables of how it is said.
//!
//! ```text
//!   bad request ──────────────► Invalid, OutOfRange ─┐
//!   ReplicatedVolume objects ─► NotFound, Busy, ...  ├─► Problem ──► gRPC code        one table
//!   engine, attach: Refusal × call ── one table ─────┘      text: names the thing and the remedy
//! ```
//!
//! What the callers make of a code: the provisioner lets the scheduler choose another node after
//! RESOURCE_EXHAUSTED; the resizer gives up after INVALID_ARGUMENT, OUT_OF_RANGE and NOT_FOUND;
//! everything else is tried again, with growing pauses.

use tonic::{Code, Status};
use understudy_core::engine::api::Refusal;
use understudy_core::engine::attach::client::AttachError;
use understudy_core::engine::client::ClientError;

/// The kinds of failure that CSI tells apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Problem {
    /// The request is bad, whatever the state.
    Invalid,
    /// There is no such volume, path or token.
    NotFound,
    /// There is one of that name, but different.
    Exists,
    /// Another operation on the volume is under way, or has changed it meanwhile.
    Busy,
    /// The state forbids it; somebody must do something first.
    WrongState,
    /// No such size.
    OutOfRange,
    /// No space, or a limit is reached: another node may do.
    Exhausted,
    /// Somebody did not answer; try again.
    Unavailable,
    /// What is stored is damaged.
    DataLoss,
    /// A failure without a word of its own.
    Internal,
}

impl Problem {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Invalid,
        Self::NotFound,
        Self::Exists,
        Self::Busy,
        Self::WrongState,
        Self::OutOfRange,
        Self::Exhausted,
        Self::Unavailable,
        Self::DataLoss,
        Self::Internal,
    ];

    /// As gRPC says it.
    pub fn code(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::Exists => Code::AlreadyExists,
            Self::Busy => Code::Aborted,
            Self::WrongState => Code::FailedPrecondition,
            Self::OutOfRange => Code::OutOfRange,
            Self::Exhausted => Code::ResourceExhausted,
            Self::Unavailable => Code::Unavailable,
            Self::DataLoss => Code::DataLoss,
            Self::Internal => Code::Internal,
        }
    }
}

/// The calls in which an engine or the attach daemon is asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Asked {
    /// CreateVolume: a replica, and a group of its own.
    Create,
    /// DeleteVolume: the replica.
    Delete,
    /// ControllerExpandVolume: each replica.
    Expand,
    /// GetCapacity: the pool.
    Capacity,
    /// NodeStageVolume and NodePublishVolume: the device.
    Attach,
    /// NodeUnstageVolume: the device.
    Detach,
    /// NodeExpandVolume: the device.
    Resize,
    /// All calls of the node: the list of devices.
    List,
}

impl Asked {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Delete,
        Self::Expand,
        Self::Capacity,
        Self::Attach,
        Self::Detach,
        Self::Resize,
        Self::List,
    ];
}

/// What a refusal means to the caller of the call.
#[allow(clippy::match_same_arms, reason = "each arm has its own why")]
pub fn problem_of(asked: Asked, refusal: Refusal) -> Problem {
    match (asked, refusal) {
        // The engine holds more than is asked for: it never shrinks.
        (Asked::Expand, Refusal::Invalid) => Problem::OutOfRange,
        // Elsewhere our request was checked before: the two sides don't understand each other.
        (_, Refusal::Invalid) => Problem::Internal,
        // Made a moment ago, and not there: it was deleted at the same time, or the pool is new.
        (Asked::Create, Refusal::NotFound) => Problem::Unavailable,
        // The engine has not been promoted yet, or has not found its pool again.
        (Asked::Attach, Refusal::NotFound) => Problem::Unavailable,
        // Not attached here.
        (Asked::Resize, Refusal::NotFound) => Problem::NotFound,
        // The replica is not where the objects say: a person must look.
        (Asked::Expand, Refusal::NotFound) => Problem::WrongState,
        (Asked::Delete | Asked::Capacity | Asked::Detach | Asked::List, Refusal::NotFound) => {
            Problem::Internal
        }
        (Asked::Create, Refusal::Exists) => Problem::Exists,
        (_, Refusal::Exists) => Problem::Internal,
        (_, Refusal::WrongState) => Problem::WrongState,
        (_, Refusal::Exhausted) => Problem::Exhausted,
        (_, Refusal::Unavailable) => Problem::Unavailable,
        (_, Refusal::DataLoss) => Problem::DataLoss,
        // The engine is too old, or the node has nothing to make devices with; its text says which.
        (_, Refusal::Unimplemented) => Problem::WrongState,
        (_, Refusal::Internal) => Problem::Internal,
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What kind.
    pub problem: Problem,
    /// For people: the thing and the remedy.
    pub message: String,
}

impl Fault {
    /// A fault of this kind.
    pub fn new(problem: Problem, message: impl Into<String>) -> Self {
        Self { problem, message: message.into() }
    }

    /// A bad request.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Problem::Invalid, message)
    }

    /// The state forbids it.
    pub fn wrong_state(message: impl Into<String>) -> Self {
        Self::new(Problem::WrongState, message)
    }

    /// Something that never should.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Problem::Internal, message)
    }

    /// The same fault, seen from one layer further up.
    #[must_use]
    pub fn context(self, what: impl std::fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// What the engine of `node` answered, or that it did not.
    pub fn engine(asked: Asked, node: &str, error: &ClientError) -> Self {
        let problem = match error {
            ClientError::Unreachable { .. } | ClientError::Deadline { .. } => Problem::Unavailable,
            ClientError::Garbled { .. } => Problem::Internal,
            ClientError::Refused { refusal, .. } => problem_of(asked, *refusal),
        };
        Self::new(problem, format!("node {node}: {error}"))
    }

    /// What this node's attach daemon answered, or that it did not.
    pub fn attach(asked: Asked, error: &AttachError) -> Self {
        let problem = match error {
            AttachError::Unreachable { .. } | AttachError::Deadline { .. } => Problem::Unavailable,
            AttachError::Garbled { .. } => Problem::Internal,
            AttachError::Refused { refusal, .. } => problem_of(asked, *refusal),
        };
        Self::new(problem, error.to_string())
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        Self::new(fault.problem.code(), fault.message)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The table of `docs/csi.md`: what an engine or the attach daemon refuses (rows), in which call
    /// (columns).
    const TABLE: &str = "
                      Create              Delete              Expand              Capacity            Attach              Detach              Resize              List
        Invalid       INTERNAL            INTERNAL            OUT_OF_RANGE        INTERNAL            INTERNAL            INTERNAL            INTERNAL            INTERNAL
        NotFound      UNAVAILABLE         INTERNAL            FAILED_PRECONDITION INTERNAL            UNAVAILABLE         INTERNAL            NOT_FOUND           INTERNAL
        Exists        ALREADY_EXISTS      INTERNAL            INTERNAL            INTERNAL            INTERNAL            INTERNAL            INTERNAL            INTERNAL
        WrongState    FAILED_PRECONDITION FAILED_PRECONDITION FAILED_PRECONDITION FAILED_PRECONDITION FAILED_PRECONDITION FAILED_PRECONDITION FAILED_PRECONDITION FAILED_PRECONDITION
        Exhausted     RESOURCE_EXHAUSTED  RESOURCE_EXHAUSTED  RESOURCE_EXHAUSTED  RESOURCE_EXHAUSTED  RESOURCE_EXHAUSTED  RESOURCE_EXHAUSTED  RESOURCE_EXHAUSTED  RESOURCE_EXHAUSTED
        Unavailable   UNAVAILABLE         UNAVAILABLE         UNAVAILABLE         UNAVAILABLE         UNAVAILABLE         UNAVAILABLE         UNAVAILABLE         UNAVAILABLE
        DataLoss      DATA_LOSS           DATA_LOSS           DATA_LOSS           DATA_LOSS           DATA_LOSS           DATA_LOSS           DATA_LOSS           DATA_LOSS
        Unimplemented FAILED_PRECONDITION FAILED_PRECONDITION FAILED_PRECONDITION FAILED_PRECONDITION FAILED_PRECONDITION FAILED_PRECONDITION FAILED_PRECONDITION FAILED_PRECONDITION
        Internal      INTERNAL            INTERNAL            INTERNAL            INTERNAL            INTERNAL            INTERNAL            INTERNAL            INTERNAL
    ";

    fn shout(code: Code) -> String {
        let mut text = String::new();
        for c in format!("{code:?}").chars() {
            if c.is_uppercase() && !text.is_empty() {
                text.push('_');
            }
            text.push(c.to_ascii_uppercase());
        }
        text
    }

    #[test]
    fn every_refusal_in_every_call_has_the_code_of_the_table() {
        let mut lines = TABLE.lines().filter(|line| !line.trim().is_empty());
        let columns: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
        let calls: Vec<String> = Asked::ALL.iter().map(|call| format!("{call:?}")).collect();
        assert_eq!(columns, calls);
        let mut rows = 0;
        for (line, refusal) in lines.zip(Refusal::ALL) {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(words[0], format!("{refusal:?}"));
            for (asked, wanted) in Asked::ALL.into_iter().zip(&words[1..]) {
                let code = shout(problem_of(asked, refusal).code());
                assert_eq!(code, *wanted, "{refusal:?} in {asked:?}");
            }
            rows += 1;
        }
        assert_eq!(rows, Refusal::ALL.len());
    }

    #[test]
    fn every_problem_has_a_code_of_its_own() {
        let codes: BTreeSet<i32> = Problem::ALL.iter().map(|p| i32::from(p.code())).collect();
        assert_eq!(codes.len(), Problem::ALL.len());
        assert!(
            !codes.contains(&i32::from(Code::Ok)) && !codes.contains(&i32::from(Code::Unknown))
        );
    }

    #[test]
    fn a_status_carries_no_details() {
        let status = Status::from(Fault::wrong_state("volume a is in use"));
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.details().is_empty());
    }

    #[test]
    fn an_engine_that_does_not_answer_is_named_and_may_be_tried_again() {
        let gone = ClientError::Unreachable {
            address: "tcp:10.0.0.7:7460".parse().unwrap(),
            reason: "connection refused".to_owned(),
        };
        for asked in Asked::ALL {
            let fault = Fault::engine(asked, "node-b", &gone);
            assert_eq!(fault.problem, Problem::Unavailable);
            assert!(fault.message.starts_with("node node-b: "), "{fault}");
        }
    }
}
