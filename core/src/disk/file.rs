//! A regular file or block device as a [`Disk`].
//!
//! ```text
//!   O_DIRECT             ──────────────────────────────► ring, as it is (or copied if unaligned memory)
//!   buffered, <= 32 KiB  ── at the call: pread (NOWAIT) / pwrite ── not in the cache ──► ring
//!   buffered, larger     ──────────────────────────────► ring: a worker copies
//! ```
//!
//! The file is locked (`flock`) until its last clone is dropped and the last request has ended.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use futures::future::Either;
use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags};

use super::fill::Fill;
use super::flush::Flushes;
use super::geometry::{self, Caching, Opened};
use super::{Disk, Error, ErrorKind, Result};
use crate::runtime::{BUF_MAX, Buf, Data, Env, Fd, Op, Reactor, ShardEnv};
use crate::units::{ByteOffset, ByteRange, u64_of, usize_of};

/// Up to this size buffered requests are done at the call, in bytes.
const INLINE: usize = 32 << 10;

/// How often and how long apart a locked file is tried again: a killed process's last requests
/// may still hold it.
const LOCK_TRIES: u32 = 80;
const LOCK_WAIT: Duration = Duration::from_millis(25);

/// A file or block device. Clones are the same open file.
#[derive(Clone)]
pub struct File(pub(super) Rc<Inner>);

pub(super) struct Inner {
    pub(super) path: PathBuf,
    pub(super) fd: Rc<Fd>,
    pub(super) env: ShardEnv,
    pub(super) len: u64,
    align: u64,
    memory_align: u64,
    direct: bool,
    pub(super) in_memory: bool,
    /// Whether reads that would wait can be told not to.
    nowait: Cell<bool>,
    pub(super) can_punch: Cell<bool>,
    pub(super) can_zero: Cell<bool>,
    pub(super) flushes: Flushes,
    pub(super) fill: RefCell<Option<Rc<Fill>>>,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "File({}, {} bytes, direct: {})",
            self.0.path.display(),
            self.0.len,
            self.0.direct
        )
    }
}

impl File {
    /// Opens a file or block device for reading and writing, locked.
    /// [`ErrorKind::Locked`] if it stays open elsewhere for two seconds.
    pub async fn open(env: &ShardEnv, path: &Path, caching: Caching) -> Result<Self> {
        let wanted = path.to_owned();
        let opened =
            retry_locked(env, move || geometry::open_at(rustix::fs::CWD, &wanted, true, caching));
        let opened = opened.await.map_err(|e| open_error(path, e))?;
        Ok(Self::new(env, path.to_owned(), opened))
    }

    pub(super) fn new(env: &ShardEnv, path: PathBuf, opened: Opened) -> Self {
        let Opened { fd, len, align, memory_align, direct, in_memory } = opened;
        Self(Rc::new(Inner {
            path,
            fd: Fd::new(fd),
            env: env.clone(),
            len,
            align,
            memory_align,
            direct,
            in_memory,
            nowait: Cell::new(true),
            can_punch: Cell::new(true),
            can_zero: Cell::new(true),
            flushes: Flushes::default(),
            fill: RefCell::default(),
        }))
    }

    /// Whether it goes around the page cache.
    pub fn is_direct(&self) -> bool {
        self.0.direct
    }

    pub(super) fn downgrade(&self) -> Weak<Inner> {
        Rc::downgrade(&self.0)
    }

    pub(super) fn reactor(&self) -> &Rc<Reactor> {
        self.0.env.reactor()
    }

    /// Refuses what the disk does not hold, what is not aligned, and everything once poisoned.
    pub(super) fn check(&self, what: &str, range: ByteRange) -> Result<()> {
        let Inner { path, len, align, flushes, .. } = &*self.0;
        flushes.check(|| format!("{what} {range} of {}", path.display()))?;
        if range.end > *len {
            return Err(Error::beyond_end(what, range, *len).context(path.display()));
        }
        if !range.is_aligned(*align) {
            let what = format!("{what} {range} of {}: not aligned to {align}", path.display());
            return Err(Error::own(ErrorKind::Invalid, what));
        }
        Ok(())
    }

    /// An error of the system, with what was tried.
    pub(super) fn error(&self, what: &str, range: ByteRange, e: io::Error) -> Error {
        let what = format!("{what} {range} of {}", self.0.path.display());
        let e = Error::system(what.clone(), e);
        match e.kind() {
            // Of a file these say nothing about a lock or a peer.
            ErrorKind::Locked | ErrorKind::Disconnected => {
                Error::new(ErrorKind::Io, what, io_source(&e))
            }
            _ => e,
        }
    }

