//! A disk in memory, for tests: every request completes at the call.

use std::cell::RefCell;
use std::future::{Future, ready};
use std::rc::Rc;

use super::{Disk, Error, Result};
use crate::runtime::{Buf, Data};
use crate::units::{ByteOffset, ByteRange, u64_of, usize_of};

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Memory(Rc<RefCell<Vec<u8>>>);

impl Memory {
    /// `len` bytes of `fill`.
    pub fn new(len: u64, fill: u8) -> Self {
        Self(Rc::new(RefCell::new(vec![fill; usize_of(len)])))
    }

    /// A copy of its content.
    pub fn content(&self) -> Vec<u8> {
        self.0.borrow().clone()
    }

    fn with<T>(
        &self,
        what: &str,
        at: u64,
        len: usize,
        f: impl FnOnce(&mut [u8]) -> T,
    ) -> Result<T> {
        let mut mem = self.0.borrow_mut();
        let total = u64_of(mem.len());
        let end = at.saturating_add(u64_of(len));
        let part = mem.get_mut(usize_of(at)..usize_of(end));
        part.map(f).ok_or_else(|| Error::beyond_end(what, ByteRange::new(at, end), total))
    }
}

impl Disk for Memory {
    fn len(&self) -> u64 {
        u64_of(self.0.borrow().len())
    }

    fn read(
        &self,
        at: ByteOffset,
        mut buf: Buf,
    ) -> impl Future<Output = (Buf, Result<()>)> + 'static {
        let len = buf.len();
        let r = self.with("read", at.0, len, |m| buf.copy_from_slice(m));
        ready((buf, r))
    }

    fn write(&self, at: ByteOffset, data: Data) -> impl Future<Output = Result<()>> + 'static {
        ready(self.with("write", at.0, data.len(), |m| m.copy_from_slice(&data)))
    }

    fn writev(
        &self,
        at: ByteOffset,
        data: Vec<Data>,
    ) -> impl Future<Output = Result<()>> + 'static {
        let mut at = at.0;
        let mut all = Ok(());
        for d in data {
            all = all.and(self.with("write", at, d.len(), |m| m.copy_from_slice(&d)));
            at += u64_of(d.len());
        }
        ready(all)
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        _punch: bool,
    ) -> impl Future<Output = Result<()>> + 'static {
        ready(self.with("write zeroes", range.start, usize_of(range.len()), |m| m.fill(0)))
    }

    fn flush(&self) -> impl Future<Output = Result<()>> + 'static {
        ready(Ok(()))
    }
}
