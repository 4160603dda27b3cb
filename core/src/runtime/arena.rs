//! Huge pages cut into blocks, per thread.
//!
//! ```text
//!   arena (2 MiB, aligned, MADV_HUGEPAGE): [block][block][block]...   one size class each
//!   class: arenas that have a free block, the last one used first
//! ```
//!
//! Requests of a mebibyte to a disk are twice as fast from huge pages: the device is given one
//! piece of memory and not 256. A block keeps its arena alive, so a buffer may outlive the thread's
//! lists (it is dropped on its own thread all the same: it can't be sent).
#![allow(unsafe_code, reason = "the one place that maps memory; see each SAFETY line")]

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// The size and alignment of an arena, in bytes: one huge page on x86-64 and on most arm64.
pub(crate) const ARENA: usize = 2 << 20;

/// Size classes: 4 KiB << (2 * class), the last one is a whole arena.
const CLASSES: [usize; 6] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, ARENA];

/// How many arenas a class keeps though all their blocks are free; the rest is unmapped.
const KEPT: usize = 16;

thread_local! {
    static POOL: RefCell<[Class; CLASSES.len()]> = RefCell::default();
}

/// The arenas of one size class.
#[derive(Default)]
struct Class {
    /// Those with a free block.
    usable: Vec<Rc<Arena>>,
    /// How many of them are all free.
    unused: usize,
}

struct Arena {
    base: NonNull<u8>,
    class: usize,
    /// Numbers of the free blocks, the last one given back last.
    free: RefCell<Vec<u16>>,
    /// Whether it is in the class's list.
    listed: Cell<bool>,
}

/// Memory of its class's size, aligned to 4 KiB; zeroed when new, else as it was left.
pub(crate) struct Block {
    arena: Rc<Arena>,
    number: u16,
}

fn count(class: usize) -> usize {
    CLASSES.get(class).map_or(0, |size| ARENA / size)
}

impl Block {
    /// At least `len` bytes; `None` if that is more than an arena.
    pub(crate) fn new(len: usize) -> Option<Self> {
        let class = CLASSES.iter().position(|c| len <= *c)?;
        let kept = POOL.try_with(|pool| pool.borrow_mut().get_mut(class).map(|c| c.take(class)));
        // The thread is ending and its lists are gone: an arena for this block alone.
        Some(kept.ok().flatten().unwrap_or_else(|| Class::default().take(class)))
    }

    /// Where it is.
    pub(crate) fn memory(&self) -> NonNull<u8> {
        let size = CLASSES.get(self.arena.class).copied().unwrap_or(ARENA);
        // SAFETY: the number is below `count`, so the block lies inside the arena's mapping.
        unsafe { self.arena.base.add(usize::from(self.number) * size) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // Without the lists, the arena goes with its last block.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            let class = pool.get_mut(self.arena.class)?;
            class.give(&self.arena, self.number)
        });
    }
}

impl Class {
    fn take(&mut self, class: usize) -> Block {
        loop {
            let Some(arena) = self.usable.last().cloned() else {
                self.usable.push(Rc::new(Arena::new(class)));
                self.unused += 1;
                continue;
            };
            let mut free = arena.free.borrow_mut();
            if free.len() == count(class) {
                self.unused -= 1;
            }
            let taken = free.pop();
            if free.is_empty() {
                arena.listed.set(false);
                self.usable.pop();
            }
            drop(free);
            if let Some(number) = taken {
                return Block { arena, number };
            }
        }
    }

    /// Takes a block back. What it returns is dropped by the caller: an arena that is too many.
    fn give(&mut self, arena: &Rc<Arena>, number: u16) -> Option<Rc<Arena>> {
        let mut free = arena.free.borrow_mut();
        free.push(number);
        let all_free = free.len() == count(arena.class);
        drop(free);
        if !arena.listed.replace(true) {
            self.usable.push(arena.clone());
        }
        if !all_free {
            return None;
        }
        self.unused += 1;
        if self.unused <= KEPT {
            return None;
        }
        self.unused -= 1;
        let at = self.usable.iter().position(|a| Rc::ptr_eq(a, arena))?;
        arena.listed.set(false);
        Some(self.usable.swap_remove(at))
    }
}

