//! Disk errors in the protocol's numbers, and back.
//!
//! The protocol has its own few numbers (those of Linux); others must not be sent.

use crate::disk::ErrorKind;

/// Not allowed.
pub(super) const EPERM: u32 = 1;
/// The device failed.
pub(super) const EIO: u32 = 5;
/// The server lacks memory.
pub(super) const ENOMEM: u32 = 12;
/// The request makes no sense.
pub(super) const EINVAL: u32 = 22;
/// No space is left, or a write beyond the end.
pub(super) const ENOSPC: u32 = 28;
/// The reply would be too large for one chunk.
pub(super) const EOVERFLOW: u32 = 75;
/// Not supported here.
pub(super) const ENOTSUP: u32 = 95;
/// The server, or this export of it, is about to go.
pub(super) const ESHUTDOWN: u32 = 108;

/// What a client is told about an error of a disk.
pub(super) fn of(kind: ErrorKind) -> u32 {
    match kind {
        ErrorKind::Invalid => EINVAL,
        ErrorKind::NoSpace => ENOSPC,
        ErrorKind::NotPermitted => EPERM,
        // The connection is cut right behind it; a new one is refused with the reason.
        ErrorKind::Stale => ESHUTDOWN,
        ErrorKind::Io
        | ErrorKind::Poisoned
        | ErrorKind::Corrupt
        | ErrorKind::TooNew
        | ErrorKind::Locked
        | ErrorKind::Disconnected => EIO,
    }
}

/// What a server's number means to us. A number it should not have sent is an I/O error.
pub(super) fn kind(errno: u32) -> ErrorKind {
    match errno {
        EPERM => ErrorKind::NotPermitted,
        EINVAL | EOVERFLOW | ENOTSUP => ErrorKind::Invalid,
        ENOSPC => ErrorKind::NoSpace,
        ESHUTDOWN => ErrorKind::Disconnected,
        _ => ErrorKind::Io,
    }
}

/// Its name, for messages.
pub(super) fn name(errno: u32) -> &'static str {
    match errno {
        EPERM => "not permitted (EPERM)",
        EIO => "input/output error (EIO)",
        ENOMEM => "out of memory (ENOMEM)",
        EINVAL => "invalid request (EINVAL)",
        ENOSPC => "no space left (ENOSPC)",
        EOVERFLOW => "reply too large (EOVERFLOW)",
        ENOTSUP => "not supported (ENOTSUP)",
        ESHUTDOWN => "shutting down (ESHUTDOWN)",
        _ => "an error number outside the protocol",
    }
}
