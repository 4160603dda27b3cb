//! Why a call of the attach API has no answer.

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::api::Refusal;

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AttachError {
    /// There is no connection to the daemon, or it broke; trying again may help.
    #[error(
        "the attach daemon at {} can't be reached: {reason}; is understudy-attachd running?",
        socket.display()
    )]
    Unreachable {
        /// Where it should be.
        socket: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// It did not answer in time. Whether it has done what was asked is not known.
    #[error("the attach daemon at {} did not answer within {after:?}", socket.display())]
    Deadline {
        /// Where it is.
        socket: PathBuf,
        /// The deadline.
        after: Duration,
    },
    /// It refused, or failed at it; its text names the thing and the remedy.
    #[error("{message}")]
    Refused {
        /// What kind of refusal.
        refusal: Refusal,
        /// The daemon's words.
        message: String,
    },
    /// The answer is not one: the two ends are of different versions.
    #[error("the attach daemon at {} gave an answer that is none: {problem}", socket.display())]
    Garbled {
        /// Where it is.
        socket: PathBuf,
        /// What is wrong with the answer.
        problem: String,
    },
}

impl AttachError {
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
