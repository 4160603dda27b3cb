//! One machine: its clock, its files, its lives.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::dir::Directory;
use super::faults::Injected;
use super::random::Random;
use crate::runtime::Signal;

/// A machine; outlives its crashes.
pub(super) struct Node {
    pub(super) id: usize,
    pub(super) name: String,
    /// The tag of its present life: of its tasks, events, handles and streams.
    pub(super) tag: Cell<u32>,
    pub(super) incarnation: Cell<u32>,
    /// How often its power has failed.
    pub(super) power_cuts: Cell<u32>,
    pub(super) clock: Cell<Clock>,
    /// Its tasks don't run (SIGSTOP); its kernel does.
    pub(super) paused: Cell<bool>,
    /// Whether its kernel answers. Not between a power cut and its next use.
    pub(super) up: Cell<bool>,
    pub(super) random: Random,
    pub(super) directories: RefCell<BTreeMap<String, Rc<Directory>>>,
    /// What requests of files opened from now on must be aligned to.
    pub(super) alignment: Cell<u64>,
    pub(super) injected: Injected,
    /// How many times slower than the world's its disks are.
    pub(super) disk_slowness: Cell<u32>,
    /// How many times slower than its other files its replicas are.
    pub(super) replica_slowness: Cell<u32>,
    /// How many sync points it has passed.
    pub(super) syncs: Cell<u64>,
    pub(super) armed: Cell<Option<super::sync::Armed>>,
    /// Notified at each crash.
    pub(super) died: Signal,
}

impl Node {
    pub(super) fn new(id: usize, name: &str, tag: u32, random: Random) -> Self {
        // Boot clocks of two machines have nothing to do with each other.
        let base = Duration::from_millis(random.below(1_000_000));
        Self {
            id,
            name: name.to_owned(),
            tag: Cell::new(tag),
            incarnation: Cell::new(1),
            power_cuts: Cell::new(0),
            clock: Cell::new(Clock { since: Duration::ZERO, base, ppm: 0 }),
            paused: Cell::new(false),
            up: Cell::new(true),
            random,
            directories: RefCell::default(),
            alignment: Cell::new(1),
            injected: Injected::default(),
            disk_slowness: Cell::new(1),
            replica_slowness: Cell::new(1),
            syncs: Cell::new(0),
            armed: Cell::new(None),
            died: Signal::new(),
        }
    }
}

/// A boot clock: runs with the world's time, somewhat faster or slower.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// The world's time from which on this holds, and what the clock showed then.
    pub(super) since: Duration,
    pub(super) base: Duration,
    /// Parts per million it is too fast; -1,000,000 stands still.
    pub(super) ppm: i64,
}

const MILLION: u128 = 1_000_000;

impl Clock {
    fn rate(self) -> u128 {
        u128::try_from(1_000_000_i64.saturating_add(self.ppm)).unwrap_or(0)
    }

    /// What it shows at the world's time `world`.
    pub(super) fn shows(self, world: Duration) -> Duration {
        self.base.saturating_add(nanos(
            world.saturating_sub(self.since).as_nanos() * self.rate() / MILLION,
        ))
    }

    /// The world's time at which it shows `local`; never, if it stands still.
    pub(super) fn world_at(self, local: Duration) -> Option<Duration> {
        let rate = self.rate();
        let ahead = local.saturating_sub(self.base).as_nanos() * MILLION;
        (rate > 0).then(|| self.since.saturating_add(nanos(ahead.div_ceil(rate))))
    }

    /// The same clock, at another rate from `world` on.
    pub(super) fn with_rate(self, world: Duration, ppm: i64) -> Self {
        Self { since: world, base: self.shows(world), ppm }
    }
}

fn nanos(n: u128) -> Duration {
    Duration::from_nanos(u64::try_from(n).unwrap_or(u64::MAX))
}
