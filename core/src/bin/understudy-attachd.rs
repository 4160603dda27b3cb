//! Volumes as block devices of a node; see `understudy-attachd --help`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use understudy_core::engine::attach::client::AttachClient;
use understudy_core::engine::attach::daemon;
use understudy_core::engine::config::Log;
use understudy_core::engine::telemetry;

/// Where the daemon takes calls, unless a flag says otherwise.
const SOCKET: &str = "/run/understudy/attach.sock";

/// Makes block devices of volumes.
#[derive(Parser, Debug)]
#[command(name = "understudy-attachd", version)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Take calls at a Unix socket, and keep the devices.
    Serve {
        /// The socket.
        #[arg(long, value_name = "PATH", default_value = SOCKET)]
        socket: PathBuf,
        /// The directory that remembers devices; made if missing.
        #[arg(long, value_name = "DIRECTORY", default_value = "/run/understudy/attach")]
        state: PathBuf,
    },
    /// Whether the daemon serves: exit status 0 or 1.
    Health {
        /// The daemon's socket.
        #[arg(long, value_name = "PATH", default_value = SOCKET)]
        socket: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Flags::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("understudy-attachd: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve { socket, state } => {
            telemetry::init(&Log::default())?;
            daemon::run(&daemon::Options { socket, state })?;
        }
        Command::Health { socket } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { AttachClient::lazy(&socket).health().await })?;
        }
    }
    Ok(())
}
