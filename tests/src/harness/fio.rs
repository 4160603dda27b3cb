//! fio on block devices: it writes at random and reads back, over and over, what it wrote.
//!
//! ```text
//!   Part { device, at, len } ... ─► one job each ─► until it is stopped, or a read is not what was written
//!                                                        └─► judge(report): errors, longest, how many
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::process::Child;
use super::tools;

/// How long fio may take to end when it is told to: what is in flight ends first.
const END: Duration = Duration::from_secs(30);

/// It ends by itself when whoever started it has long forgotten it, in seconds.
const RUNTIME: u32 = 3600;

/// Where one job works.
#[derive(Clone, Debug)]
pub struct Part {
    /// The device.
    pub device: PathBuf,
    /// Its first byte there.
    pub at: u64,
    /// How many.
    pub len: u64,
}

/// A fio that runs.
#[derive(Debug)]
pub struct Fio {
    process: Child,
    report: PathBuf,
}

/// What fio found without an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// The longest that a request took.
    pub longest: Duration,
    /// How many requests wrote.
    pub writes: u64,
    /// How many read, and were compared.
    pub reads: u64,
}

impl Fio {
    /// Begins; log and report go to `directory`. `rate` is the most bytes a second that each job writes.
    pub fn start(name: &str, directory: &Path, parts: &[Part], rate: u64) -> Result<Self> {
        let report = directory.join(format!("{name}.json"));
        let mut words: Vec<String> = ["--thread", "--ioengine=libaio", "--direct=1"]
            .into_iter()
            .chain(["--rw=randwrite", "--bsrange=4k-64k", "--iodepth=8", "--fsync=64"])
            .chain(["--verify=crc32c", "--verify_backlog=64", "--verify_fatal=1"])
            .chain(["--verify_state_save=0", "--randrepeat=0", "--loops=1000000"])
            .chain(["--output-format=json"])
            .map(str::to_owned)
            .collect();
        words.push(format!("--runtime={RUNTIME}"));
        words.push(format!("--rate=,{rate},"));
        words.push(format!("--output={}", report.display()));
        for (number, part) in parts.iter().enumerate() {
            words.push(format!("--name=part{number}"));
            words.push(format!("--filename={}", part.device.display()));
            words.push(format!("--offset={}", part.at));
            words.push(format!("--size={}", part.len));
        }
        let process = Child::start(name, &tools::find("fio")?, words, directory)?;
        Ok(Self { process, report })
    }

    /// Whether it still runs; it ends by itself only at an error.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// How many bytes it has written so far, as the kernel counts them.
    pub fn written(&self) -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.process.pid()));
        let io = io.unwrap_or_default();
        let count = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// Tells it to end, and judges what it found.
    pub fn stop(mut self) -> Result<Found> {
        if self.process.is_running() {
            self.process.signal("INT")?;
        }
        self.process.wait(END)?;
        let report = std::fs::read_to_string(&self.report).unwrap_or_default();
        judge(&report).with_context(|| format!("fio says:\n{}", self.process.tail()))
    }
}

/// What a report of fio says; an error of any job is one of ours.
pub fn judge(report: &str) -> Result<Found> {
    // fio puts its notes before the JSON.
    let json = report.find('{').map_or("", |at| &report[at..]);
    let report: Value = serde_json::from_str(json).context("fio left no report")?;
    let jobs = report["jobs"].as_array().context("fio reports no jobs")?;
    let mut found = Found::default();
    for job in jobs {
        if job["error"] != 0 {
            bail!("fio: error {}", job["error"]);
        }
        for direction in ["read", "write"] {
            let longest = job[direction]["clat_ns"]["max"].as_u64().unwrap_or(0);
            found.longest = found.longest.max(Duration::from_nanos(longest));
        }
        let count = |direction: &str| job[direction]["total_ios"].as_u64().unwrap_or(0);
        ensure!(count("write") > 0, "fio wrote nothing");
        found.writes += count("write");
        found.reads += count("read");
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_fio_is_one_of_ours() {
        let report = |error: u32| {
            format!(
                r#"fio: note
{{"jobs":[{{"error":{error},"write":{{"total_ios":5,"clat_ns":{{"max":2500000000}}}},"read":{{}}}}]}}"#
            )
        };
        let found = judge(&report(0)).unwrap();
        assert_eq!(found, Found { longest: Duration::from_millis(2500), writes: 5, reads: 0 });
        assert!(judge(&report(5)).is_err());
        assert!(judge("").is_err());
    }
}
