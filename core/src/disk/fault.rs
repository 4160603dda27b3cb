//! A disk that fails on command, and stays poisoned after a failed flush as every disk does.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use futures::future::Either;

use super::{Disk, Error, ErrorKind, Result};
use crate::runtime::{Buf, Data};
use crate::units::{ByteOffset, ByteRange, u64_of};

/// What to fail. Clones steer the same disk.
#[derive(Clone, Debug, Default)]
pub struct Faults(Rc<State>);

#[derive(Debug, Default)]
struct State {
    read: Cell<bool>,
    write: Cell<bool>,
    flush: Cell<bool>,
    poisoned: Cell<bool>,
    /// Only requests that touch this range fail; everywhere if none is set.
    only: RefCell<Option<ByteRange>>,
}

impl Faults {
    /// Reads fail from now on, or no longer.
    pub fn fail_reads(&self, on: bool) {
        self.0.read.set(on);
    }

    /// Writes and zeroes fail from now on, or no longer.
    pub fn fail_writes(&self, on: bool) {
        self.0.write.set(on);
    }

    /// Flushes fail from now on, or no longer. The first one that fails poisons the disk.
    pub fn fail_flushes(&self, on: bool) {
        self.0.flush.set(on);
    }

    /// Restricts failing reads and writes to those that touch `range`.
    pub fn only(&self, range: Option<ByteRange>) {
        *self.0.only.borrow_mut() = range;
    }

    fn check(&self, on: &Cell<bool>, what: &str, range: ByteRange) -> Result<()> {
        if self.0.poisoned.get() {
            return Err(Error::own(
                ErrorKind::Poisoned,
                format!("{what} {range}: a flush failed before"),
            ));
        }
        if on.get() && self.0.only.borrow().is_none_or(|o| o.overlaps(range)) {
            return Err(Error::own(ErrorKind::Io, format!("{what} {range}: fault injected")));
        }
        Ok(())
    }
}

/// A disk under the control of [`Faults`].
#[derive(Clone, Debug)]
pub struct Fault<D> {
    inner: D,
    faults: Faults,
}

impl<D: Disk> Fault<D> {
    /// `inner`, with nothing failing yet.
    pub fn new(inner: D) -> (Self, Faults) {
        let faults = Faults::default();
        (Self { inner, faults: faults.clone() }, faults)
    }

    fn write_check(&self, what: &str, at: ByteOffset, len: u64) -> Result<()> {
        self.faults.check(
            &self.faults.0.write,
            what,
            ByteRange::new(at.0, at.0.saturating_add(len)),
        )
    }
}

impl<D: Disk> Disk for Fault<D> {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn alignment(&self) -> u64 {
        self.inner.alignment()
    }

    fn read(&self, at: ByteOffset, buf: Buf) -> impl Future<Output = (Buf, Result<()>)> + 'static {
        let range = ByteRange::new(at.0, at.0.saturating_add(u64_of(buf.len())));
        match self.faults.check(&self.faults.0.read, "read", range) {
            Ok(()) => Either::Left(self.inner.read(at, buf)),
            Err(e) => Either::Right(std::future::ready((buf, Err(e)))),
        }
    }

    fn write(&self, at: ByteOffset, data: Data) -> impl Future<Output = Result<()>> + 'static {
        match self.write_check("write", at, u64_of(data.len())) {
            Ok(()) => Either::Left(self.inner.write(at, data)),
            Err(e) => Either::Right(std::future::ready(Err(e))),
        }
    }

    fn writev(
        &self,
        at: ByteOffset,
        data: Vec<Data>,
    ) -> impl Future<Output = Result<()>> + 'static {
        match self.write_check("write", at, data.iter().map(|d| u64_of(d.len())).sum()) {
            Ok(()) => Either::Left(self.inner.writev(at, data)),
            Err(e) => Either::Right(std::future::ready(Err(e))),
        }
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        punch: bool,
    ) -> impl Future<Output = Result<()>> + 'static {
        match self.write_check("write zeroes", range.offset(), range.len()) {
            Ok(()) => Either::Left(self.inner.write_zeroes(range, punch)),
            Err(e) => Either::Right(std::future::ready(Err(e))),
        }
    }

    fn flush(&self) -> impl Future<Output = Result<()>> + 'static {
        let all = ByteRange::new(0, u64::MAX);
        match self.faults.check(&self.faults.0.flush, "flush", all) {
            Ok(()) => Either::Left(self.inner.flush()),
            Err(e) => {
                self.faults.0.poisoned.set(true);
                Either::Right(std::future::ready(Err(e)))
            }
        }
    }

    fn allocation(
        &self,
        range: ByteRange,
    ) -> impl Future<Output = Result<Vec<(ByteRange, bool)>>> + 'static {
        self.inner.allocation(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Memory;
    use futures::executor::block_on;

    #[test]
    fn a_failed_flush_poisons_the_disk_for_good() {
        let (d, f) = Fault::new(Memory::new(8192, 0));
        f.fail_flushes(true);
        assert_eq!(block_on(d.flush()).unwrap_err().kind(), ErrorKind::Io);
        f.fail_flushes(false);
        assert_eq!(block_on(d.flush()).unwrap_err().kind(), ErrorKind::Poisoned);
        assert_eq!(
            block_on(d.read(ByteOffset(0), Buf::new(1))).1.unwrap_err().kind(),
            ErrorKind::Poisoned
        );
    }

    #[test]
    fn faults_can_be_limited_to_a_range() {
        let (d, f) = Fault::new(Memory::new(8192, 0));
        f.fail_writes(true);
        f.only(Some(ByteRange::new(4096, 8192)));
        assert!(block_on(d.write(ByteOffset(0), Data::zeroes(4096))).is_ok());
        assert!(block_on(d.write(ByteOffset(4000), Data::zeroes(200))).is_err());
    }
}
