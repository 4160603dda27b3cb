//! One side of a stream: what comes to it, and how the stream ended for it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use super::host::SimHost;
use crate::runtime::{Data, Signal};

/// What travels.
pub(super) enum Item {
    Bytes(Data),
    /// No more will come.
    End,
    /// The far end is gone.
    Reset,
}

/// One side: who it is, what comes to it, and how it ended.
pub(super) struct Side {
    pub(super) host: SimHost,
    pub(super) flying: RefCell<VecDeque<Item>>,
    pub(super) arrived: RefCell<VecDeque<Data>>,
    /// Bytes of both, and those read whose sender can't know yet.
    pub(super) bytes: Cell<usize>,
    pub(super) unconfirmed: Cell<usize>,
    /// When the last of what flies is due.
    pub(super) due: Cell<Duration>,
    /// Deliveries that found the way blocked.
    pub(super) held: Cell<usize>,
    /// Its own shutdown.
    pub(super) closed: Cell<bool>,
    /// The far end's shutdown has arrived.
    pub(super) ended: Cell<bool>,
    pub(super) reset: Cell<bool>,
    pub(super) changed: Signal,
}

impl Side {
    pub(super) fn new(host: SimHost) -> Self {
        Self {
            host,
            flying: RefCell::default(),
            arrived: RefCell::default(),
            bytes: Cell::new(0),
            unconfirmed: Cell::new(0),
            due: Cell::new(Duration::ZERO),
            held: Cell::new(0),
            closed: Cell::new(false),
            ended: Cell::new(false),
            reset: Cell::new(false),
            changed: Signal::new(),
        }
    }

    /// Learns that the connection is gone; what had arrived may be gone too.
    pub(super) fn break_off(&self) {
        if self.host.world().network.random.one_in(2) {
            self.arrived.borrow_mut().clear();
        }
        self.reset.set(true);
        self.changed.notify();
    }

    /// Takes up to `out.len()` bytes that have arrived, often fewer.
    pub(super) fn take(&self, out: &mut [u8]) -> usize {
        let random = &self.host.world().network.random;
        let mut arrived = self.arrived.borrow_mut();
        let there: usize = arrived.iter().map(|d| d.len()).sum();
        let most = there.min(out.len());
        let n = if random.one_in(4) { (1 + random.index(most)).min(most) } else { most };
        let mut filled = 0;
        while filled < n
            && let Some(piece) = arrived.pop_front()
        {
            let count = piece.len().min(n - filled);
            if let Some(out) = out.get_mut(filled..filled + count) {
                out.copy_from_slice(&piece.slice(0..count));
            }
            if count < piece.len() {
                arrived.push_front(piece.slice(count..piece.len()));
            }
            filled += count;
        }
        filled
    }
}
