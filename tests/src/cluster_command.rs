//! `understudy-tests cluster …`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};
use understudy_tests::cluster::machine::{Client, Options, Place, run, up};
use understudy_tests::cluster::{Bench, image};

/// What to do with a test cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// An API server with the CRDs and nothing else, until it is interrupted.
    Bench,
    /// Build the images of the cluster.
    Images,
    /// Bring a whole cluster up; it stays until `down`.
    Up {
        /// How many nodes: node-a, node-b, …
        #[arg(long, default_value_t = 2)]
        nodes: u8,
    },
    /// End the cluster and remove everything of it, also what a killed one left.
    Down,
    /// Give a node's power away, or back; cut it off, or put it back.
    Node {
        /// What happens.
        order: Order,
        /// To which.
        name: String,
    },
    /// The keeper of a cluster; `up` starts it.
    #[command(hide = true)]
    Run {
        #[arg(long)]
        nodes: u8,
        #[arg(long)]
        owner: Option<u32>,
    },
}

/// What happens to a node.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Order {
    /// Power off, at once.
    Kill,
    /// Power on.
    Start,
    /// Cut off from everything.
    Partition,
    /// Put back.
    Heal,
    /// The id of its first process, for nsenter.
    Pid,
}

pub(crate) fn execute(command: &Command) -> Result<ExitCode> {
    let place = Place::default();
    match command {
        Command::Bench => {
            let bench = Bench::start()?;
            println!("export KUBECONFIG={}", bench.kubeconfig().display());
            wait_for_the_end()?;
        }
        Command::Images => {
            for path in image::build_all(&place.images())? {
                println!("{}", path.display());
            }
        }
        Command::Up { nodes } => {
            up(&place, *nodes, false)?;
            println!("export KUBECONFIG={}", place.kubeconfig().display());
        }
        Command::Down => Client::new(&place).down()?,
        Command::Node { order, name } => {
            let order = format!("{order:?}").to_lowercase();
            println!("{}", Client::new(&place).order(&format!("{order} {name}"))?);
        }
        Command::Run { nodes, owner } => run(&place, &Options { nodes: *nodes, owner: *owner })?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Until SIGINT or SIGTERM.
fn wait_for_the_end() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted?,
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}