    /// Writes without asking the fill; `range` was checked.
    pub(super) fn write_now(
        &self,
        range: ByteRange,
        data: Vec<Data>,
    ) -> impl Future<Output = Result<()>> + use<> + 'static {
        let me = self.clone();
        let done = match self.write_inline(range, &data) {
            Some(Ok(done)) if done == usize_of(range.len()) => {
                return Either::Left(self.reactor().ready(Ok(())));
            }
            Some(Ok(done)) => done,
            Some(Err(e)) => {
                return Either::Left(self.reactor().ready(Err(self.error("write", range, e))));
            }
            None => 0,
        };
        let data = self.addressable(data);
        let wait = self.reactor().submit(&self.0.fd, Op::Write { at: range.start, data }, done);
        Either::Right(
            async move { wait.await.1.map(drop).map_err(|e| me.error("write", range, e)) },
        )
    }

    /// Writes at the call if that is the better way; how much was written then.
    fn write_inline(&self, range: ByteRange, data: &[Data]) -> Option<io::Result<usize>> {
        if self.0.direct || usize_of(range.len()) > INLINE || data.len() > 64 {
            return None;
        }
        let slices: Vec<_> = data.iter().map(|d| IoSlice::new(d)).collect();
        self.reactor().note_inline();
        match rustix::io::pwritev(&*self.0.fd, &slices, range.start) {
            Err(Errno::INTR | Errno::AGAIN) => None,
            other => Some(other.map_err(io::Error::from)),
        }
    }

    /// The same bytes in memory that O_DIRECT takes; a copy only if they are not.
    fn addressable(&self, data: Vec<Data>) -> Vec<Data> {
        if !self.0.direct
            || geometry::is_addressable(
                data.iter().map(|d| &**d),
                self.0.align,
                self.0.memory_align,
            )
        {
            return data;
        }
        let mut rest: usize = data.iter().map(|d| d.len()).sum();
        let mut source = data.iter().flat_map(|d| d.chunks(BUF_MAX));
        let mut piece: &[u8] = &[];
        let mut copies = Vec::new();
        while rest > 0 {
            let mut buf = Buf::new(rest.min(BUF_MAX));
            let mut filled = 0;
            while filled < buf.len() {
                if piece.is_empty() {
                    let Some(next) = source.next() else { break };
                    piece = next;
                }
                let n = piece.len().min(buf.len() - filled);
                let (now, later) = piece.split_at(n);
                if let Some(to) = buf.get_mut(filled..filled + n) {
                    to.copy_from_slice(now);
                }
                piece = later;
                filled += n;
            }
            rest -= buf.len();
            copies.push(buf.freeze());
        }
        copies
    }

    /// Reads at the call if that is the better way; how much was read then.
    fn read_inline(&self, at: u64, buf: &mut Buf) -> Option<io::Result<usize>> {
        if self.0.direct || buf.len() > INLINE {
            return None;
        }
        let flags = match (self.0.in_memory, self.0.nowait.get()) {
            (true, _) => ReadWriteFlags::empty(),
            (false, true) => ReadWriteFlags::NOWAIT,
            (false, false) => return None,
        };
        match rustix::io::preadv2(&*self.0.fd, &mut [IoSliceMut::new(buf)], at, flags) {
            Ok(n) => {
                self.reactor().note_inline();
                Some(Ok(n))
            }
            Err(Errno::OPNOTSUPP) => {
                self.0.nowait.set(false);
                None
            }
            // Not in the cache: the ring waits for it, and gives a real error its due.
            Err(_) => None,
        }
    }
}

impl Disk for File {
    fn len(&self) -> u64 {
        self.0.len
    }

    fn alignment(&self) -> u64 {
        self.0.align
    }

