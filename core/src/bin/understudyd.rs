//! The data-plane daemon of a node; see `understudyd --help`.

use std::process::ExitCode;

use clap::Parser;
use understudy_core::engine::config::{Command, Config, Flags, Log};
use understudy_core::engine::{daemon, health, supervise, telemetry};

// Nothing that people run has the switch of deliberate bugs in it.
const _: () = assert!(cfg!(debug_assertions) || !understudy_core::bug::IS_POSSIBLE);

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(e) => {
            eprintln!("understudyd: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let flags = Flags::parse();
    match &flags.command {
        Some(Command::Health(asked)) => {
            println!("{}", health::ask(asked)?);
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Supervise(asked)) => {
            telemetry::init(&Log { format: asked.log_format, ..Log::default() })?;
            return Ok(ExitCode::from(supervise::run(&asked.command)?));
        }
        None => {}
    }
    let config = Config::load(flags)?;
    telemetry::init(&config.log)?;
    daemon::run(&config)?;
    Ok(ExitCode::SUCCESS)
}
