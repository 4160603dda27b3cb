//! A file system of one file, whose bytes are the volume's; mounted nowhere.
//!
//! ```text
//!   /dev/fuse ◄── fsopen("fuse") ── fsmount ──► a mount without a place: only who has its descriptor
//!       │                                       can open "NAME" in it (the loop device does, and keeps it)
//!   fuse thread: READ, WRITE, FSYNC, FALLOCATE ──► Requests ──► answered from the shard's thread
//! ```
//!
//! A mount without a place leaves nothing behind: no directory, no entry in any mount table, no
//! namespace that would keep copies of other mounts busy. It goes with the last descriptor.
//!
//! **Copies of a write**, beside those inside the engine: the kernel into the fuse thread's buffer (1),
//! that into a `Vec` for the shard (2), the shard into one of its own buffers (3), the kernel into the
//! socket (4). Of a read: the socket into a buffer (1), the kernel out of it (2). 2 and 3 are one memcpy
//! each from memory that is in the cache; reading `/dev/fuse` on the shard itself would spare both and
//! a thread's wake-up, at the price of a FUSE protocol of our own.
//!
//! Nothing is serialised: the thread hands a request over and reads the next one.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Session, SessionACL, WriteFlags,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::request::{Failure, Request, Requests};
use crate::units::ByteRange;

/// The largest read and write of the kernel: what a request of a loop device has at most, nearly.
const REQUEST_MAX: u32 = 1 << 20;

/// How many requests the kernel hands out at once. A loop device has 128 under way by default.
const UNDER_WAY: u16 = 512;

/// What the loop device takes as its discard granularity.
const BLOCK: u32 = 4096;

const ROOT: INodeNo = INodeNo(1);
const FILE: INodeNo = INodeNo(2);

/// The length that the file has; grows.
#[derive(Clone, Debug)]
pub(super) struct Length(Arc<AtomicU64>);

impl Length {
    pub(super) fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(super) fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::SeqCst);
    }
}

/// The file system.
pub(super) struct OneFile {
    pub(super) name: String,
    pub(super) length: Length,
    pub(super) requests: Requests,
    pub(super) read_only: bool,
}

/// Mounts it, and serves it on a thread from now on. The mount's root, as a descriptor.
pub(super) fn serve(files: OneFile) -> io::Result<OwnedFd> {
    let named = |what: &'static str| {
        move |e: rustix::io::Errno| {
            io::Error::new(io::Error::from(e).kind(), format!("{what}: {e}"))
        }
    };
    let device: OwnedFd = std::fs::File::options().read(true).write(true).open("/dev/fuse")?.into();
    let context =
        fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).map_err(named("can't make a FUSE mount"))?;
    let option = named("can't set up a FUSE mount");
    for (key, value) in [
        ("source", "understudy"),
        ("fd", device.as_raw_fd().to_string().as_str()),
        ("rootmode", "40000"),
        ("user_id", "0"),
        ("group_id", "0"),
    ] {
        fsconfig_set_string(context.as_fd(), key, value).map_err(option)?;
    }
    // The loop device's requests come from kernel threads.
    fsconfig_set_flag(context.as_fd(), "allow_other").map_err(option)?;
    fsconfig_create(context.as_fd()).map_err(option)?;
    let session = Session::from_fd(files, device, SessionACL::All, fuser::Config::default())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(named("can't mount FUSE"))?;
    std::thread::Builder::new().name("fuse".to_owned()).spawn(move || {
        // Ends when the last user of the file has gone.
        if let Err(e) = session.run() {
            tracing::warn!("the FUSE connection ended: {e}");
        }
    })?;
    Ok(root)
}

impl OneFile {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let directory = inode == ROOT;
        let size = if directory { 0 } else { self.length.get() };
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: SystemTime::UNIX_EPOCH,
            kind: if directory { FileType::Directory } else { FileType::RegularFile },
            perm: match (directory, self.read_only) {
                (true, _) => 0o500,
                (false, true) => 0o400,
                (false, false) => 0o600,
            },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK,
            flags: 0,
        }
    }
}

