//! Which faults a round has, and when: pure, from the seed and the round's number alone.
//!
//! ```text
//!   all kinds, shuffled by the seed:   │ a b │ c d │ e f │ g h │ i j │ shuffled anew │ …      two a round
//!   a round:    0 s ── begin a ───────── end a ──►              lengths and distances by chance,
//!                          └─ begin b ───────────── end b ──►   the second also into the first
//! ```
//!
//! So five rounds have every kind once, and a round can be played again by itself. The loss of a node is
//! the last fault of its round, and begins when the other has ended, but not its consequences.

use std::time::Duration;

use super::fault::Kind;
use crate::random::Random;

/// One fault of a round, by time since the round's begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) begin: Duration,
    pub(super) end: Duration,
}

/// A round.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Round {
    pub(super) number: u32,
    pub(super) faults: [Fault; 2],
}

/// A moment of a round: a fault begins or ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moment {
    pub(super) at: Duration,
    pub(super) kind: Kind,
    pub(super) begins: bool,
}

const PER_ROUND: usize = 2;

/// How many rounds have every kind once.
pub const ROUNDS_OF_ALL: u32 = 5;

const _: () = assert!(Kind::ALL.len() == PER_ROUND * 5);

impl Round {
    /// The round of this number, from 1, of a soak with this seed.
    pub(super) fn new(seed: u64, number: u32) -> Self {
        let index = number.saturating_sub(1);
        let (pass, place) = (index / ROUNDS_OF_ALL, index % ROUNDS_OF_ALL);
        let mut kinds = shuffled(&mut random(seed, 0, pass));
        let mut pair = kinds.split_off(usize::try_from(place).unwrap_or(0) * PER_ROUND);
        pair.truncate(PER_ROUND);
        // What is behind the loss of a node is another pair of nodes.
        pair.sort_by_key(|kind| *kind == Kind::NodeLoss);
        let mut random = random(seed, 1, number);
        let begin = between(&mut random, 300, 1000);
        let first = fault(&mut random, pair[0], begin);
        let begin = if pair[1] == Kind::NodeLoss {
            first.end + between(&mut random, 0, 300)
        } else {
            let latest = u64::try_from(first.end.as_millis()).unwrap_or(u64::MAX) + 500;
            between(&mut random, 300, latest)
        };
        let second = fault(&mut random, pair[1], begin);
        Self { number, faults: [first, second] }
    }

    /// What happens when, in order.
    pub(super) fn moments(&self) -> Vec<Moment> {
        let mut moments: Vec<Moment> = Vec::new();
        for fault in &self.faults {
            let kind = fault.kind;
            moments.push(Moment { at: fault.begin, kind, begins: true });
            moments.push(Moment { at: fault.end, kind, begins: false });
        }
        moments.sort_by_key(|moment| moment.at);
        moments
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (begin, end) = (self.begin.as_secs_f64(), self.end.as_secs_f64());
        if self.kind == Kind::NodeLoss {
            return write!(f, "{} at {begin:.1} s", self.kind);
        }
        write!(f, "{} {begin:.1}-{end:.1} s", self.kind)
    }
}

/// Numbers of a purpose that no other has.
fn random(seed: u64, purpose: u64, number: u32) -> Random {
    let mut random = Random::new(seed ^ purpose << 62);
    Random::new(random.next_u64() ^ u64::from(number))
}

fn shuffled(random: &mut Random) -> Vec<Kind> {
    let mut kinds = Kind::ALL.to_vec();
    for last in (1..kinds.len()).rev() {
        let other = random.below(u64::try_from(last).unwrap_or(0) + 1);
        kinds.swap(last, usize::try_from(other).unwrap_or(0));
    }
    kinds
}

/// A time in milliseconds.
fn between(random: &mut Random, least: u64, most: u64) -> Duration {
    Duration::from_millis(least + random.below(most - least + 1))
}

fn fault(random: &mut Random, kind: Kind, begin: Duration) -> Fault {
    let (short, long) = kind.lengths();
    let (least, most) = if random.chance(50) { short } else { long };
    Fault { kind, begin, end: begin + between(random, least, most) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_rounds_have_every_kind_once_and_the_loss_of_a_node_is_the_last_fault() {
        for seed in 0..50 {
            for pass in 0..3 {
                let mut kinds = Vec::new();
                for number in pass * ROUNDS_OF_ALL + 1..=(pass + 1) * ROUNDS_OF_ALL {
                    let round = Round::new(seed, number);
                    assert_eq!(round, Round::new(seed, number));
                    let [first, second] = round.faults;
                    kinds.extend([first.kind, second.kind]);
                    assert_ne!(first.kind, Kind::NodeLoss);
                    assert!(second.kind != Kind::NodeLoss || second.begin >= first.end);
                    assert!(round.moments().is_sorted_by_key(|moment| moment.at));
                }
                kinds.sort();
                assert_eq!(kinds, Kind::ALL);
            }
        }
    }

    #[test]
    fn another_seed_is_another_soak() {
        let rounds = |seed| (1..=20).map(|n| Round::new(seed, n)).collect::<Vec<_>>();
        assert_ne!(rounds(1), rounds(2));
    }
}
