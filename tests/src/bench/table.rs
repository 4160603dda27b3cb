//! Ratios of rounds as a Markdown table.

use std::fs;

use anyhow::Result;

/// One case over all rounds: ours, the peer, and ours once more.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) rounds: Vec<Round>,
}

/// One round, in requests a second.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    pub(crate) ours: f64,
    pub(crate) peer: f64,
    pub(crate) again: f64,
}

/// Median, smallest, largest.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
    (at(values.len() / 2), at(0), at(values.len().saturating_sub(1)))
}

/// Prints a table.
pub(crate) fn print(title: &str, rows: &[Row]) {
    println!("\n### {title}\n");
    println!("| case | ratio (min – max) | ours, ops/s | peer, ops/s | ours / ours |");
    println!("|---|---|---|---|---|");
    for row in rows {
        let ratio = spread(row.rounds.iter().map(|r| r.ours / r.peer).collect());
        let noise = spread(row.rounds.iter().map(|r| r.again / r.ours).collect());
        let ours = spread(row.rounds.iter().map(|r| r.ours).collect()).0;
        let peer = spread(row.rounds.iter().map(|r| r.peer).collect()).0;
        println!(
            "| {} | **{:.2}** ({:.2} – {:.2}) | {ours:.0} | {peer:.0} | {:.2} – {:.2} |",
            row.name, ratio.0, ratio.1, ratio.2, noise.1, noise.2
        );
    }
}

/// The machine in general terms.
pub(crate) fn machine() -> Result<String> {
    let cpus = std::thread::available_parallelism()?.get();
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kib: u64 = memory
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:"))
        .and_then(|l| l.trim().trim_end_matches(" kB").trim().parse().ok())
        .unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let kernel = kernel.split('.').take(2).collect::<Vec<_>>().join(".");
    Ok(format!(
        "{cpus} CPUs shared by client, both replicas and both servers; {} GiB of memory; Linux {kernel}; one disk for everything",
        kib >> 20
    ))
}
