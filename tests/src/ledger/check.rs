//! The verdict: which prefix the volumes hold, all together, and whether that is allowed.
//!
//! ```text
//!   all readings ─► torn or strange? ─► k := the newest number ─► every place as k demands? ─► chain ─► bounds
//!                        │                                              │                       │        │
//!                        └──────────────────── the verdict names the place ─────────────────────┴────────┘
//! ```

use std::collections::BTreeMap;
use std::fmt;

use super::plan::{Place, Plan};
use super::record::{Hash, Reading};
use understudy_core::units::{u64_of, usize_of};

/// What one place holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub place: Place,
    /// What.
    pub reading: Reading,
}

/// Between which numbers the prefix must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// What had completed before the cut must be there.
    pub at_least: u64,
    /// What was never issued cannot be.
    pub at_most: u64,
}

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Exactly the records up to this one, within the bounds.
    Prefix(u64),
    /// A block is not whole.
    Torn {
        /// Where.
        place: Place,
        /// The number its header names.
        claims: u64,
    },
    /// A whole record that has no business there.
    Stranger {
        /// Where.
        place: Place,
        /// Why it does not belong.
        why: String,
    },
    /// The newest record is `newest`, but this place is older than that allows: a hole, or volumes
    /// that are not of one cut.
    Mixed {
        /// The newest record anywhere.
        newest: u64,
        /// And where it is.
        newest_at: Place,
        /// The place that does not fit.
        place: Place,
        /// What it holds.
        holds: Option<u64>,
        /// What it must hold.
        expected: u64,
    },
    /// A record does not name the one before it.
    BrokenChain {
        /// Where.
        place: Place,
        /// Its number.
        number: u64,
    },
    /// A prefix, but one that lost completed records.
    TooShort {
        /// Where it ends.
        prefix: u64,
        /// Where it must end at the earliest.
        at_least: u64,
    },
    /// A prefix with records that nobody issued.
    TooLong {
        /// Where it ends.
        prefix: u64,
        /// Where it can end at the latest.
        at_most: u64,
    },
}

impl Verdict {
    /// Whether what was found is allowed.
    pub fn is_legal(&self) -> bool {
        matches!(self, Self::Prefix(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => write!(f, "exactly the records up to {prefix}, on all volumes"),
            Self::Torn { place, claims } => {
                write!(f, "{place}: a torn record; its header says {claims}")
            }
            Self::Stranger { place, why } => write!(f, "{place}: {why}"),
            Self::Mixed { newest, newest_at, place, holds, expected } => {
                write!(f, "{place}: ")?;
                match holds {
                    Some(holds) => write!(f, "holds record {holds}")?,
                    None => f.write_str("holds no record")?,
                }
                write!(
                    f,
                    ", but must hold {expected}, as {newest_at} already holds record {newest}: \
                     not one cut"
                )
            }
            Self::BrokenChain { place, number } => {
                write!(f, "{place}: record {number} does not name the one before it")
            }
            Self::TooShort { prefix, at_least } => write!(
                f,
                "the records up to {prefix}, but {at_least} had completed before the cut: lost"
            ),
            Self::TooLong { prefix, at_most } => {
                write!(f, "the records up to {prefix}, but only {at_most} were ever issued")
            }
        }
    }
}

/// Judges what the volumes hold. `found` is every place of the plan, in any order.
pub fn check(plan: &Plan, found: &[Found], bounds: Bounds) -> Verdict {
    let mut numbers: BTreeMap<Place, u64> = BTreeMap::new();
    let mut hashes: BTreeMap<u64, Hash> = BTreeMap::new();
    for Found { place, reading } in found {
        match reading {
            Reading::Blank => {}
            Reading::Torn { claims } => return Verdict::Torn { place: *place, claims: *claims },
            Reading::Whole(record, hash) => {
                if let Some(why) = stranger(plan, *place, record) {
                    return Verdict::Stranger { place: *place, why };
                }
                numbers.insert(*place, record.number);
                hashes.insert(record.number, *hash);
            }
        }
    }
    let newest = numbers.iter().max_by_key(|(_, number)| **number);
    let (prefix, newest_at) = newest.map_or((0, None), |(place, number)| (*number, Some(*place)));
    for volume in 0..plan.volumes {
        for (slot, expected) in plan.expected(volume, prefix).into_iter().enumerate() {
            let place = Place { volume, offset: plan.start + u64_of(slot) * plan.block };
            let holds = numbers.get(&place).copied();
            let (Some(expected), Some(newest_at)) = (expected, newest_at) else { continue };
            if holds != Some(expected) {
                return Verdict::Mixed { newest: prefix, newest_at, place, holds, expected };
            }
        }
    }
    for Found { place, reading } in found {
        let Reading::Whole(record, _) = reading else { continue };
        let before =
            if record.number == 1 { Some(&[0; 16]) } else { hashes.get(&(record.number - 1)) };
        if before.is_some_and(|hash| *hash != record.previous) {
            return Verdict::BrokenChain { place: *place, number: record.number };
        }
    }
    if prefix < bounds.at_least {
        return Verdict::TooShort { prefix, at_least: bounds.at_least };
    }
    if prefix > bounds.at_most {
        return Verdict::TooLong { prefix, at_most: bounds.at_most };
    }
    Verdict::Prefix(prefix)
}

/// Why a whole record does not belong where it was found.
fn stranger(plan: &Plan, place: Place, record: &super::record::Record) -> Option<String> {
    if record.run != plan.run {
        return Some(format!("a record of another run ({:#x})", record.run));
    }
    if record.number == 0 {
        return Some("a record numbered 0".to_owned());
    }
    if usize_of(u64::from(record.volume)) != place.volume {
        return Some(format!("record {} was written to volume {}", record.number, record.volume));
    }
    let belongs = plan.place_of(record.number);
    (belongs != place).then(|| format!("record {} belongs to {belongs}", record.number))
}

#[cfg(test)]
mod tests;
