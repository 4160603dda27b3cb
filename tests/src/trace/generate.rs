//! Random traces on which a correct system and QEMU must agree.
//!
//! Left out is what QEMU gets wrong or leaves undefined: discards (they never reach any disk there),
//! requests below a sector, a stop without failover, failing disks. No write is in flight at a
//! checkpoint, as a trace goes step by step.

use std::fmt::Write as _;

use understudy_core::units::SECTOR;

use crate::random::Random;

/// The longest request of a generated trace, in sectors.
const SECTORS_MAX: u64 = 512;

/// What to generate.
#[derive(Clone, Copy, Debug)]
pub struct GenerateOptions {
    /// The same seed gives the same trace.
    pub seed: u64,
    /// How many operations.
    pub operations: u64,
    /// The disk's size in bytes.
    pub size: u64,
    /// Whether a failover comes near the end.
    pub failover: bool,
}

/// The text of a trace.
pub fn generate(options: &GenerateOptions) -> String {
    let mut random = Random::new(options.seed);
    let mut text = format!(
        "# seed {}, {} operations, {} bytes\n",
        options.seed, options.operations, options.size
    );
    let failover_at =
        if options.failover { options.operations * 85 / 100 } else { options.operations };
    for index in 0..options.operations {
        let line = if options.failover && index == failover_at {
            "X".to_owned()
        } else if index > failover_at {
            request(&mut random, "SW", options.size)
        } else {
            match random.below(100) {
                0..40 => request(&mut random, "W", options.size),
                40..55 => request(&mut random, "Z", options.size),
                55..80 => request(&mut random, "SW", options.size),
                80..92 => "C".to_owned(),
                _ => "F".to_owned(),
            }
        };
        // Writing into a string cannot fail.
        let _written = writeln!(text, "{line}");
    }
    text
}

/// A request at sector granularity; half of them within one small area, so that they overlap.
fn request(random: &mut Random, word: &str, size: u64) -> String {
    let sectors = (size / SECTOR).max(1);
    let longest = 1 + random.below(SECTORS_MAX.min(sectors));
    let length = if random.chance(30) { 8.min(longest) } else { 1 + random.below(longest) };
    let area = if random.chance(50) { sectors.div_ceil(16).max(length) } else { sectors };
    let start = random.below(area - length + 1);
    // Whole clusters are the common case; the rest is there for the edges.
    let start = if random.chance(50) { start & !7 } else { start };
    let (offset, length) = (start * SECTOR, length * SECTOR);
    if word == "Z" {
        return format!("Z {offset} {length}");
    }
    format!("{word} {offset} {length} {:#04x}", 1 + random.below(255))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Operation, parse};

    #[test]
    fn the_same_seed_gives_the_same_trace() {
        let options = GenerateOptions { seed: 7, operations: 200, size: 1 << 20, failover: true };
        assert_eq!(generate(&options), generate(&options));
        let other = GenerateOptions { seed: 8, ..options };
        assert_ne!(generate(&options), generate(&other));
    }

    #[test]
    fn a_trace_has_only_what_both_sides_define() {
        for seed in 0..20 {
            let size = 1 << 20;
            let options = GenerateOptions { seed, operations: 300, size, failover: true };
            let steps = parse(&generate(&options)).unwrap();
            assert_eq!(steps.len(), 300);
            let mut promoted = false;
            for step in steps {
                match step.operation {
                    Operation::Write { offset, length, .. }
                    | Operation::Zeroes { offset, length } => {
                        assert!(!promoted && offset + length <= size, "{}", step.words);
                        assert_eq!((offset | length) % SECTOR, 0, "{}", step.words);
                    }
                    Operation::SecondaryWrite { offset, length, .. } => {
                        assert!(offset + length <= size && (offset | length) % SECTOR == 0);
                    }
                    Operation::Discard { .. } => panic!("QEMU drops discards"),
                    Operation::Failover => promoted = true,
                    Operation::Flush | Operation::Checkpoint => assert!(!promoted),
                }
            }
            assert!(promoted);
        }
    }
}
