//! Why a call has no answer.

use std::time::Duration;

use crate::engine::api::{Address, Refusal};

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// There is no connection to the engine, or it broke; trying again may help.
    #[error("the engine at {address} can't be reached: {reason}")]
    Unreachable {
        /// Where it should be.
        address: Address,
        /// What the system says.
        reason: String,
    },
    /// The engine did not answer in time. Whether it has done what was asked is not known.
    #[error("the engine at {address} did not answer within {after:?}")]
    Deadline {
        /// Where it is.
        address: Address,
        /// The deadline.
        after: Duration,
    },
    /// The engine refused, or failed at it; its text names the thing and the remedy.
    #[error("{message}")]
    Refused {
        /// What kind of refusal.
        refusal: Refusal,
        /// The engine's words.
        message: String,
    },
    /// The answer is not one: the two ends are of different versions.
    #[error("the engine at {address} gave an answer that is none: {problem}")]
    Garbled {
        /// Where it is.
        address: Address,
        /// What is wrong with the answer.
        problem: String,
    },
}

impl ClientError {
    /// The refusal, if it is one.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(*refusal),
            Self::Unreachable { .. } | Self::Deadline { .. } | Self::Garbled { .. } => None,
        }
    }

    /// Whether the same call may succeed later without anybody doing something.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Deadline { .. } => true,
            Self::Refused { refusal, .. } => *refusal == Refusal::Unavailable,
            Self::Garbled { .. } => false,
        }
    }
}
