//! Looking for answers a little before sleeping.
//!
//! ```text
//!   all disk requests since the last turn were done at the call, none is under way
//!     └─► look for up to 50 µs; three misses in a row: sleep the next times, doubling up to 64
//! ```
//!
//! A sleep and wake-up costs more than a request that the page cache serves (with it, 4 KiB at
//! depth one go from 21 to 53 thousand a second). A device that takes its time gains nothing and
//! loses the CPU to the client, so there is no spin after or during such requests.

use std::io;
use std::time::{Duration, Instant};

use super::Io;
use super::op::Rest;
use super::reactor::Reactor;

/// When to look, learned from what came of it.
pub(crate) struct Spin {
    limit: Duration,
    misses: u32,
    /// Sleeps to go without a look.
    skip: u32,
}

impl Spin {
    /// Looks for `limit` at most; never on a machine with one CPU, where nobody could answer.
    /// Not with epoll either: asking it is a system call each time.
    pub(crate) fn new(limit: Duration, io: &Io) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let limit = if cpus > 1 && *io == Io::Ring { limit } else { Duration::ZERO };
        Self { limit, misses: 0, skip: 0 }
    }

    /// Whether something came while looking; if not, sleep now. `rest` is the sleep.
    pub(crate) fn before_sleep(&mut self, reactor: &Reactor, rest: Rest) -> io::Result<bool> {
        if self.limit.is_zero() || !reactor.was_inline() {
            return Ok(false);
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(false);
        }
        let start = Instant::now();
        let limit = if let Rest::For(limit) = rest { limit.min(self.limit) } else { self.limit };
        // What is queued must be under way before anything can come of it.
        if reactor.turn(Rest::No)? > 0 {
            return Ok(true);
        }
        loop {
            if reactor.has_news() || reactor.remote.is_poked() {
                self.misses = 0;
                return Ok(true);
            }
            if start.elapsed() >= limit {
                break;
            }
            std::hint::spin_loop();
        }
        self.misses += 1;
        if self.misses >= 3 {
            self.skip = 1 << (self.misses - 2).min(6);
        }
        Ok(false)
    }
}
