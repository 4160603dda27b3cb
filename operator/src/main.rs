//! `understudy-operator`: flags and signals; no decisions.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use understudy_operator::certificates::Signing;
use understudy_operator::certificates::identity::Identity;
use understudy_operator::certificates::request::Keeper;
use understudy_operator::cluster::nodes::Ports;
use understudy_operator::cluster::{self, Options};
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
    /// Works in a cluster: reconciles BlockReplications, signs the parts' certificates.
    #[command(long_about = CONTROLLER, after_help = CONTROLLER_EXAMPLE)]
    Controller(ControllerArguments),
    /// Keeps the certificate of another part, as its sidecar.
    #[command(long_about = CERTIFICATE)]
    Certificate(CertificateArguments),
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

#[derive(Args)]
struct ControllerArguments {
    /// The namespace of the installation, where its Lease, Secret and ConfigMaps are.
    #[arg(long, env = "POD_NAMESPACE", default_value = "understudy")]
    namespace: String,
    /// Who this replica is in the election.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// The port of the engines' API on their nodes.
    #[arg(long, value_name = "PORT", default_value_t = 7460)]
    engine_port: u16,
    /// The port on which engines take links.
    #[arg(long, value_name = "PORT", default_value_t = 7462)]
    link_port: u16,
    /// Where the operator keeps its own certificate.
    #[arg(long, value_name = "DIR", default_value = "/run/understudy/tls")]
    tls: PathBuf,
    /// Speak to engines in plaintext, and have them do so among each other: whoever is on the way
    /// reads and changes the disks. For tests.
    #[arg(long, conflicts_with = "tls")]
    insecure_plaintext: bool,
    /// Sign nothing: the files in --tls come from somebody else, and so do those of the engines.
    #[arg(long)]
    no_signer: bool,
    /// How long the certificates that it signs are good; they are renewed at two thirds.
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=8760))]
    certificate_hours: u64,
    /// How long a certificate authority that it makes is good.
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=7300))]
    authority_days: u64,
    /// Keep the Secret understudy-metrics: ca.crt, tls.crt and tls.key of who may read the engines' metrics,
    /// and nothing else.
    #[arg(long, conflicts_with = "no_signer")]
    metrics_reader: bool,
    /// How long figures in a status may lag; what changes in kind is written at once.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    status_interval: u64,
}

#[derive(Args)]
struct CertificateArguments {
    /// Whose.
    #[arg(long, value_enum)]
    identity: CertificateIdentity,
    /// The node of the engine.
    #[arg(long, env = "NODE_NAME", required_if_eq("identity", "engine"))]
    node: Option<String>,
    /// Where ca.crt, tls.crt and tls.key are written.
    #[arg(long)]
    dir: PathBuf,
    /// The namespace of the installation.
    #[arg(long, env = "POD_NAMESPACE", default_value = "understudy")]
    namespace: String,
    /// End when the files are there, instead of renewing them for ever.
    #[arg(long)]
    once: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CertificateIdentity {
    /// The engine of --node.
    Engine,
    /// The controller of the CSI driver.
    CsiController,
}

const CONTROLLER: &str = "\
Works in a cluster: reconciles BlockReplications, signs the parts' certificates.

Of several replicas one works, the holder of the Lease understudy-operator. It reads the API server
by kubeconfig or, in a pod, by its service account. It may be killed at any time: the next one goes
on from what it finds. Without it, and without the API server, disks are served and checkpoints made
as before; only nothing new is begun, and nobody fails over.

Nodes with the label csi.understudy.dev/installation have an engine, reached at their InternalIP.

What gets stuck has a way out:
  a BlockReplication that can't end because its primary is gone for good:
    kubectl annotate br NAME understudy.dev/abandon=true
  a failover is ordered by kubectl understudy failover NAME, or by hand:
    spec: {failover: {trigger: {generation: <status.generation>, target: <status.secondary>}}}";

const CONTROLLER_EXAMPLE: &str = "\
Example:
  understudy-operator controller --namespace understudy
  KUBECONFIG=~/.kube/config understudy-operator controller --identity here --tls /tmp/tls";

const CERTIFICATE: &str = "\
Keeps the certificate of another part, as its sidecar.

Makes a key, asks for a certificate by a CertificateSigningRequest of the signer understudy.dev/node,
waits for the operator to sign it, and writes ca.crt, tls.crt and tls.key into DIR, all three at
once. Asks again at two thirds of its life. What it is signed for is proven by its service account
and, for an engine, by the node that its token is bound to.";

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
    match command {
        Command::Standalone { dir, nodes } => standalone(&dir, nodes).await,
        Command::Controller(arguments) => controller(arguments).await,
        Command::Certificate(arguments) => certificate(arguments).await,
    }
}

async fn client() -> anyhow::Result<kube::Client> {
    let remedy = "no way to an API server: set KUBECONFIG, or run in a pod with a service account";
    kube::Client::try_default().await.context(remedy)
}

async fn controller(arguments: ControllerArguments) -> anyhow::Result<()> {
    let identity = match arguments.identity {
        Some(identity) => identity,
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .context("--identity is not given and the host has no name")?
            .trim()
            .to_owned(),
    };
    let hours = |n: u64| Duration::from_secs(n.saturating_mul(3600));
    let signing = (!arguments.no_signer).then(|| Signing {
        lifetime: hours(arguments.certificate_hours),
        authority_lifetime: hours(arguments.authority_days.saturating_mul(24)),
        metrics_reader: arguments.metrics_reader,
    });
    let options = Options {
        namespace: arguments.namespace,
        identity,
        ports: Ports { api: arguments.engine_port, link: arguments.link_port },
        insecure_plaintext: arguments.insecure_plaintext,
        tls_dir: arguments.tls,
        status_interval: Duration::from_secs(arguments.status_interval),
        signing,
    };
    Box::pin(cluster::run(client().await?, options, ending()?)).await?;
    Ok(())
}

async fn certificate(arguments: CertificateArguments) -> anyhow::Result<()> {
    let identity = match (arguments.identity, arguments.node) {
        (CertificateIdentity::CsiController, _) => Identity::CsiController,
        (CertificateIdentity::Engine, Some(node)) => Identity::Engine(node),
        (CertificateIdentity::Engine, None) => anyhow::bail!("--node is missing"),
    };
    let keeper = Keeper::new(&client().await?, &arguments.namespace, identity, &arguments.dir);
    if arguments.once {
        return Ok(keeper.step().await?);
    }
    tokio::select! {
        () = keeper.run() => {}
        () = ending()? => {}
    }
    Ok(())
}

/// Done when a signal asks the process to end.
fn ending() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn standalone(dir: &Path, nodes: Vec<(String, NodeAddress)>) -> anyhow::Result<()> {
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
    standalone::run(dir, &by_name, ending()?).await?;
    Ok(())
}
