//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

use super::LogFormat;

/// Shown below the flags.
pub(super) const EXAMPLE: &str = "\
EXAMPLE, an engine for trying it out, everything below one directory:
    mkdir -p /tmp/a/pool
    understudyd --pool /tmp/a/pool --api unix:/tmp/a/api.sock \\
        --nbd unix:/tmp/a/nbd.sock --link unix:/tmp/a/link.sock

EXAMPLE FILE:
    pool: /var/lib/understudy
    node: node-a
    api: [\"unix:/run/understudy/api.sock\", \"tls:0.0.0.0:7460\"]
    nbd: [\"unix:/run/understudy/nbd.sock\", \"tls:0.0.0.0:7461\"]
    link: tls:0.0.0.0:7462
    metrics: [\"tls:0.0.0.0:7463\"]
    tls: /run/understudy/tls
    shards: 2
    io: auto
    logFormat: json
    logLevel: info
    limits:
      nbdConnections: 1024
      nbdConnectionsPerListener: 512
      linkConnections: 1024
      apiConnections: 256
      groups: 1024
      intentMib: 4096
";

/// The data-plane daemon of a node: keeps replicas in a pool, serves them over NBD, and replicates
/// them to the engine of another node.
///
/// An ADDRESS is unix:PATH, tls:HOST:PORT (both ends prove themselves with certificates: --tls) or
/// tcp:HOST:PORT (plaintext: --insecure-plaintext). SIGTERM and SIGINT end it cleanly, a second one at
/// once; started again, it finds its replicas and goes on.
#[derive(Parser, Clone, Debug, Default)]
#[command(name = "understudyd", version, after_help = EXAMPLE, args_conflicts_with_subcommands = true)]
pub struct Flags {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// A YAML file with the keys below; flags win over it.
    #[arg(long, value_name = "FILE", env = "UNDERSTUDYD_CONFIG")]
    pub config: Option<PathBuf>,
    /// The directory that holds the replicas; must exist. An empty one becomes a new pool.
    #[arg(long, value_name = "DIRECTORY")]
    pub pool: Option<PathBuf>,
    /// The node's name: in logs, and what the certificate must be of [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Where the engine API is served; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    pub api: Vec<String>,
    /// Where volumes are served over NBD; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    pub nbd: Vec<String>,
    /// Where metrics are served for Prometheus, as GET /metrics; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Vec<String>,
    /// Allows tcp: addresses for metrics, and for nothing else: whoever reaches them reads the names of
    /// groups, how much they write and how far their copies are.
    #[arg(long)]
    pub metrics_plaintext: bool,
    /// Where links of primaries are taken; without it, this engine holds no secondaries.
    #[arg(long, value_name = "ADDRESS")]
    pub link: Option<String>,
    /// The directory of ca.crt, tls.crt and tls.key, in PEM; read again when they change. The
    /// certificate names spiffe://understudy.dev/engine/NODE. Absent files are waited for, two minutes.
    #[arg(long, value_name = "DIRECTORY")]
    pub tls: Option<PathBuf>,
    /// Allows tcp: addresses, of this engine and of peers. Gives up everything on the network: whoever
    /// can reach a port reads, changes and deletes volumes, and whoever is on the way does so unseen.
    #[arg(long)]
    pub insecure_plaintext: bool,
    /// Data-plane threads [default: a quarter of the processors, 1 to 4].
    #[arg(long, value_name = "N")]
    pub shards: Option<usize>,
    /// How disks and sockets are reached: auto, uring or pool [default: auto].
    #[arg(long, value_name = "BACKEND")]
    pub io: Option<String>,
    /// text or json [default: text].
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// error, warn, info, debug or trace, or directives per module [default: info].
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// What to do instead of serving.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// Asks a running engine whether it serves: one line, exit status 0 if it does, else 1.
    Health(Health),
    /// Runs a program as the first process of a container: starts it again when it dies, and reaps what it
    /// leaves behind without ending it. SIGTERM and SIGINT are passed on, and it ends with the program then.
    /// Gives up after 8 short lives in a row, unless what the program left behind lives.
    Supervise(Supervise),
}

/// What to run.
#[derive(clap::Args, Clone, Debug)]
pub struct Supervise {
    /// How its own log is written: text or json.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub command: Vec<OsString>,
}

/// Whom to ask.
#[derive(clap::Args, Clone, Debug)]
pub struct Health {
    /// Where its API is: unix:PATH, or tls:NODE@HOST:PORT with --tls.
    #[arg(long, value_name = "ADDRESS")]
    pub api: String,
    /// The directory of ca.crt, tls.crt and tls.key to prove oneself with.
    #[arg(long, value_name = "DIRECTORY")]
    pub tls: Option<PathBuf>,
    /// How long the answer may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub timeout: u64,
}
