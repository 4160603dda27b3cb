//! How fast it is, only ever as a ratio against a peer in the same run.
//!
//! ```text
//!   per place (tmpfs, disk):
//!     replicated   our two engines        against   a real QEMU pair with COLO replication
//!     plain        our export, solo       against   qemu-nbd and nbdkit file
//!     intent       the least stay marked  against   all marked (on the disk only)
//!     resync       1 % after a lost link  against   QEMU's full mirror
//!   tmpfs only:
//!     secure       our pair over TLS      against   our pair over plain TCP
//!
//!   per round:  ours, peer | peer, ours | ...      the same client, the same offsets
//! ```
//! A cell is the median of the rounds' ratios, with the smallest and the largest. The last column is
//! ours against ours in the same rounds: a ratio within it says nothing.

mod case;
mod intent;
mod ours;
mod peers;
mod plain;
mod replicated;
mod resync;
mod secure;
mod table;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// How a bench is run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Rounds; the order of the servers is reversed in every other one.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// A directory on a disk; the files lie there for the time of the run.
    #[arg(long, default_value = "target")]
    pub disk: PathBuf,
    /// A directory in memory.
    #[arg(long, default_value = "/dev/shm")]
    pub memory: PathBuf,
    /// Only what contains this text: tmpfs, disk, replicated, plain, secure, resync, intent.
    #[arg(long, default_value = "")]
    pub only: String,
}

/// Runs everything and prints the tables as Markdown.
pub fn run(options: &Options) -> Result<()> {
    println!("{}", table::machine()?);
    for (place, directory) in [("tmpfs", &options.memory), ("disk", &options.disk)] {
        let wanted = |what: &str| format!("{place} {what}").contains(&options.only);
        if wanted("replicated") {
            let own = temporary(directory)?;
            let rows =
                replicated::run(own.path(), &options.memory, place == "disk", options.rounds)?;
            table::print(&format!("Replicated, {place}: ours / QEMU's"), &rows);
        }
        if place == "tmpfs" && wanted("secure") {
            let own = temporary(directory)?;
            let rows = secure::run(own.path(), options.rounds)?;
            table::print("Link over TLS / over plain TCP, tmpfs", &rows);
        }
        if place == "disk" && wanted("intent") {
            let own = temporary(directory)?;
            let rows = intent::run(own.path(), options.rounds)?;
            table::print("Intent log: bounded / all marked, disk", &rows);
        }
        if wanted("resync") {
            let own = temporary(directory)?;
            let rows = resync::run(own.path(), place == "disk", options.rounds)?;
            table::print(&format!("Resync, {place}: ours / QEMU's full mirror"), &rows);
        }
        if wanted("plain") {
            let own = temporary(directory)?;
            for (peer, rows) in plain::run(own.path(), place == "disk", options.rounds)? {
                table::print(&format!("Plain export, {place}: ours / {peer}"), &rows);
            }
        }
    }
    Ok(())
}

fn temporary(parent: &Path) -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("understudy-bench-")
        .tempdir_in(parent)
        .with_context(|| format!("cannot make a directory in {}", parent.display()))
}
