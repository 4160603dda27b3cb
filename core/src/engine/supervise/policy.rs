//! What follows when the program ends: a pure decision.
//!
//! ```text
//!   told to end ─────────────────────────► finish, with its code
//!   ended by itself, nobody holds on ────► finish, with 0
//!   died, or ended while others live ────► restart: at once, 100 ms, 200 ms, … 5 s
//!   the 8th short life in a row ─────────► give up, unless others live
//! ```

use std::fmt;
use std::time::Duration;

/// A life this long was a good one: what came before it is forgotten. What can't start ends sooner.
const WELL: Duration = Duration::from_secs(3);

/// The pause before the second restart in a row; it doubles. A VM waits for the first one as long as the
/// start takes, and no longer.
const SHORTEST: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(5);

/// So many short lives in a row, and whoever started us shall see it: about 6 s.
const SHORT_LIVES: u32 = 8;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// With this exit status.
    Exit(u8),
    /// By this signal.
    Signal(u8),
}

impl End {
    /// As a shell would put it into one number.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Exit(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// One life of the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// How it ended.
    pub(super) end: End,
    /// How long it was.
    pub(super) length: Duration,
    /// We were told to end, and told it.
    pub(super) told: bool,
    /// Processes that it left to us live: they must not end because it did.
    pub(super) others: bool,
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Start it again, after a pause.
    Restart(Duration),
    /// End with this exit status.
    Finish(u8),
    /// End with this exit status: it does not come up.
    GiveUp(u8),
}

/// What is remembered between lives.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Policy {
    /// Short lives in a row.
    short: u32,
}

impl Policy {
    /// Decides after a life.
    pub(super) fn after(&mut self, life: Life) -> Next {
        let Life { end, length, told, others } = life;
        if told || (end == End::Exit(0) && !others) {
            return Next::Finish(end.code());
        }
        if length >= WELL {
            self.short = 0;
        }
        self.short = self.short.saturating_add(1);
        if self.short >= SHORT_LIVES && !others {
            return Next::GiveUp(end.code());
        }
        Next::Restart(pause(self.short))
    }
}

/// The pause before the n-th restart in a row.
fn pause(n: u32) -> Duration {
    let Some(doublings) = n.checked_sub(2) else { return Duration::ZERO };
    // 2⁶ × 100 ms is more than the longest already.
    (SHORTEST * 2_u32.pow(doublings.min(6))).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASH: Life =
        Life { end: End::Signal(9), length: Duration::from_millis(10), told: false, others: false };

    #[test]
    fn the_first_restart_is_at_once_and_the_pauses_double_up_to_a_limit() {
        let mut policy = Policy::default();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let Next::Restart(pause) = policy.after(Life { others: true, ..CRASH }) else { break };
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000, 5000, 5000]);
    }

    #[test]
    fn a_program_that_does_not_come_up_is_given_up_with_its_code() {
        let mut policy = Policy::default();
        let failed = Life { end: End::Exit(3), ..CRASH };
        for _ in 1..SHORT_LIVES {
            assert!(matches!(policy.after(failed), Next::Restart(_)));
        }
        assert_eq!(policy.after(failed), Next::GiveUp(3));
    }

    #[test]
    fn nothing_is_given_up_while_others_live() {
        let mut policy = Policy::default();
        for _ in 0..100 {
            assert!(matches!(policy.after(Life { others: true, ..CRASH }), Next::Restart(_)));
        }
        assert_eq!(policy.after(CRASH), Next::GiveUp(137), "now it may");
    }

    #[test]
    fn a_good_life_makes_the_bad_ones_forgotten() {
        let mut policy = Policy::default();
        assert_eq!(policy.after(CRASH), Next::Restart(Duration::ZERO));
        for _ in 0..100 {
            for short in 2..SHORT_LIVES {
                assert_eq!(policy.after(CRASH), Next::Restart(pause(short)));
            }
            let well = policy.after(Life { length: WELL, ..CRASH });
            assert_eq!(well, Next::Restart(Duration::ZERO));
        }
    }

    #[test]
    fn what_was_told_to_end_is_never_started_again() {
        for end in [End::Exit(0), End::Exit(1), End::Signal(15)] {
            for others in [false, true] {
                let told = Life { end, told: true, others, ..CRASH };
                assert_eq!(Policy::default().after(told), Next::Finish(end.code()));
            }
        }
    }

    #[test]
    fn an_end_of_its_own_accord_is_the_end_unless_others_live() {
        let ended = Life { end: End::Exit(0), ..CRASH };
        assert_eq!(Policy::default().after(ended), Next::Finish(0));
        let others = Life { others: true, ..ended };
        assert_eq!(Policy::default().after(others), Next::Restart(Duration::ZERO));
    }
}
