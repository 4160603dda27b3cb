//! Opening a file or block device: its length, its lock, how it must be addressed.
//!
//! ```text
//!   open ─► flock ─► length ─► tmpfs or asked for: buffered, any offset
//!                          └─► else O_DIRECT: offsets and memory aligned as statx says
//! ```
//!
//! Everything here blocks: it runs on a pool thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom, StatxFlags};

use crate::units::u64_of;

/// The alignment of every buffer of the runtime: the most that memory can be asked for.
const MEMORY_ALIGN_MAX: u64 = 4096;

/// `f_type` of tmpfs and ramfs: memory, where going around the page cache means nothing.
const MEMORY_FILE_SYSTEMS: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// Whether the page cache is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Caching {
    /// Around it (`O_DIRECT`) where the file system can.
    #[default]
    Direct,
    /// Through it.
    Buffered,
}

/// An open, locked file and what was found out about it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    pub(super) len: u64,
    /// What offsets and lengths must be multiples of; 1 when buffered.
    pub(super) align: u64,
    /// What addresses must be multiples of; 1 when buffered.
    pub(super) memory_align: u64,
    /// Opened with `O_DIRECT`.
    pub(super) direct: bool,
    /// It lies in memory: no request waits for a device.
    pub(super) in_memory: bool,
}

/// Opens `path` for reading and writing, locked. [`io::ErrorKind::WouldBlock`] if it is open elsewhere.
pub(super) fn open_at(
    dir: impl AsFd,
    path: &Path,
    follow: bool,
    caching: Caching,
) -> io::Result<Opened> {
    let mut flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    examine(rustix::fs::openat(dir, path, flags, Mode::empty())?, caching)
}

/// Locks an open file and finds out how it must be addressed.
pub(super) fn examine(fd: OwnedFd, caching: Caching) -> io::Result<Opened> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::BlockDevice) {
        let what = "a disk is a regular file or a block device, this is neither";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
    let len = rustix::fs::seek(&fd, SeekFrom::End(0))?;
    let system = rustix::fs::fstatfs(&fd).ok().and_then(|s| u64::try_from(s.f_type).ok());
    let in_memory =
        kind == FileType::RegularFile && system.is_some_and(|s| MEMORY_FILE_SYSTEMS.contains(&s));
    // NONBLOCK was for opening only: a fifo or tape under the name must not hang us.
    rustix::fs::fcntl_setfl(&fd, OFlags::empty())?;
    let wanted = caching == Caching::Direct && !in_memory;
    let found = if wanted { direct_alignment(&fd, kind) } else { None };
    // The end of a file that is no multiple could never be reached.
    let usable = found.filter(|(align, _)| len.is_multiple_of(*align));
    let usable = usable.filter(|_| rustix::fs::fcntl_setfl(&fd, OFlags::DIRECT).is_ok());
    let (align, memory_align) = usable.unwrap_or((1, 1));
    Ok(Opened { fd, len, align, memory_align, direct: usable.is_some(), in_memory })
}

/// What O_DIRECT asks of offsets and of memory; `None` if it can't be.
fn direct_alignment(fd: &OwnedFd, kind: FileType) -> Option<(u64, u64)> {
    let said = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    let said = said.ok().filter(|s| s.stx_mask & StatxFlags::DIOALIGN.bits() != 0);
    let (offset, memory) = match said {
        Some(s) => (u64::from(s.stx_dio_offset_align), u64::from(s.stx_dio_mem_align)),
        None if kind == FileType::BlockDevice => {
            let sector = u64::from(rustix::fs::ioctl_blksszget(fd).ok()?);
            (sector, sector)
        }
        None => (4096, 4096),
    };
    let good = |n: u64| n.is_power_of_two() && n <= MEMORY_ALIGN_MAX;
    (good(offset) && good(memory)).then(|| (offset.max(512), memory))
}

/// Which parts of `start..end` are allocated, in order and without a gap, as far as the file
/// system tells.
pub(super) fn allocation(fd: &OwnedFd, start: u64, end: u64) -> Vec<(u64, bool)> {
    let mut ends = Vec::new();
    let mut at = start;
    while at < end {
        let (next, allocated) = match rustix::fs::seek(fd, SeekFrom::Data(at)) {
            // Behind the last data there is a hole to the end.
            Err(rustix::io::Errno::NXIO) => (end, false),
            Ok(data) if data > at => (data.min(end), false),
            Ok(_) => {
                let hole = rustix::fs::seek(fd, SeekFrom::Hole(at)).unwrap_or(end);
                (if hole > at { hole.min(end) } else { end }, true)
            }
            Err(_) => (end, true),
        };
        ends.push((next, allocated));
        at = next;
    }
    ends
}

/// Whether `pieces` may be handed to O_DIRECT as they are.
pub(super) fn is_addressable<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    align: u64,
    memory_align: u64,
) -> bool {
    pieces.into_iter().all(|p| {
        u64_of(p.len()).is_multiple_of(align)
            && u64_of(p.as_ptr().addr()).is_multiple_of(memory_align)
    })
}
