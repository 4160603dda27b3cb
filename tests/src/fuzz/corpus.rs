//! The seeds as files, their mutations, and a short run of each target without libFuzzer.
//!
//! ```text
//!   tests/fuzz/corpus/NAME/seed-…    made by `understudy-tests fuzz-seeds`; remade when formats change
//!                         /found-…   inputs that once showed a defect: kept for good
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{TARGETS, Target};
use crate::random::Random;

/// The longest input that mutations make, in bytes.
const LENGTH_MAX: usize = 8192;

/// Where the corpus of this source tree is.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// A target's seeds, by the names of their files.
pub fn seeds(target: &Target) -> Vec<(String, Vec<u8>)> {
    (target.seeds)().into_iter().map(|(name, bytes)| (format!("seed-{name}"), bytes)).collect()
}

/// Writes the seeds of every target into its folder in `to`; takes seeds away that are no more.
pub fn write(to: &Path) -> std::io::Result<usize> {
    let mut count = 0;
    for target in TARGETS {
        let folder = to.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (path, _) in files(&folder)? {
            if is_seed(&path) {
                std::fs::remove_file(path)?;
            }
        }
        for (name, bytes) in seeds(target) {
            std::fs::write(folder.join(name), bytes)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Whether a file of the corpus is one that [`write`] makes.
pub fn is_seed(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed-"))
}

/// The files of a folder with what they hold, sorted.
pub fn files(folder: &Path) -> std::io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let bytes = std::fs::read(&path)?;
        found.push((path, bytes));
    }
    found.sort();
    Ok(found)
}

/// Runs a target over its corpus, then over random mutations of it, for about `time`. Says how many
/// inputs that were. The input of a failure is printed in hexadecimal.
pub fn run_short(target: &Target, seed: u64, time: Duration) -> std::io::Result<u64> {
    let corpus: Vec<Vec<u8>> =
        files(&folder().join(target.name))?.into_iter().map(|(_, bytes)| bytes).collect();
    let end = Instant::now() + time;
    let mut random = Random::new(seed);
    let mut count = 0;
    for bytes in &corpus {
        run_one(target, bytes);
        count += 1;
    }
    while Instant::now() < end {
        run_one(target, &mutated(&corpus, &mut random));
        count += 1;
    }
    Ok(count)
}

fn run_one(target: &Target, bytes: &[u8]) {
    /// Tells of the input when the target fails.
    struct Tell<'a>(&'a str, &'a [u8]);
    impl Drop for Tell<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprint!("target {} fails on {} bytes: ", self.0, self.1.len());
                for byte in self.1 {
                    eprint!("{byte:02x}");
                }
                eprintln!();
            }
        }
    }
    let _tell = Tell(target.name, bytes);
    (target.run)(bytes);
}

/// One of the corpus, changed in a few places.
fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let pick = |random: &mut Random, len: usize| {
        usize::try_from(random.below(u64::try_from(len).unwrap_or(u64::MAX))).unwrap_or(0)
    };
    let empty = Vec::new();
    let mut bytes = corpus.get(pick(random, corpus.len())).unwrap_or(&empty).clone();
    for _ in 0..=random.below(6) {
        let at = pick(random, bytes.len() + 1);
        let byte = random.next_u64().to_le_bytes()[0];
        match random.below(7) {
            0 => bytes.insert(at, byte),
            1 if at < bytes.len() => _ = bytes.remove(at),
            2 => bytes.truncate(at.max(1)),
            3 => {
                // A number of the kind that limits are made of.
                let edges = [0, 1, u64::MAX, u64::MAX >> 1, 1 << 31, 4096, random.next_u64()];
                let number = edges[pick(random, edges.len())].to_le_bytes();
                bytes.iter_mut().skip(at).zip(number).for_each(|(to, from)| *to = from);
            }
            4 => {
                let other = corpus.get(pick(random, corpus.len())).unwrap_or(&empty);
                let from = pick(random, other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            5 if at < bytes.len() => bytes[at] ^= 1 << (byte & 7),
            _ => {
                if let Some(to) = bytes.get_mut(at) {
                    *to = byte;
                }
            }
        }
    }
    bytes.truncate(LENGTH_MAX);
    bytes
}