    fn read(
        &self,
        at: ByteOffset,
        mut buf: Buf,
    ) -> impl Future<Output = (Buf, Result<()>)> + 'static {
        let range = ByteRange::new(at.0, at.0.saturating_add(u64_of(buf.len())));
        if let Err(e) = self.check("read", range) {
            return Either::Left(self.reactor().ready((buf, Err(e))));
        }
        let done = match self.read_inline(at.0, &mut buf) {
            Some(Ok(done)) if done == buf.len() => {
                return Either::Left(self.reactor().ready((buf, Ok(()))));
            }
            Some(Ok(done)) => done,
            Some(Err(_)) | None => 0,
        };
        let wait = self.reactor().submit(&self.0.fd, Op::Read { at: at.0, buf }, done);
        let me = self.clone();
        Either::Right(async move {
            let (op, result) = wait.await;
            // A flush that failed meanwhile may have made the kernel drop what was written.
            let checked = me.0.flushes.check(|| format!("read {range} of {}", me.0.path.display()));
            let result = result.map(drop).map_err(|e| me.error("read", range, e)).and(checked);
            let Op::Read { buf, .. } = op else { return (Buf::new(0), result) };
            (buf, result)
        })
    }

    fn write(&self, at: ByteOffset, data: Data) -> impl Future<Output = Result<()>> + 'static {
        self.writev(at, vec![data])
    }

    fn writev(
        &self,
        at: ByteOffset,
        data: Vec<Data>,
    ) -> impl Future<Output = Result<()>> + 'static {
        let len = data.iter().map(|d| u64_of(d.len())).sum();
        let range = ByteRange::new(at.0, at.0.saturating_add(len));
        if let Err(e) = self.check("write", range) {
            return Either::Left(Either::Left(self.reactor().ready(Err(e))));
        }
        if range.is_empty() {
            return Either::Left(Either::Left(self.reactor().ready(Ok(()))));
        }
        match self.behind_fill(range) {
            None => Either::Left(Either::Right(self.write_now(range, data))),
            Some(filled) => {
                let me = self.clone();
                Either::Right(async move {
                    filled.await;
                    me.write_now(range, data).await
                })
            }
        }
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        punch: bool,
    ) -> impl Future<Output = Result<()>> + 'static {
        super::zeroes::write_zeroes(self, range, punch)
    }

    fn flush(&self) -> impl Future<Output = Result<()>> + 'static {
        let path = self.0.path.clone();
        self.0.flushes.flush(self.reactor(), &self.0.fd, move || path.display().to_string())
    }

    fn forget_cached(&self) -> impl Future<Output = ()> + 'static {
        let (fd, direct, env) = (self.0.fd.shared(), self.0.direct, self.0.env.clone());
        async move {
            if !direct {
                // Where the kernel does not know such advice, its memory is the medium.
                let forget = move || rustix::fs::fadvise(&*fd, 0, None, Advice::DontNeed).ok();
                let _ = env.blocking(forget).await;
            }
        }
    }

    fn allocation(
        &self,
        range: ByteRange,
    ) -> impl Future<Output = Result<Vec<(ByteRange, bool)>>> + 'static {
        let checked = self.check("allocation of", range);
        let fd = self.0.fd.shared();
        let found = self.0.env.blocking(move || geometry::allocation(&fd, range.start, range.end));
        let me = self.clone();
        async move {
            checked?;
            let found = found.await.map_err(|e| me.error("allocation of", range, e))?;
            me.check("allocation of", range)?;
            let mut at = range.start;
            let parts = found.into_iter().map(|(end, allocated)| {
                let part = ByteRange::new(at, end);
                at = end;
                (part, allocated)
            });
            Ok(parts.collect())
        }
    }
}

fn io_source(e: &Error) -> Option<io::Error> {
    let source = std::error::Error::source(e)?.downcast_ref::<io::Error>()?;
    Some(source.raw_os_error().map_or_else(|| source.kind().into(), io::Error::from_raw_os_error))
}

/// The error of opening `path`.
pub(super) fn open_error(path: &Path, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::WouldBlock => Error::own(
            ErrorKind::Locked,
            format!("open {}: it is open in another process; end that first", path.display()),
        ),
        io::ErrorKind::InvalidInput => {
            Error::own(ErrorKind::Invalid, format!("open {}: {e}", path.display()))
        }
        _ => Error::system(format!("open {}", path.display()), e),
    }
}

/// Runs `open` on a pool thread, again and again while it says that the file is locked.
pub(super) async fn retry_locked<T: Send + 'static>(
    env: &ShardEnv,
    open: impl Fn() -> io::Result<T> + Clone + Send + 'static,
) -> io::Result<T> {
    let mut tries = 0;
    loop {
        let again = open.clone();
        match env.blocking(again).await? {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && tries < LOCK_TRIES => {
                tries += 1;
                env.sleep(LOCK_WAIT).await;
            }
            other => return other,
        }
    }
}