impl Arena {
    fn new(class: usize) -> Self {
        let numbers = 0..u16::try_from(count(class)).unwrap_or(0);
        Self {
            base: map(),
            class,
            free: RefCell::new(numbers.rev().collect()),
            listed: Cell::new(true),
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and every block of it is gone: each holds the arena.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), ARENA) };
        debug_assert!(unmapped.is_ok());
    }
}

/// Maps an arena. No memory for one: the process ends, as it does for any allocation.
fn map() -> NonNull<u8> {
    let layout = std::alloc::Layout::new::<[u8; ARENA]>();
    // Twice the size, then both ends are cut off so that the rest is aligned.
    // SAFETY: a new mapping at a place that the kernel chooses touches no other memory.
    let mapped = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            2 * ARENA,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    };
    let Some(start) = mapped.ok().map(<*mut _>::cast::<u8>).and_then(NonNull::new) else {
        std::alloc::handle_alloc_error(layout)
    };
    let head = start.as_ptr().align_offset(ARENA);
    // SAFETY: all three stay inside the mapping of two arenas: `head` is below ARENA. What is
    // unmapped is ours and unused. A page that can't be unmapped, or be huge, does no harm.
    unsafe {
        let base = start.add(head);
        if head > 0 {
            let _ = munmap(start.as_ptr().cast(), head);
        }
        let _ = munmap(base.add(ARENA).as_ptr().cast(), ARENA - head);
        let _ = madvise(base.as_ptr().cast(), ARENA, Advice::LinuxHugepage);
        base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unused_and_usable(class: usize) -> (usize, usize) {
        POOL.with(|p| (p.borrow()[class].unused, p.borrow()[class].usable.len()))
    }

    #[test]
    fn blocks_of_all_sizes_are_aligned_apart_and_zeroed_when_new() {
        let mut blocks = Vec::new();
        for round in 0..3 {
            for size in CLASSES {
                for _ in 0..5 {
                    let b = Block::new(size - round).unwrap();
                    let at = b.memory().as_ptr();
                    assert_eq!(at.addr() % 4096, 0);
                    // SAFETY: the block is that long and nobody else's.
                    let bytes = unsafe { std::slice::from_raw_parts_mut(at, size) };
                    assert!(bytes.iter().all(|x| *x == 0));
                    bytes.fill(1);
                    blocks.push((at.addr(), size, b));
                }
            }
        }
        blocks.sort_by_key(|b| b.0);
        assert!(blocks.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0));
        assert!(Block::new(ARENA + 1).is_none());
    }

    #[test]
    fn what_a_burst_took_is_given_back_but_for_a_bounded_rest() {
        let mut blocks: Vec<_> = (0..40 * 512).map(|_| Block::new(4096).unwrap()).collect();
        // In an order that frees all arenas at about the same time.
        blocks.sort_by_key(|b| b.memory().addr().get() / 4096 % 512);
        assert_eq!(unused_and_usable(0), (0, 0));
        drop(blocks);
        assert_eq!(unused_and_usable(0), (KEPT, KEPT));
        let one = Block::new(1).unwrap();
        assert_eq!(unused_and_usable(0), (KEPT - 1, KEPT));
        drop(one);
    }

    #[test]
    fn a_block_may_outlive_the_lists_of_its_thread() {
        struct Late(RefCell<Vec<Block>>);
        impl Drop for Late {
            fn drop(&mut self) {
                for b in self.0.take() {
                    // SAFETY: the block is at least that long and ours.
                    unsafe { b.memory().as_ptr().write_bytes(7, 4096) };
                }
                let _ = Block::new(4096);
            }
        }
        thread_local!(static LATE: Late = const { Late(RefCell::new(Vec::new())) });
        std::thread::spawn(|| {
            // Whichever of the two thread-locals goes first: both orders must do.
            LATE.with(|l| l.0.borrow_mut().push(Block::new(4096).unwrap()));
            LATE.with(|l| l.0.borrow_mut().push(Block::new(ARENA).unwrap()));
        })
        .join()
        .unwrap();
        std::thread::spawn(|| {
            let first = Block::new(4096).unwrap();
            LATE.with(|l| l.0.borrow_mut().push(first));
        })
        .join()
        .unwrap();
    }
}
