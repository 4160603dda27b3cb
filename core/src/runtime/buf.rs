//! Buffers: taken from a pool, filled once, then shared without a copy.
//!
//! ```text
//!   Buf   unique, 4 KiB aligned, <= 2 MiB     recv and read write into it
//!    │ freeze
//!   Data  Rc + range, clones are free         disk write, window and socket share one copy
//! ```
//!
//! Memory comes from the thread's [arenas](super::arena). A buffer given back is reused as it is:
//! its content is whatever it held.
#![allow(unsafe_code, reason = "makes slices of the arena's memory; see each SAFETY line")]

use std::ops::{Deref, DerefMut, Range};
use std::rc::Rc;

use super::arena::Block;

/// The largest buffer, in bytes: one huge page.
pub const BUF_MAX: usize = super::arena::ARENA;

/// A unique buffer. Its start is aligned to 4 KiB, its content undefined until written.
pub struct Buf {
    block: Block,
    len: usize,
}

impl std::fmt::Debug for Buf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buf({})", self.len)
    }
}

impl Buf {
    /// A buffer of `len` bytes, at most [`BUF_MAX`].
    ///
    /// # Panics
    /// If `len` is more: every caller bounds its requests, so that is a bug here and not input.
    pub fn new(len: usize) -> Self {
        let Some(block) = Block::new(len) else {
            panic!("a buffer of {len} bytes was asked for, the limit is {BUF_MAX}")
        };
        Self { block, len }
    }

    /// A buffer that holds a copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut b = Self::new(bytes.len());
        b.copy_from_slice(bytes);
        b
    }

    /// A buffer of zeroes.
    pub fn zeroed(len: usize) -> Self {
        let mut b = Self::new(len);
        b.fill(0);
        b
    }

    /// Forgets all bytes behind `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes it shareable, and no longer writable.
    pub fn freeze(self) -> Data {
        let end = self.len;
        Data { buf: Rc::new(self), range: 0..end }
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the block is ours alone, initialised (zeroed at first) and at least `len` bytes long.
        unsafe { std::slice::from_raw_parts(self.block.memory().as_ptr(), self.len) }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `&mut self` makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.block.memory().as_ptr(), self.len) }
    }
}

/// Part of a frozen buffer. Clones share the bytes.
#[derive(Clone)]
pub struct Data {
    buf: Rc<Buf>,
    range: Range<usize>,
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Data({})", self.len())
    }
}

impl Data {
    /// A copy of `bytes`, at most [`BUF_MAX`] of them.
    pub fn copy_of(bytes: &[u8]) -> Self {
        Buf::copy_of(bytes).freeze()
    }

    /// `len` zero bytes, at most [`BUF_MAX`]; all calls of a thread share one buffer.
    ///
    /// # Panics
    /// If `len` is more than [`BUF_MAX`].
    pub fn zeroes(len: usize) -> Self {
        thread_local! {
            static ZEROES: Rc<Buf> = Rc::new(Buf::zeroed(BUF_MAX));
        }
        assert!(len <= BUF_MAX, "{len} zeroes were asked for, the limit is {BUF_MAX}");
        Self { buf: ZEROES.with(Rc::clone), range: 0..len }
    }

    /// The bytes `part` of it, sharing the buffer.
    ///
    /// # Panics
    /// If `part` reaches beyond its end, as slicing does.
    #[must_use]
    pub fn slice(&self, part: Range<usize>) -> Self {
        assert!(
            part.start <= part.end && part.end <= self.len(),
            "slice {part:?} of {} bytes",
            self.len()
        );
        Self {
            buf: self.buf.clone(),
            range: self.range.start + part.start..self.range.start + part.end,
        }
    }
}

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buf.get(self.range.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_of_a_slice_shows_the_same_bytes() {
        let d = Data::copy_of(b"0123456789");
        assert_eq!(&*d.slice(2..8).slice(1..3), b"34");
        assert_eq!(&*Data::zeroes(3), [0, 0, 0]);
    }

    #[test]
    fn buffers_are_aligned_and_reused() {
        let a = Buf::new(5000);
        let p = a.as_ptr();
        assert_eq!(p.addr() % 4096, 0);
        drop(a);
        assert_eq!(Buf::new(16000).as_ptr(), p);
        assert_eq!(Buf::new(0).len(), 0);
    }
}