fn number(failure: Failure) -> Errno {
    match failure {
        Failure::Io => Errno::EIO,
        Failure::NoSpace => Errno::ENOSPC,
        Failure::Invalid => Errno::EINVAL,
    }
}

fn finish(reply: ReplyEmpty) -> Box<dyn FnOnce(Result<(), Failure>) + Send> {
    Box::new(move |result| match result {
        Ok(()) => reply.ok(),
        Err(failure) => reply.error(number(failure)),
    })
}

/// What the kernel believes about an attribute: nothing, or a grown file would stay short.
const NEVER: Duration = Duration::ZERO;

impl Filesystem for OneFile {
    fn init(&mut self, _: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        let refused = |_| io::Error::other("the kernel's FUSE takes no requests of 1 MiB");
        config.set_max_write(REQUEST_MAX).map_err(refused)?;
        let _ = config.set_max_readahead(REQUEST_MAX);
        let _ = config.set_max_background(UNDER_WAY);
        // No writeback cache: what the loop device has written must have left the kernel. Without
        // asynchronous direct I/O there would be one request at a time.
        config
            .add_capabilities(InitFlags::FUSE_ASYNC_DIO | InitFlags::FUSE_ASYNC_READ)
            .map_err(|lacks| io::Error::other(format!("the kernel's FUSE lacks {lacks:?}")))
    }

    fn lookup(&self, _: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == ROOT && name == OsStr::new(&self.name) {
            reply.entry(&NEVER, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &fuser::Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&NEVER, &self.attributes(ino));
    }

    fn open(&self, _: &fuser::Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Without NOFLUSH a process that closes the file at its end would wait for an answer of its
        // own, ended, threads.
        let flags = FopenFlags::FOPEN_DIRECT_IO
            | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
            | FopenFlags::FOPEN_NOFLUSH;
        reply.opened(FileHandle(0), flags);
    }

    fn flush(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn statfs(&self, _: &fuser::Request, _: INodeNo, reply: ReplyStatfs) {
        let blocks = self.length.get() / u64::from(BLOCK);
        reply.statfs(blocks, 0, 0, 1, 0, BLOCK, 255, BLOCK);
    }

    fn getxattr(&self, _: &fuser::Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        // The kernel asks before the first write whether there are rights to take away, and not again.
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let end = offset.saturating_add(size.min(REQUEST_MAX).into()).min(self.length.get());
        let range = ByteRange::new(offset, end);
        if range.is_empty() {
            return reply.data(&[]);
        }
        self.requests.begin(Request::Read(
            range,
            Box::new(move |result| match result {
                Ok(bytes) => reply.data(bytes),
                Err(failure) => reply.error(number(failure)),
            }),
        ));
    }

    fn write(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Ok(len) = u32::try_from(data.len()) else { return reply.error(Errno::EINVAL) };
        if len > REQUEST_MAX {
            return reply.error(Errno::EINVAL);
        }
        self.requests.begin(Request::Write(
            offset,
            data.to_vec(),
            Box::new(move |result| match result {
                Ok(()) => reply.written(len),
                Err(failure) => reply.error(number(failure)),
            }),
        ));
    }

    fn fsync(&self, _: &fuser::Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.requests.begin(Request::Flush(finish(reply)));
    }

    fn fallocate(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        // A loop device asks for holes (a discard, or zeroes that may be a hole) and for zeroes.
        let punch = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            libc::FALLOC_FL_PUNCH_HOLE => true,
            libc::FALLOC_FL_ZERO_RANGE => false,
            _ => return reply.error(Errno::EOPNOTSUPP),
        };
        let end = offset.saturating_add(length).min(self.length.get());
        let range = ByteRange::new(offset, end);
        self.requests.begin(Request::Zero(range, punch, finish(reply)));
    }
}
