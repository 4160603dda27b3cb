//! The data-plane daemon of a node; see `understudyd --help`.

use std::process::ExitCode;

use clap::Parser;
use understudy_core::engine::config::{Config, Flags};
use understudy_core::engine::{daemon, telemetry};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("understudyd: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let config = Config::load(Flags::parse())?;
    telemetry::init(&config.log)?;
    daemon::run(&config)?;
    Ok(())
}
