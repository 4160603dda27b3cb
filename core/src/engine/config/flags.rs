//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Shown below the flags.
pub(super) const EXAMPLE: &str = "\
EXAMPLE, an engine for trying it out, everything below one directory:
    mkdir -p /tmp/a/pool
    understudyd --pool /tmp/a/pool --api unix:/tmp/a/api.sock \\
        --nbd unix:/tmp/a/nbd.sock --link unix:/tmp/a/link.sock

EXAMPLE FILE:
    pool: /var/lib/understudy
    node: node-a
    api: unix:/run/understudy/api.sock
    nbd: [\"unix:/run/understudy/nbd.sock\", \"tcp:127.0.0.1:10809\"]
    link: tcp:0.0.0.0:7001
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
";

/// The data-plane daemon of a node: keeps replicas in a pool, serves them over NBD, and replicates
/// them to the engine of another node.
///
/// An ADDRESS is unix:PATH or tcp:HOST:PORT. SIGTERM and SIGINT end it cleanly, a second one at once;
/// started again, it finds its replicas and goes on.
#[derive(Parser, Clone, Debug, Default)]
#[command(name = "understudyd", version, after_help = EXAMPLE)]
pub struct Flags {
    /// A YAML file with the keys below; flags win over it.
    #[arg(long, value_name = "FILE", env = "UNDERSTUDYD_CONFIG")]
    pub config: Option<PathBuf>,
    /// The directory that holds the replicas; must exist. An empty one becomes a new pool.
    #[arg(long, value_name = "DIRECTORY")]
    pub pool: Option<PathBuf>,
    /// The node's name, for logs [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Where the engine API is served.
    #[arg(long, value_name = "ADDRESS")]
    pub api: Option<String>,
    /// Where volumes are served over NBD; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    pub nbd: Vec<String>,
    /// Where links of primaries are taken; without it, this engine holds no secondaries.
    #[arg(long, value_name = "ADDRESS")]
    pub link: Option<String>,
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
