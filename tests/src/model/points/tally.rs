//! All cuts of all scenes, on every processor, and what they came to.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use understudy_core::bug::Bug;
use understudy_core::sim::When;

use super::super::case::Failed;
use super::play::{Cut, Ending};
use super::scenes::{Scene, scenes};

/// What the cuts of one scene came to.
#[derive(Clone, Debug)]
pub struct Row {
    /// The scene.
    pub scene: Scene,
    /// Its sync points: on the primary when it begins, on the secondary.
    pub points: [u64; 2],
    /// Power cuts that were made.
    pub cuts: u64,
}

/// What all cuts came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// The seed of the worlds.
    pub seed: u64,
    /// By scene.
    pub rows: Vec<Row>,
    /// What failed first, if anything did.
    pub failed: Option<(&'static str, Option<Cut>, Failed)>,
    /// How long it took.
    pub time: Duration,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<22} {:>8} {:>10} {:>7}", "sync points of", "primary", "secondary", "cuts")?;
        let mut line = |name: &str, points: [u64; 2], cuts: u64| {
            writeln!(f, "{name:<22} {:>8} {:>10} {cuts:>7}", points[0], points[1])
        };
        for r in &self.rows {
            line(r.scene.name, r.points, r.cuts)?;
        }
        let sum = |of: &dyn Fn(&Row) -> u64| self.rows.iter().map(of).sum::<u64>();
        line("total", [sum(&|r| r.points[0]), sum(&|r| r.points[1])], sum(&|r| r.cuts))?;
        write!(f, "seed {}: ", self.seed)?;
        match &self.failed {
            None => write!(f, "0 violations")?,
            Some((scene, cut, failed)) => {
                let cut = cut.map_or("no cut".to_owned(), |c| c.to_string());
                write!(f, "{scene}, {cut}: {}: {}", failed.broken, failed.what)?;
            }
        }
        write!(f, ", {:.1} s", self.time.as_secs_f64())
    }
}

/// The seed to begin with: `UNDERSTUDY_SEED`, or `default`.
pub fn seed_of(default: u64) -> u64 {
    let given = std::env::var("UNDERSTUDY_SEED").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Cuts the power at every sync point of every scene, with a bug planted or without one; ends with
/// the first violation.
pub fn cut_all(seed: u64, bug: Option<Bug>) -> Tally {
    let begin = Instant::now();
    let mut tally = Tally { seed, ..Tally::default() };
    let mut all = Vec::new();
    for scene in scenes() {
        match scene.play(seed, None, bug) {
            Err(failed) => {
                tally.failed.get_or_insert((scene.name, None, failed));
            }
            Ok((spans, _)) => {
                let points = [spans.of(spans.primary), spans.of(1 - spans.primary)];
                let row = tally.rows.len();
                all.extend([0, 1].into_iter().flat_map(|n| cuts(n, spans.of(n))).map(|c| (row, c)));
                tally.rows.push(Row { scene, points, cuts: 0 });
            }
        }
    }
    if tally.failed.is_none() {
        make(&mut tally, &all, bug);
    }
    tally.time = begin.elapsed();
    tally
}

/// All cuts at the points of a node.
fn cuts(node: usize, points: u64) -> impl Iterator<Item = Cut> {
    (0..points).flat_map(move |point| {
        [When::Before, When::After].into_iter().flat_map(move |when| {
            [false, true].into_iter().flat_map(move |both| {
                [Ending::Recover, Ending::Promote].map(|ending| Cut {
                    node,
                    point,
                    when,
                    both,
                    ending,
                })
            })
        })
    })
}

fn make(tally: &mut Tally, all: &[(usize, Cut)], bug: Option<Bug>) {
    let next = AtomicUsize::new(0);
    let seed = tally.seed;
    let shared = Mutex::new(tally);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let work = || {
        while let Some((row, cut)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let scene = match shared.lock() {
                Ok(t) if t.failed.is_none() => t.rows[*row].scene.clone(),
                Ok(_) | Err(_) => return,
            };
            let result = scene.play(seed, Some(*cut), bug);
            let Ok(mut t) = shared.lock() else { return };
            t.rows[*row].cuts += 1;
            if let Err(failed) = result {
                t.failed.get_or_insert((scene.name, Some(*cut), failed));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
}
