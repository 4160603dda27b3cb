//! What can go wrong with a disk, and to what.

use std::fmt;
use std::io;
use std::rc::Rc;

use crate::units::ByteRange;

/// The result of a disk operation.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a disk: what kind, doing what, where. Clones are cheap (the first one is kept for
/// `get_error`).
#[derive(Clone)]
pub struct Error(Rc<Inner>);

struct Inner {
    kind: ErrorKind,
    /// What was tried, to what: "write 4096 bytes at 8192 of volume db-0".
    what: String,
    source: Option<io::Error>,
}

/// What kind of error it is: what a caller may decide upon.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ErrorKind {
    /// The device failed.
    Io,
    /// No space is left, or a limit is reached.
    NoSpace,
    /// A flush failed before: nothing this disk holds can be trusted until it is opened anew.
    Poisoned,
    /// The request reaches beyond the end or is not aligned.
    Invalid,
    /// The disk, the role or the stage allows no such request now.
    NotPermitted,
    /// The request is of an older generation or session: it fails for good (invariant 7).
    Stale,
    /// What is stored is not what should be: a checksum, a version, an identity.
    Corrupt,
    /// Written by a newer version of Understudy.
    TooNew,
    /// It is open in another process.
    Locked,
    /// The far end went away or did not answer in time.
    Disconnected,
}

impl Error {
    /// An error with its context and, if the system gave one, its cause.
    pub fn new(kind: ErrorKind, what: impl Into<String>, source: Option<io::Error>) -> Self {
        Self(Rc::new(Inner { kind, what: what.into(), source }))
    }

    /// An error of this kind that we found ourselves.
    pub fn own(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self::new(kind, what, None)
    }

    /// An error of the system; its number decides the kind.
    pub fn system(what: impl Into<String>, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => ErrorKind::NoSpace,
            io::ErrorKind::InvalidInput => ErrorKind::Invalid,
            io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy => ErrorKind::Locked,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                ErrorKind::NotPermitted
            }
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::TimedOut
            | io::ErrorKind::UnexpectedEof => ErrorKind::Disconnected,
            _ => ErrorKind::Io,
        };
        Self::new(kind, what, Some(source))
    }

    /// A request beyond the end of a disk of `len` bytes.
    pub fn beyond_end(what: &str, range: ByteRange, len: u64) -> Self {
        Self::own(ErrorKind::Invalid, format!("{what} {range} reaches beyond the end at {len}"))
    }

    /// Its kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The same error, seen from one layer further up.
    #[must_use]
    pub fn context(&self, what: impl fmt::Display) -> Self {
        Self::new(
            self.0.kind,
            format!("{what}: {}", self.0.what),
            self.0.source.as_ref().map(|s| {
                s.raw_os_error().map_or_else(|| s.kind().into(), io::Error::from_raw_os_error)
            }),
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.what)?;
        if let Some(s) = &self.0.source {
            write!(f, ": {s}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|s| s as _)
    }
}
