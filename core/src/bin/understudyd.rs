//! The data-plane daemon of a node; see `understudyd --help`.

use std::process::ExitCode;

use clap::Parser;
use understudy_core::engine::config::{Command, Config, Flags};
use understudy_core::engine::{daemon, health, telemetry};

// Nothing that people run has the switch of deliberate bugs in it.
const _: () = assert!(cfg!(debug_assertions) || !understudy_core::bug::IS_POSSIBLE);

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
    let flags = Flags::parse();
    if let Some(Command::Health(asked)) = &flags.command {
        println!("{}", health::ask(asked)?);
        return Ok(());
    }
    let config = Config::load(flags)?;
    telemetry::init(&config.log)?;
    daemon::run(&config)?;
    Ok(())
}
