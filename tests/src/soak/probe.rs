//! A patient user of one volume: one request at a time, each timed, and what it reads must be what it wrote.
//!
//! ```text
//!   10 ms ─► write a block │ discard some │ read one and compare │ flush ─► 10 ms ─► …      then read all
//! ```
//!
//! It discards as much as it writes, so on both sides its blocks are given back and taken anew all the
//! time: what a full pool hurts.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use understudy_core::units::{u64_of, usize_of};

use crate::harness::direct::Direct;
use crate::random::Random;

/// A block, in bytes.
const BLOCK: u64 = 4096;

/// How many blocks a discard takes.
const DISCARD: u64 = 16;

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(10);

/// A request that took so long is remembered by itself.
const SLOW: Duration = Duration::from_millis(50);

/// A slow request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slow {
    pub(super) begin: Instant,
    pub(super) took: Duration,
}

/// The slow requests of all probes of a round, also of those whose VM is lost.
pub(super) type SlowOnes = Arc<Mutex<Vec<Slow>>>;

/// A probe that runs.
pub(super) struct Probe(JoinHandle<Result<u64>>);

/// The part of a volume that is its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Zone {
    pub(super) at: u64,
    pub(super) len: u64,
}

impl Probe {
    /// Begins: all of the zone is discarded first.
    pub(super) fn start(
        device: PathBuf,
        zone: Zone,
        seed: u64,
        stop: Arc<AtomicBool>,
        slow: SlowOnes,
    ) -> Self {
        Self(std::thread::spawn(move || probe(&device, zone, seed, &stop, &slow)))
    }

    /// Waits for its end, once it was told to stop; how many bytes were not what it had written. An
    /// error: a request failed.
    pub(super) fn end(self) -> Result<u64> {
        self.0.join().map_err(|_| anyhow!("a probe ended badly"))?
    }
}

fn probe(
    path: &Path,
    zone: Zone,
    seed: u64,
    stop: &AtomicBool,
    slow: &Mutex<Vec<Slow>>,
) -> Result<u64> {
    let device = Direct::open(path, true)?;
    let mut random = Random::new(seed);
    let blocks = zone.len / BLOCK;
    // The stamp of each block; 0: zeroes.
    let mut stamps = vec![0_u64; usize_of(blocks)];
    let mut wrong = 0;
    let failed = || format!("a request of {} failed", path.display());
    device.discard(zone.at, zone.len).with_context(failed)?;
    for stamp in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let block = random.below(blocks);
        let at = zone.at + block * BLOCK;
        let begin = Instant::now();
        match random.below(16) {
            0 => {
                let count = DISCARD.min(blocks - block);
                device.discard(at, count * BLOCK).with_context(failed)?;
                stamps[usize_of(block)..][..usize_of(count)].fill(0);
            }
            1 => {
                let got = device.read(at, BLOCK).with_context(failed)?;
                wrong += differing(&got, &content(stamps[usize_of(block)]));
            }
            2 => device.flush().with_context(failed)?,
            _ => {
                device.write(at, &content(stamp)).with_context(failed)?;
                stamps[usize_of(block)] = stamp;
            }
        }
        let took = begin.elapsed();
        if took >= SLOW {
            slow.lock().unwrap_or_else(PoisonError::into_inner).push(Slow { begin, took });
        }
        std::thread::sleep(PAUSE);
    }
    let got = device.read(zone.at, zone.len).with_context(failed)?;
    let wanted: Vec<u8> = stamps.iter().flat_map(|stamp| content(*stamp)).collect();
    wrong += differing(&got, &wanted);
    Ok(wrong)
}

fn content(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(usize_of(BLOCK / 8))
}

/// In how many bytes two contents differ; what only one of them has counts.
pub(super) fn differing(one: &[u8], other: &[u8]) -> u64 {
    let both = one.iter().zip(other).filter(|(a, b)| a != b).count();
    u64_of(both + one.len().abs_diff(other.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_that_differs_counts() {
        assert_eq!(differing(b"abc", b"abc"), 0);
        assert_eq!(differing(b"abc", b"axy"), 2);
        assert_eq!(differing(b"abc", b"abcde"), 2);
        assert_ne!(content(1), content(2));
    }
}
