//! What can go wrong in an engine, and the one table of how it is said on the wire.
//!
//! ```text
//!   Invalid ──────────┐
//!   disk::ErrorKind ──┼─► Refusal ◄──► gRPC code
//!   engine's own ─────┘
//! ```
//!
//! Errors of the data plane belong to their shard's thread; an [`EngineError`] crosses threads.

use tonic::{Code, Status};

use super::api::Refusal;
use super::convert::Invalid;
use crate::disk;

/// A refusal or failure, with a text that names the thing and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// What kind.
    pub refusal: Refusal,
    /// For people.
    pub message: String,
}

impl EngineError {
    /// An error of this kind.
    pub fn new(refusal: Refusal, message: impl Into<String>) -> Self {
        Self { refusal, message: message.into() }
    }

    /// The same error, seen from one layer further up.
    #[must_use]
    pub fn context(self, what: impl std::fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// An error of the file system, doing `what`.
    pub fn system(what: impl Into<String>, source: std::io::Error) -> Self {
        (&disk::Error::system(what, source)).into()
    }
}

impl From<Invalid> for EngineError {
    fn from(e: Invalid) -> Self {
        Self::new(Refusal::Invalid, e.to_string())
    }
}

impl From<&disk::Error> for EngineError {
    fn from(e: &disk::Error) -> Self {
        let mut message = e.to_string();
        if let Some(cause) = std::error::Error::source(e) {
            message = format!("{message}: {cause}");
        }
        Self { refusal: refusal_of(e.kind()), message }
    }
}

impl From<disk::Error> for EngineError {
    fn from(e: disk::Error) -> Self {
        (&e).into()
    }
}

/// What a disk's error means to a caller of the API.
fn refusal_of(kind: disk::ErrorKind) -> Refusal {
    use disk::ErrorKind;
    match kind {
        ErrorKind::Io | ErrorKind::Poisoned | ErrorKind::Disconnected | ErrorKind::Locked => {
            Refusal::Unavailable
        }
        ErrorKind::NoSpace => Refusal::Exhausted,
        ErrorKind::Invalid => Refusal::Invalid,
        ErrorKind::NotPermitted | ErrorKind::Stale => Refusal::WrongState,
        ErrorKind::Corrupt | ErrorKind::TooNew => Refusal::DataLoss,
    }
}

impl Refusal {
    /// As gRPC says it.
    pub(super) fn code(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::Exists => Code::AlreadyExists,
            Self::WrongState => Code::FailedPrecondition,
            Self::Exhausted => Code::ResourceExhausted,
            Self::Unavailable => Code::Unavailable,
            Self::DataLoss => Code::DataLoss,
            Self::Unimplemented => Code::Unimplemented,
            Self::Internal => Code::Internal,
        }
    }

    /// What a gRPC code means; `None` for those that say that no answer came in time.
    pub(super) fn from_code(code: Code) -> Option<Self> {
        Some(match code {
            Code::InvalidArgument | Code::OutOfRange => Self::Invalid,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::Exists,
            Code::FailedPrecondition | Code::Aborted | Code::PermissionDenied => Self::WrongState,
            Code::ResourceExhausted => Self::Exhausted,
            Code::Unavailable => Self::Unavailable,
            Code::DataLoss => Self::DataLoss,
            Code::Unimplemented => Self::Unimplemented,
            Code::Ok | Code::Unknown | Code::Internal | Code::Unauthenticated => Self::Internal,
            Code::DeadlineExceeded | Code::Cancelled => return None,
        })
    }
}

impl From<EngineError> for Status {
    fn from(e: EngineError) -> Self {
        Self::new(e.refusal.code(), e.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_reads_back_as_it_was_sent() {
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::from_code(refusal.code()), Some(refusal));
        }
    }
}
