//! `understudy-tests`: the programs that judge every change of the whole.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use understudy_tests::{bench, demo, e2e, fuzz, qemu, replay, soak, trace};

mod cluster_command;
mod ledger_command;
mod simulate_command;

/// Replays traces and keeps ledgers, on engines and on real QEMU processes.
#[derive(Debug, Parser)]
#[command(name = "understudy-tests", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows the main job: disks with files survive the loss of their primary.
    Demo(demo::Options),
    /// Measure against a real QEMU pair, qemu-nbd and nbdkit, as ratios of interleaved rounds.
    Bench(bench::Options),
    /// Replay a trace on two real engines; prints one line of digests a step.
    Replay(Replay),
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
    /// Play random histories of two engines in the simulator, and judge them by a plain model.
    Simulate(simulate_command::Options),
    /// Write the seeds of the fuzz targets' corpora anew: tests/fuzz/corpus, after a format changed.
    FuzzSeeds {
        /// The folder of the corpora.
        folder: PathBuf,
    },
    /// The suite on a whole cluster; `make e2e` builds what it needs first.
    E2e(e2e::Options),
    /// Two volumes under load while engines are killed, links cut and pools filled; `make soak` builds what
    /// it needs first. As root.
    Soak(soak::Options),
    /// Kubernetes on this machine, for tests.
    Cluster {
        #[command(subcommand)]
        command: cluster_command::Command,
    },
    /// Write a ledger of dependent records over the volumes of a group, or judge what is left of it.
    Ledger {
        #[command(subcommand)]
        command: ledger_command::Command,
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

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Demo(options) => {
            let directory = demo::directory()?;
            return demo::run(&options, directory.path());
        }
        Command::Bench(options) => bench::run(&options)?,
        Command::Replay(Replay { file, size }) => {
            let steps = trace::read(&file)?;
            replay::replay(&steps, size << 20, temporary()?.path(), &mut std::io::stdout())?;
        }
        Command::QemuTrace(Replay { file, size }) => {
            let steps = trace::read(&file)?;
            qemu::replay(&steps, size << 20, temporary()?.path(), &mut std::io::stdout())?;
        }
        Command::GenTrace { seed, ops, size, no_failover } => {
            let size = size << 20;
            let failover = !no_failover;
            let options = trace::GenerateOptions { seed, operations: ops, size, failover };
            print!("{}", trace::generate(&options));
        }
        Command::Simulate(options) => return simulate_command::execute(&options),
        Command::FuzzSeeds { folder } => {
            let count = fuzz::corpus::write(&folder)
                .with_context(|| format!("cannot write seeds into {}", folder.display()))?;
            println!("{count} seeds in {}", folder.display());
        }
        Command::E2e(options) => return e2e::run(&options),
        Command::Soak(options) => return soak::run(&options),
        Command::Cluster { command } => return cluster_command::execute(&command),
        Command::Ledger { command } => return ledger_command::execute(&command),
    }
    Ok(ExitCode::SUCCESS)
}

fn temporary() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("understudy-")
        .tempdir()
        .context("cannot make a temporary directory")
}
