//! How fast a resync goes: pure arithmetic over what it sent in the current second.
//!
//! ```text
//!   0 ──────────── floor · t ──────────────── ceiling · t ──────► bytes sent since the second began
//!     behind: it takes    ahead: the VM goes first    too fast:
//!     the VM's room                                   it waits
//! ```

use std::time::Duration;

use crate::runtime::Mono;

/// What counts together: a resync that could not send for a while need not make good more than this.
const SPAN: Duration = Duration::from_secs(1);

/// The pace of one resync.
#[derive(Debug)]
pub(super) struct Pace {
    began: Mono,
    sent: u64,
    rate: u64,
    /// What the bytes of this span were held against.
    ceiling: u64,
}

impl Pace {
    pub(super) fn new(now: Mono) -> Self {
        Self { began: now, sent: 0, rate: 0, ceiling: 0 }
    }

    /// So many bytes entered the window.
    pub(super) fn sent(&mut self, now: Mono, bytes: u64) {
        self.sent += bytes;
        let passed = now.since(self.began);
        if passed >= SPAN {
            let now_rate = per_second(self.sent, passed);
            // Half old, half new: an estimate that does not jump.
            self.rate = if self.rate == 0 { now_rate } else { u64::midpoint(self.rate, now_rate) };
            (self.began, self.sent) = (now, 0);
        }
    }

    /// Bytes a second, once it is known; else of what was sent so far.
    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    /// Whether it has sent less than `floor` bytes a second, and not only just begun.
    pub(super) fn is_behind(&self, now: Mono, floor: u64) -> bool {
        let passed = now.since(self.began);
        passed >= SPAN / 20
            && u128::from(self.sent) * 1_000_000 < u128::from(floor) * micros(passed)
    }

    /// How long it has to wait not to exceed `ceiling` bytes a second, `under_way` being about to be sent;
    /// zero is no ceiling. A second at most: then it is time to look again.
    pub(super) fn wait(&mut self, now: Mono, ceiling: u64, under_way: u64) -> Option<Duration> {
        if ceiling != std::mem::replace(&mut self.ceiling, ceiling) {
            // What was sent under another one is not held against this one.
            (self.began, self.sent) = (now, 0);
        }
        if ceiling == 0 {
            return None;
        }
        let due = u128::from(self.sent.saturating_add(under_way)) * 1_000_000 / u128::from(ceiling);
        let wait = due.checked_sub(micros(now.since(self.began))).filter(|us| *us > 0)?;
        Some(Duration::from_micros(u64::try_from(wait).unwrap_or(u64::MAX)).min(SPAN))
    }
}

fn micros(d: Duration) -> u128 {
    d.as_micros()
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000_000 / micros(time).max(1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono::default().after(Duration::from_millis(ms))
    }

    #[test]
    fn a_resync_is_behind_below_its_floor_and_waits_above_its_ceiling() {
        let mut pace = Pace::new(at(0));
        assert!(!pace.is_behind(at(10), 1000), "it has only just begun");
        assert!(pace.is_behind(at(100), 1000));
        pace.sent(at(100), 100);
        assert!(!pace.is_behind(at(100), 1000));
        assert!(pace.is_behind(at(101), 1000));
        assert!(!pace.is_behind(at(101), 0));
        let mut pace = Pace::new(at(0));
        assert_eq!(pace.wait(at(0), 500, 0), None);
        pace.sent(at(100), 100);
        assert_eq!(pace.wait(at(100), 500, 0), Some(Duration::from_millis(100)));
        assert_eq!(pace.wait(at(200), 500, 0), None);
        assert_eq!(pace.wait(at(200), 500, 50), Some(Duration::from_millis(100)));
        assert_eq!(pace.wait(at(100), 0, 7), None);
    }

    #[test]
    fn a_lower_ceiling_holds_from_now_on_and_no_wait_is_longer_than_a_second() {
        let mut pace = Pace::new(at(0));
        assert_eq!(pace.wait(at(0), 1 << 30, 0), None);
        pace.sent(at(900), 900 << 20);
        assert_eq!(pace.wait(at(900), 1 << 20, 0), None);
        pace.sent(at(900), 256 << 20);
        assert_eq!(pace.wait(at(900), 1 << 20, 0), Some(SPAN));
    }

    #[test]
    fn a_second_is_forgotten_when_it_is_over_and_gives_the_rate() {
        let mut pace = Pace::new(at(0));
        assert_eq!(pace.rate(), 0);
        pace.sent(at(1000), 5000);
        assert_eq!(pace.rate(), 5000);
        assert_eq!(pace.wait(at(1000), 10, 0), None);
        pace.sent(at(2000), 1000);
        assert_eq!(pace.rate(), 3000);
    }
}
