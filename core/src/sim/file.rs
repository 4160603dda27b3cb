//! A file: what its machine's memory holds of it, what the platter holds, and what lies between.
//!
//! ```text
//!   write ─► in flight ─► cache (reads see it)  ─ flush ─► platter
//!                └──────── unsynced, in order ─────┘
//!            at a power cut each unsynced effect is kept, lost, or kept sector by sector
//! ```

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use super::disk::Open;
use super::pages::{Effect, Pages};
use super::random::Random;
use crate::disk::Space;
use crate::runtime::Signal;
use crate::units::{ByteRange, usize_of};

/// What a power cut keeps of what was written and not flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// The seed decides for each effect, down to the sector.
    BySeed,
    /// All of it.
    All,
    /// None of it.
    Nothing,
}

/// Which of its two contents an oracle wants to see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    /// What a read would see now.
    Volatile,
    /// What is surely there after a power cut.
    Durable,
}

/// A file. Outlives its name, its handles and the lives of its machine.
pub(super) struct File {
    pub(super) path: RefCell<Rc<str>>,
    pub(super) len: Cell<u64>,
    space: Space,
    cache: RefCell<Pages>,
    platter: RefCell<Pages>,
    unsynced: RefCell<VecDeque<Effect>>,
    /// How many effects were taken off the front of `unsynced` since the file was made.
    synced: Cell<usize>,
    /// Requests of an earlier life, or of dropped handles, that may still take effect.
    pub(super) in_flight: Cell<u32>,
    pub(super) settled: Signal,
    pub(super) open: RefCell<Weak<Open>>,
}

impl File {
    pub(super) fn new(path: &str, len: u64, space: Space) -> Rc<Self> {
        Rc::new(Self {
            path: RefCell::new(path.into()),
            len: Cell::new(len),
            space,
            cache: RefCell::default(),
            platter: RefCell::default(),
            unsynced: RefCell::default(),
            synced: Cell::new(0),
            in_flight: Cell::new(0),
            settled: Signal::new(),
            open: RefCell::default(),
        })
    }

    pub(super) fn read(&self, range: ByteRange, out: &mut [u8]) {
        self.cache.borrow().read(range, out);
    }

    pub(super) fn peek(&self, range: ByteRange, held: Held) -> Vec<u8> {
        let mut out = vec![0; usize_of(range.len())];
        match held {
            Held::Volatile => self.cache.borrow().read(range, &mut out),
            Held::Durable => self.platter.borrow().read(range, &mut out),
        }
        out
    }

    /// Puts it into both copies, as an oracle's or a cosmic ray's hand would.
    pub(super) fn poke(&self, effect: &Effect) {
        self.cache.borrow_mut().apply(effect);
        self.platter.borrow_mut().apply(effect);
    }

    pub(super) fn allocation(&self, range: ByteRange) -> Vec<(ByteRange, bool)> {
        match self.space {
            Space::Sparse => self.cache.borrow().allocation(range),
            Space::Written => vec![(range, true)],
        }
    }

    /// A request takes effect: seen by reads, not yet durable.
    pub(super) fn apply(&self, effect: Effect) {
        self.cache.borrow_mut().apply(&effect);
        self.unsynced.borrow_mut().push_back(effect);
    }

    /// The place a flush that begins now will cover.
    pub(super) fn horizon(&self) -> usize {
        self.synced.get() + self.unsynced.borrow().len()
    }

    /// Takes off what stands before `horizon` and was not synced before.
    fn take(&self, horizon: usize) -> Vec<Effect> {
        let mut unsynced = self.unsynced.borrow_mut();
        let count = horizon.saturating_sub(self.synced.get()).min(unsynced.len());
        self.synced.set(self.synced.get() + count);
        unsynced.drain(..count).collect()
    }

    /// A flush succeeded.
    pub(super) fn sync(&self, horizon: usize) {
        let effects = self.take(horizon);
        let mut platter = self.platter.borrow_mut();
        for effect in &effects {
            platter.apply(effect);
        }
    }

    /// A flush failed: what it covered is on the platter or not, and counts as clean all the same.
    /// Reads see the new content, or, where the kernel has dropped its pages, the platter's.
    pub(super) fn sync_failed(&self, horizon: usize, random: &Random) {
        let effects = self.take(horizon);
        self.settle(&effects, random, Keep::BySeed);
        if random.one_in(2) {
            self.forget_cached();
        }
    }

    /// Memory lets go of what counts as clean: reads see the platter, and what is dirty.
    pub(super) fn forget_cached(&self) {
        let mut cache = self.platter.borrow().clone();
        for effect in &*self.unsynced.borrow() {
            cache.apply(effect);
        }
        *self.cache.borrow_mut() = cache;
    }

    /// The power fails: what was not synced is kept or not, memory is empty.
    pub(super) fn power_cut(&self, random: &Random, keep: Keep) {
        let effects = self.take(usize::MAX);
        self.settle(&effects, random, keep);
        *self.cache.borrow_mut() = self.platter.borrow().clone();
    }

    fn settle(&self, effects: &[Effect], random: &Random, keep: Keep) {
        let mut platter = self.platter.borrow_mut();
        // Some power cuts lose all, some nothing: mixtures alone would hardly ever show either.
        let style = match keep {
            Keep::BySeed => random.below(6),
            Keep::Nothing => 0,
            Keep::All => 1,
        };
        for effect in effects {
            match (style, random.below(3)) {
                (0, _) | (2.., 0) => {}
                (1, _) | (2.., 1) => platter.apply(effect),
                (2.., _) => {
                    effect.sectors().filter(|_| random.one_in(2)).for_each(|s| platter.apply(&s));
                }
            }
        }
    }
}
