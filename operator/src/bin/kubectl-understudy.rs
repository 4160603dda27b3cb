//! `kubectl understudy`: flags only; the words are in the library.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use understudy_operator::kubectl::doctor::{Severity, diagnose, render};
use understudy_operator::kubectl::{checkpoint, failover, gather, get, named, status};
use understudy_operator::observe::now;

/// What is protected, what is at risk, and what to do.
///
/// Asks the API server only. Nothing is destroyed without a question first.
#[derive(Parser)]
#[command(
    name = "kubectl understudy",
    bin_name = "kubectl understudy",
    version,
    after_help = "Exit codes: 0 done, 1 not done (doctor: problems were found), 2 wrong arguments."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The kubeconfig [default: as kubectl].
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context in it.
    #[arg(long, global = true)]
    context: Option<String>,
    /// The namespace [default: the context's].
    #[arg(short, long, global = true)]
    namespace: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Says what is protected and how old the checkpoints are.
    Status {
        /// One BlockReplication, as NAME or NAMESPACE/NAME.
        name: Option<String>,
        /// All namespaces.
        #[arg(short = 'A', long, conflicts_with = "name")]
        all_namespaces: bool,
    },
    /// Makes one checkpoint now.
    Checkpoint {
        /// The BlockReplication, as NAME or NAMESPACE/NAME.
        name: String,
        /// Until it is complete on both sides.
        #[arg(long)]
        wait: bool,
        /// The longest wait, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 120)]
        timeout: u64,
    },
    /// Lets the secondary take over, at its last checkpoint. Says what is lost, and asks.
    Failover {
        /// The BlockReplication, as NAME or NAMESPACE/NAME.
        name: String,
        /// The node that takes over, to be sure [default: the secondary].
        #[arg(long, value_name = "NODE")]
        target: Option<String>,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        /// The longest wait, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 120)]
        timeout: u64,
    },
    /// Looks at the whole installation, and names causes and remedies.
    Doctor {
        /// The namespace of the installation.
        #[arg(long, value_name = "NAMESPACE", default_value = "understudy")]
        installation: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kubectl understudy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn client(arguments: &Arguments) -> anyhow::Result<Client> {
    let options =
        KubeConfigOptions { context: arguments.context.clone(), ..KubeConfigOptions::default() };
    let config = match &arguments.kubeconfig {
        Some(path) => {
            Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?
        }
        None => {
            Config::from_kubeconfig(&options).await.context("no kubeconfig: see --kubeconfig")?
        }
    };
    Ok(Client::try_from(config)?)
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = client(&arguments).await?;
    let namespace = arguments.namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let seconds = Duration::from_secs;
    let text = match arguments.command {
        Command::Status { name: Some(name), .. } => {
            status::describe(&get(&client, &named(&name, &namespace)).await?, now())
        }
        Command::Status { name: None, all_namespaces } => {
            let place = (!all_namespaces).then_some(namespace.as_str());
            let found = gather::replications(&client, place).await?;
            if found.is_empty() && !all_namespaces {
                let everywhere = gather::replications(&client, None).await.ok();
                status::none_in(&namespace, everywhere.as_deref())
            } else {
                status::list(&found, now())
            }
        }
        Command::Checkpoint { name, wait, timeout } => {
            let wait = wait.then(|| seconds(timeout));
            checkpoint::run(&client, &named(&name, &namespace), wait).await?
        }
        Command::Failover { name, target, yes, timeout } => {
            let name = named(&name, &namespace);
            failover::run(&client, &name, target.as_deref(), yes, seconds(timeout)).await?
        }
        Command::Doctor { installation } => {
            let facts = gather::facts(&client, &installation).await?;
            let found = diagnose(&facts);
            print!("{}", render(&facts, &found));
            let bad = found.iter().any(|f| f.severity == Severity::Problem);
            return Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
    };
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}
