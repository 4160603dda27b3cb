//! Which record belongs where: pure arithmetic, the same for the writer and the judge.

use std::fmt;

use anyhow::{Result, bail};
use understudy_core::units::{u32_of, u64_of, usize_of};

use super::record::BLOCK_MIN;

/// The largest block: one request.
const BLOCK_MAX: u64 = 1 << 20;

/// A place for one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which volume.
    pub volume: usize,
    /// Its first byte there.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume {} at byte {}", self.volume, self.offset)
    }
}

/// The layout of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The identity of the run; records of another are strangers.
    pub run: u64,
    /// Over how many volumes the numbers alternate.
    pub volumes: usize,
    /// The length of a record in bytes.
    pub block: u64,
    /// How many places each volume has.
    pub slots: u64,
    /// Where the places begin on each volume.
    pub start: u64,
}

impl Plan {
    /// A layout, or what is wrong with it.
    pub fn new(run: u64, volumes: usize, block: u64, slots: u64, start: u64) -> Result<Self> {
        if volumes == 0 || slots == 0 {
            bail!("a ledger needs at least one volume and one slot");
        }
        if !(BLOCK_MIN..=BLOCK_MAX).contains(&block) || !block.is_multiple_of(BLOCK_MIN) {
            bail!("block {block}: must be a multiple of {BLOCK_MIN} up to {BLOCK_MAX}");
        }
        if !start.is_multiple_of(BLOCK_MIN) || slots.checked_mul(block).is_none() {
            bail!("the places from byte {start}, {slots} of {block} bytes, cannot be laid out");
        }
        Ok(Self { run, volumes, block, slots, start })
    }

    /// How many bytes of each volume the ledger uses, from [`Plan::start`] on.
    pub fn span(&self) -> u64 {
        self.slots * self.block
    }

    /// How far one round's place is from the last, in slots: coprime with their number, so that
    /// every slot is used before one is used again, and neighbours are far apart.
    fn stride(&self) -> u64 {
        let wanted = self.slots * 5 / 8;
        (wanted.max(1)..=self.slots + 1)
            .find(|stride| greatest_common_divisor(*stride, self.slots) == 1)
            .unwrap_or(1)
    }

    /// Which volume a record goes to.
    pub fn volume_of(&self, number: u64) -> usize {
        usize_of((number - 1) % u64_of(self.volumes))
    }

    /// Which volume a record goes to, as the record itself names it.
    pub fn volume_name(&self, number: u64) -> u32 {
        u32_of(u64_of(self.volume_of(number)))
    }

    /// Where a record goes.
    pub fn place_of(&self, number: u64) -> Place {
        let round = (number - 1) / u64_of(self.volumes);
        let slot = u128::from(round) * u128::from(self.stride()) % u128::from(self.slots);
        let slot = u64::try_from(slot).unwrap_or(0);
        Place { volume: self.volume_of(number), offset: self.start + slot * self.block }
    }

    /// What each slot of a volume holds when the disks hold exactly the records up to `prefix`.
    pub fn expected(&self, volume: usize, prefix: u64) -> Vec<Option<u64>> {
        let volumes = u64_of(self.volumes);
        let mut slots = vec![None; usize_of(self.slots)];
        let stride = self.stride();
        let first = u64_of(volume) + 1;
        if prefix < first {
            return slots;
        }
        let rounds = (prefix - first) / volumes + 1;
        // The last round of each slot is among the last `slots` rounds.
        for round in rounds.saturating_sub(self.slots)..rounds {
            let slot = u128::from(round) * u128::from(stride) % u128::from(self.slots);
            if let Some(place) = usize::try_from(slot).ok().and_then(|slot| slots.get_mut(slot)) {
                *place = Some(round * volumes + first);
            }
        }
        slots
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_what_writing_in_order_leaves() {
        for (volumes, slots) in [(1, 1), (1, 7), (2, 8), (3, 16), (5, 10)] {
            let plan = Plan::new(1, volumes, 512, slots, 4096).unwrap();
            let mut disks = vec![vec![None; usize_of(slots)]; volumes];
            for number in 0..=120 {
                if number > 0 {
                    let place = plan.place_of(number);
                    let slot = usize_of((place.offset - 4096) / 512);
                    disks[place.volume][slot] = Some(number);
                }
                for (volume, disk) in disks.iter().enumerate() {
                    assert_eq!(&plan.expected(volume, number), disk, "{number} on {volume}");
                }
            }
        }
    }

    #[test]
    fn a_layout_that_cannot_be_is_refused() {
        assert!(Plan::new(1, 0, 512, 8, 0).is_err());
        assert!(Plan::new(1, 1, 500, 8, 0).is_err());
        assert!(Plan::new(1, 1, 512, 0, 0).is_err());
        assert!(Plan::new(1, 1, 512, u64::MAX, 0).is_err());
        assert!(Plan::new(1, 1, 512, 8, 7).is_err());
    }
}
