//! Buffers: taken from a pool, filled once, then shared without a copy.
//!
//! ```text
//!   Buf   unique, 4 KiB aligned, <= 2 MiB     recv and read write into it
//!    │ freeze
//!   Data  Rc + range, clones are free         disk write, window and socket share one copy
//! ```
//!
//! The pool is one free list per size class and thread. A buffer given back is reused as it is:
//! its content is whatever it held.
#![allow(unsafe_code, reason = "the one place that hands out raw memory; see each SAFETY line")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::rc::Rc;

/// The largest buffer, in bytes: one huge page.
pub const BUF_MAX: usize = 2 << 20;

/// Alignment of every buffer, in bytes: what `O_DIRECT` may ask for.
const ALIGN: usize = 4096;

/// Size classes: 4 KiB << (2 * class), the last one is [`BUF_MAX`].
const CLASSES: [usize; 6] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, BUF_MAX];

/// The most bytes kept on one free list; the rest goes back to the allocator.
const KEPT_MAX: usize = 32 << 20;

thread_local! {
    static FREE: RefCell<[Vec<NonNull<u8>>; CLASSES.len()]> = RefCell::default();
}

/// A unique buffer. Its start is aligned to 4 KiB, its content undefined until written.
pub struct Buf {
    mem: NonNull<u8>,
    class: usize,
    len: usize,
}

impl std::fmt::Debug for Buf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buf({})", self.len)
    }
}

fn layout(class: usize) -> Layout {
    // The classes are constants that satisfy `Layout`'s conditions; the fallback is never taken.
    Layout::from_size_align(CLASSES[class], ALIGN).unwrap_or(Layout::new::<u8>())
}

impl Buf {
    /// A buffer of `len` bytes, at most [`BUF_MAX`].
    ///
    /// # Panics
    /// If `len` is more: every caller bounds its requests, so that is a bug here and not input.
    pub fn new(len: usize) -> Self {
        let Some(class) = CLASSES.iter().position(|c| len <= *c) else {
            panic!("a buffer of {len} bytes was asked for, the limit is {BUF_MAX}")
        };
        let kept = FREE.try_with(|f| f.borrow_mut()[class].pop()).ok().flatten();
        let mem = kept.unwrap_or_else(|| {
            // SAFETY: the layout of a class has a size above zero.
            let p = unsafe { alloc_zeroed(layout(class)) };
            NonNull::new(p).unwrap_or_else(|| handle_alloc_error(layout(class)))
        });
        Self { mem, class, len }
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
        // SAFETY: `mem` is ours alone, initialised (zeroed at first) for CLASSES[class] >= len bytes.
        unsafe { std::slice::from_raw_parts(self.mem.as_ptr(), self.len) }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `&mut self` makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.mem.as_ptr(), self.len) }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        let kept = FREE.try_with(|f| {
            let list = &mut f.borrow_mut()[self.class];
            let keep = list.len() < KEPT_MAX / CLASSES[self.class];
            if keep {
                list.push(self.mem);
            }
            keep
        });
        if kept != Ok(true) {
            // SAFETY: allocated by `new` with this very layout, and freed nowhere else.
            unsafe { dealloc(self.mem.as_ptr(), layout(self.class)) }
        }
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
        assert_eq!(p.addr() % ALIGN, 0);
        drop(a);
        assert_eq!(Buf::new(16000).as_ptr(), p);
        assert_eq!(Buf::new(0).len(), 0);
    }
}
