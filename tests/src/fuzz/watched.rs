//! A disk in memory that counts what is asked of it, and lets nothing reach beyond its border.

use std::cell::Cell;
use std::future::{Future, ready};
use std::rc::Rc;

use futures::FutureExt;
use futures::future::Either;
use understudy_core::disk::{Disk, Memory, Result};
use understudy_core::runtime::{Buf, Data};
use understudy_core::units::{ByteOffset, ByteRange, u64_of};

/// The disk. Clones are the same one.
#[derive(Clone)]
pub(super) struct Watched {
    /// None: nothing is kept.
    memory: Option<Memory>,
    /// Its own length, and how much of it may be reached.
    len: u64,
    border: u64,
    alignment: u64,
    read: Rc<Cell<u64>>,
}

/// What an operation of a disk in memory comes to: it never waits.
pub(super) fn now<T>(operation: impl Future<Output = T>) -> T {
    operation.now_or_never().expect("it waits for something that never comes")
}

impl Watched {
    /// A disk with this content.
    pub(super) fn new(content: &[u8]) -> Self {
        let memory = Memory::new(u64_of(content.len()), 0);
        for (at, part) in (0..).step_by(1 << 20).zip(content.chunks(1 << 20)) {
            now(memory.write(ByteOffset(at), Data::copy_of(part))).unwrap();
        }
        Self::over(memory, u64_of(content.len()), 1)
    }

    /// The first `len` bytes of `memory`, in requests of this alignment.
    pub(super) fn over(memory: Memory, len: u64, alignment: u64) -> Self {
        let whole = memory.len();
        Self { memory: Some(memory), len: whole, border: len, alignment, read: Rc::default() }
    }

    /// A disk that keeps nothing, for data that is never looked at.
    pub(super) fn hollow(len: u64) -> Self {
        Self { memory: None, len, border: len, alignment: 1, read: Rc::default() }
    }

    pub(super) fn content(&self) -> Vec<u8> {
        self.memory.as_ref().map(Memory::content).unwrap_or_default()
    }

    /// How many bytes were read.
    pub(super) fn bytes_read(&self) -> u64 {
        self.read.get()
    }

    fn check(&self, what: &str, at: u64, len: u64) {
        let end = at.checked_add(len).expect("no request overflows");
        assert!(end <= self.border, "{what} of {len} bytes at {at} is beyond {}", self.border);
        let range = ByteRange::new(at, end);
        assert!(range.is_aligned(self.alignment), "{what} of {range} is misaligned");
    }
}

impl Disk for Watched {
    fn len(&self) -> u64 {
        self.len
    }

    fn alignment(&self) -> u64 {
        self.alignment
    }

    fn read(&self, at: ByteOffset, buf: Buf) -> impl Future<Output = (Buf, Result<()>)> + 'static {
        self.check("read", at.0, u64_of(buf.len()));
        self.read.set(self.read.get() + u64_of(buf.len()));
        match &self.memory {
            Some(memory) => Either::Left(memory.read(at, buf)),
            None => Either::Right(ready((buf, Ok(())))),
        }
    }

    fn write(&self, at: ByteOffset, data: Data) -> impl Future<Output = Result<()>> + 'static {
        self.writev(at, vec![data])
    }

    fn writev(
        &self,
        at: ByteOffset,
        data: Vec<Data>,
    ) -> impl Future<Output = Result<()>> + 'static {
        self.check("write", at.0, data.iter().map(|d| u64_of(d.len())).sum());
        match &self.memory {
            Some(memory) => Either::Left(memory.writev(at, data)),
            None => Either::Right(ready(Ok(()))),
        }
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        punch: bool,
    ) -> impl Future<Output = Result<()>> + 'static {
        self.check("zeroes", range.start, range.len());
        match &self.memory {
            Some(memory) => Either::Left(memory.write_zeroes(range, punch)),
            None => Either::Right(ready(Ok(()))),
        }
    }

    fn flush(&self) -> impl Future<Output = Result<()>> + 'static {
        ready(Ok(()))
    }
}
