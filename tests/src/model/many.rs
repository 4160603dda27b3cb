//! Many cases, on every processor, and what they came to.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::case::Case;
use super::shared::Counts;

/// What many cases came to.
#[derive(Clone, Debug, Default)]
pub struct Total {
    /// Cases that were played.
    pub cases: u64,
    /// The first seed.
    pub seed: u64,
    /// Steps and requests of all.
    pub counts: Counts,
    /// Seeds that failed, with what, in order.
    pub failed: Vec<(u64, String)>,
    /// How long it took.
    pub time: Duration,
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.counts;
        write!(
            f,
            "seeds {}..{}: {} histories, {} operations, {} checkpoints, {} failovers, {} deaths, {} restarts, \
             {} rejoins, {} link faults, {} expands, {} joins, {} refused for want of space, {} \
             checkpoints dropped, {} violations, {:.1} s",
            self.seed,
            self.seed.wrapping_add(self.cases),
            self.cases,
            c.operations,
            c.checkpoints,
            c.failovers,
            c.deaths,
            c.restarts,
            c.rejoins,
            c.cuts,
            c.expands,
            c.joins,
            c.refused,
            c.dropped,
            self.failed.len(),
            self.time.as_secs_f64()
        )
    }
}

impl Total {
    fn add(&mut self, c: Counts) {
        let t = &mut self.counts;
        t.operations += c.operations;
        t.checkpoints += c.checkpoints;
        t.failovers += c.failovers;
        t.deaths += c.deaths;
        t.restarts += c.restarts;
        t.rejoins += c.rejoins;
        t.cuts += c.cuts;
        t.expands += c.expands;
        t.joins += c.joins;
        t.refused += c.refused;
        t.dropped += c.dropped;
    }
}

/// Plays `count` cases from `seed` on; stops early after `failures_max` failures.
pub fn play_many(of: &Case, count: u64, failures_max: usize) -> Total {
    let seed = of.seed;
    let begin = Instant::now();
    let next = AtomicU64::new(0);
    let total = Mutex::new(Total { seed, ..Total::default() });
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let enough = total.lock().is_ok_and(|t| t.failed.len() >= failures_max);
                    if n >= count || enough {
                        return;
                    }
                    let case = Case { seed: seed.wrapping_add(n), ..of.clone() };
                    let result = case.play();
                    let Ok(mut t) = total.lock() else { return };
                    t.cases += 1;
                    match result {
                        Ok(c) => t.add(c),
                        Err(f) => t.failed.push((case.seed, format!("{}: {}", f.broken, f.what))),
                    }
                }
            });
        }
    });
    let mut total = total.into_inner().unwrap_or_default();
    total.failed.sort();
    total.time = begin.elapsed();
    total
}

/// The test of a mix: `count` cases from that of `of` on, or only the one of `UNDERSTUDY_SEED`.
/// The message of the first failure, made short, is the error.
pub fn judge(of: &Case, count: u64) -> Result<Total, String> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seed, count) = match number("UNDERSTUDY_SEED") {
        Some(seed) => (seed, number("UNDERSTUDY_CASES").unwrap_or(1)),
        None => (of.seed, number("UNDERSTUDY_CASES").unwrap_or(count)),
    };
    let of = Case { seed, ..of.clone() };
    let time = Duration::from_secs(number("UNDERSTUDY_SHRINK").unwrap_or(30));
    if count == 1 {
        return match of.report(time) {
            Some(text) => Err(text),
            None => Ok(play_many(&of, 1, 1)),
        };
    }
    let total = play_many(&of, count, 1);
    match total.failed.first() {
        None => Ok(total),
        Some((seed, what)) => {
            let failed = Case { seed: *seed, ..of };
            Err(failed.report(time).unwrap_or_else(|| format!("seed {seed}: {what}")))
        }
    }
}
