//! `understudy-tests`: the programs that judge every change of the whole.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use understudy_tests::{qemu, trace};

/// Replays traces and keeps ledgers, on engines and on real QEMU processes.
#[derive(Debug, Parser)]
#[command(name = "understudy-tests", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replay a trace on a pair of real QEMU processes; prints one line of digests a step.
    QemuTrace(Replay),
    /// Print a random trace on which QEMU and we must agree.
    GenTrace {
        /// The same seed gives the same trace.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many operations.
        #[arg(long, default_value_t = 100)]
        ops: u64,
        /// The disk's size in MiB.
        #[arg(long, default_value_t = 8)]
        size: u64,
        /// Leave the failover out.
        #[arg(long)]
        no_failover: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Replay {
    /// The trace.
    file: PathBuf,
    /// The size of the disks in MiB.
    #[arg(long, default_value_t = 64)]
    size: u64,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::QemuTrace(Replay { file, size }) => {
            let steps = trace::read(&file)?;
            let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
            let mut out = std::io::stdout().lock();
            qemu::replay(&steps, size << 20, directory.path(), &mut out)
        }
        Command::GenTrace { seed, ops, size, no_failover } => {
            let options = trace::GenerateOptions {
                seed,
                operations: ops,
                size: size << 20,
                failover: !no_failover,
            };
            print!("{}", trace::generate(&options));
            Ok(())
        }
    }
}
