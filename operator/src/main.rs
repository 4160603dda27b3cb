//! `understudy-operator`: flags and signals; no decisions.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use understudy_operator::standalone;
use understudy_operator::standalone::manifest::NodeAddress;

/// Keeps a second, always-recoverable copy of a virtual machine's disks on another node.
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 ended by a signal, 1 could not work, 2 wrong arguments."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Which messages are logged, as in info or understudy_operator=debug.
    #[arg(long, global = true, env = "UNDERSTUDY_LOG", default_value = "info")]
    log: String,
    /// How they are written.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Works without a cluster: manifests in a directory, status beside them.
    #[command(long_about = STANDALONE, after_help = EXAMPLE)]
    Standalone {
        /// The directory of manifests.
        dir: PathBuf,
        /// A node: its name, its engine's address (unix:PATH or tcp:HOST:PORT), and where the
        /// engine takes links. A node without a link holds no copies.
        #[arg(long = "node", value_name = "NAME=ADDRESS[,link=ADDRESS]", value_parser = node)]
        nodes: Vec<(String, NodeAddress)>,
    },
}

const STANDALONE: &str = "\
Works without a cluster: manifests in a directory, status beside them.

Reads every *.yaml in DIR: BlockReplication and ReplicatedVolume of understudy.dev/v1alpha1,
PersistentVolumeClaim, and kubevirt.io VirtualMachine. Looks again five times a second: change a file,
and the engines follow. What is true is written to DIR/status, one file an object; the
ReplicationGroup there says who is primary, so keep that folder.

To fail over by hand, write into the BlockReplication
  spec: {failover: {trigger: {generation: GENERATION, target: NODE}}}
with the generation that status.generation shows. To stop, write spec.state: Stopped. To make one
checkpoint, write any new text into spec.checkpoint.trigger; status.trigger repeats it when done.
A BlockReplication whose file is gone for 5 s is ended: the primary goes on, the copy is deleted.";

const EXAMPLE: &str = "\
Example:
  understudy-operator standalone examples/standalone \\
    --node node-a=unix:/run/a/engine.sock,link=tcp:127.0.0.1:7001 \\
    --node node-b=unix:/run/b/engine.sock,link=tcp:127.0.0.1:7002

The nodes can stand in DIR/nodes.yaml instead:
  nodes:
  - name: node-a
    engine: unix:/run/a/engine.sock
    link: tcp:127.0.0.1:7001";

fn node(text: &str) -> Result<(String, NodeAddress), String> {
    let usage = || format!("'{text}' is no node: write NAME=ADDRESS[,link=ADDRESS]");
    let (name, rest) = text.split_once('=').ok_or_else(usage)?;
    if !understudy_crds::strict::is_dns_name(name) {
        return Err(format!("'{name}' is no name of a node: use a-z 0-9 - ."));
    }
    let (engine, link) = match rest.split_once(",link=") {
        Some((engine, link)) => (engine, Some(link)),
        None => (rest, None),
    };
    let address = |text: &str| text.parse().map_err(|e| format!("{e}"));
    Ok((
        name.to_owned(),
        NodeAddress { engine: address(engine)?, link: link.map(address).transpose()? },
    ))
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = match EnvFilter::try_new(&arguments.log) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("understudy-operator: --log '{}': {error}", arguments.log);
            return ExitCode::from(2);
        }
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match arguments.log_format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
    match run(arguments.command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("understudy-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    let Command::Standalone { dir, nodes } = command;
    let mut by_name = BTreeMap::new();
    for (name, address) in nodes {
        anyhow::ensure!(!by_name.contains_key(&name), "--node {name} is given twice");
        by_name.insert(name, address);
    }
    anyhow::ensure!(
        dir.is_dir(),
        "{} is no directory: make it and put manifests there",
        dir.display()
    );
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    standalone::run(&dir, &by_name, shutdown).await?;
    Ok(())
}
