//! What an engine is told at its start: flags over file over defaults, checked once.
//!
//! ```text
//!   flags ──┐
//!   file  ──┼─► Config { pool, node, api, nbd, link, tls, shards, io, log, limits }
//!   defaults┘
//! ```
//!
//! Unknown keys are refused by name: a mistyped limit must not be a limit that does not hold.

mod file;
mod flags;

pub use flags::{Command, Flags, Health, Supervise};

use std::path::PathBuf;
use std::str::FromStr;

use crate::runtime::Address;
use crate::units::ParseError;

/// A checked configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The directory of the pool.
    pub pool: PathBuf,
    /// The node's name, in every log line.
    pub node: String,
    /// Where the engine API is served; not empty.
    pub api: Vec<Address>,
    /// Where NBD is served; may be empty.
    pub nbd: Vec<Address>,
    /// Where metrics are served; may be empty.
    pub metrics: Vec<Address>,
    /// Whether metrics may be served at `tcp:` addresses.
    pub metrics_plaintext: bool,
    /// Where links of primaries are taken; `None`: this engine holds no secondaries.
    pub link: Option<Address>,
    /// Where the certificates are.
    pub tls: Option<PathBuf>,
    /// Whether `tcp:` addresses are allowed: plaintext.
    pub insecure_plaintext: bool,
    /// How many data-plane threads there are.
    pub shards: usize,
    /// How they reach disks and sockets.
    pub io: Io,
    /// How logs are written.
    pub log: Log,
    /// What others can't make this process exceed.
    pub limits: Limits,
}

/// How shards reach disks and sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Io {
    /// io_uring where the kernel allows it, else threads.
    #[default]
    Auto,
    /// io_uring, or no start.
    Uring,
    /// Threads.
    Pool,
}

impl FromStr for Io {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        match s {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "pool" => Ok(Self::Pool),
            _ => Err(ParseError(format!("'{s}' is no I/O back end: use auto, uring or pool"))),
        }
    }
}

/// How logs are written, to standard error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// A level (`info`), or directives (`info,understudy_core::link=debug`).
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        match s {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(ParseError(format!("'{s}' is no log format: use text or json"))),
        }
    }
}

/// What others can't make this process exceed. Beyond a limit the newcomer is turned away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// NBD connections at once, over all listeners.
    pub nbd_connections: usize,
    /// NBD connections at once, of one listener.
    pub nbd_connections_per_listener: usize,
    /// Links at once, those in their handshake included.
    pub link_connections: usize,
    /// Connections of the engine API at once.
    pub api_connections: usize,
    /// Groups of the pool.
    pub groups: usize,
    /// MiB of each group's volumes that stay marked in its intent log only for speed: what is sent in vain
    /// after a crash, at most.
    pub intent_mib: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            nbd_connections: 1024,
            nbd_connections_per_listener: 512,
            link_connections: 1024,
            api_connections: 256,
            groups: 1024,
            intent_mib: crate::disk::INTENT_HOT,
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("the configuration file {path} can't be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the configuration file {path} is refused: {reason}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// The key, the place, and what would be right.
        reason: String,
    },
    /// A value is not what it should be, or is missing.
    #[error("{key}: {problem}")]
    Value {
        /// The key of the file, which is the flag's name too.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl ConfigError {
    fn value(key: &'static str, problem: impl std::fmt::Display) -> Self {
        Self::Value { key, problem: problem.to_string() }
    }
}

impl Config {
    /// Reads the file that `flags` name, if any, and lays the flags over it.
    pub fn load(flags: Flags) -> Result<Self, ConfigError> {
        let file = match &flags.config {
            Some(path) => file::read(path)?,
            None => file::File::default(),
        };
        Self::merge(flags, file)
    }

    fn merge(flags: Flags, file: file::File) -> Result<Self, ConfigError> {
        let missing = |key, example| {
            ConfigError::value(
                key,
                format!("is missing: pass --{key} {example}, or set '{key}' in the file"),
            )
        };
        let pool = flags.pool.or(file.pool).ok_or_else(|| missing("pool", "DIRECTORY"))?;
        let api = if flags.api.is_empty() { file.api.unwrap_or_default() } else { flags.api };
        if api.is_empty() {
            return Err(missing("api", "unix:PATH"));
        }
        let api = api.iter().map(|a| address("api", a)).collect::<Result<Vec<_>, _>>()?;
        let link = flags.link.or(file.link).map(|a| address("link", &a)).transpose()?;
        let nbd = if flags.nbd.is_empty() { file.nbd.unwrap_or_default() } else { flags.nbd };
        let nbd = nbd.iter().map(|a| address("nbd", a)).collect::<Result<Vec<_>, _>>()?;
        let metrics =
            if flags.metrics.is_empty() { file.metrics.unwrap_or_default() } else { flags.metrics };
        let metrics =
            metrics.iter().map(|a| address("metrics", a)).collect::<Result<Vec<_>, _>>()?;
        let log = Log {
            format: enumeration("logFormat", flags.log_format.or(file.log_format))?,
            level: flags.log_level.or(file.log_level).unwrap_or(Log::default().level),
        };
        let config = Self {
            pool,
            node: flags.node.or(file.node).unwrap_or_else(host_name),
            api,
            nbd,
            metrics,
            metrics_plaintext: flags.metrics_plaintext
                || file.metrics_plaintext.unwrap_or_default(),
            link,
            tls: flags.tls.or(file.tls),
            insecure_plaintext: flags.insecure_plaintext
                || file.insecure_plaintext.unwrap_or_default(),
            shards: flags.shards.or(file.shards).unwrap_or_else(default_shards),
            io: enumeration("io", flags.io.or(file.io))?,
            log,
            limits: file.limits.map(Into::into).unwrap_or_default(),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !(1..=64).contains(&self.shards) {
            return Err(ConfigError::value("shards", format!("{}: use 1 to 64", self.shards)));
        }
        if self.tls.is_some() && !crate::tls::is_node(&self.node) {
            let problem = format!(
                "'{}' can stand in no certificate: use 1 to 253 of a-z A-Z 0-9 . _ -",
                self.node
            );
            return Err(ConfigError::value("node", problem));
        }
        let mut seen = Vec::new();
        for (key, a) in self.listeners() {
            self.check_secure(key, a).map_err(|problem| ConfigError::value(key, problem))?;
            // Port 0 takes any free port, each time another.
            let any_port = a.host_port().is_some_and(|t| t.ends_with(":0"));
            if !any_port && seen.contains(&a) {
                return Err(ConfigError::value(
                    key,
                    format!("{a} is listened at twice: give each its own"),
                ));
            }
            seen.push(a);
        }
        if tracing_subscriber::EnvFilter::try_new(&self.log.level).is_err() {
            let problem =
                format!("'{}' is no level: use error, warn, info, debug or trace", self.log.level);
            return Err(ConfigError::value("logLevel", problem));
        }
        let l = &self.limits;
        for (key, n) in [
            ("limits.nbdConnections", l.nbd_connections),
            ("limits.nbdConnectionsPerListener", l.nbd_connections_per_listener),
            ("limits.linkConnections", l.link_connections),
            ("limits.apiConnections", l.api_connections),
            ("limits.groups", l.groups),
        ] {
            if !(1..=100_000).contains(&n) {
                return Err(ConfigError::value(key, format!("{n}: use 1 to 100000")));
            }
        }
        if !(1..=1 << 20).contains(&l.intent_mib) {
            let problem = format!("{}: use 1 to 1048576", l.intent_mib);
            return Err(ConfigError::value("limits.intentMib", problem));
        }
        Ok(())
    }
}

impl Config {
    /// All addresses to listen at, with their keys.
    fn listeners(&self) -> impl Iterator<Item = (&'static str, &Address)> {
        let api = self.api.iter().map(|a| ("api", a));
        let nbd = self.nbd.iter().map(|a| ("nbd", a));
        let metrics = self.metrics.iter().map(|a| ("metrics", a));
        api.chain(nbd).chain(self.link.iter().map(|a| ("link", a))).chain(metrics)
    }

    fn check_secure(&self, key: &str, a: &Address) -> Result<(), String> {
        match a {
            Address::Tcp(_) if key == "metrics" && self.metrics_plaintext => Ok(()),
            Address::Tcp(at) if key == "metrics" && !self.insecure_plaintext => Err(format!(
                "{a} is plaintext, and whoever reaches it reads the names of groups and how busy they are: \
                 use tls:{at} with --tls DIRECTORY, or a unix: socket; or allow it with \
                 --metrics-plaintext (metricsPlaintext)"
            )),
            Address::Tcp(at) if !self.insecure_plaintext => Err(format!(
                "{a} is plaintext, and whoever reaches it is served: use tls:{at} with --tls \
                 DIRECTORY, or a unix: socket; for a trial, pass --insecure-plaintext (insecurePlaintext)"
            )),
            Address::Tls { node: Some(_), host_port } => {
                Err(format!("{a} names a node, a listener is of its own: write tls:{host_port}"))
            }
            Address::Tls { .. } if self.tls.is_none() => Err(format!(
                "{a} needs certificates: pass --tls DIRECTORY with ca.crt, tls.crt and tls.key"
            )),
            Address::Tcp(_) | Address::Tls { .. } | Address::Unix(_) => Ok(()),
        }
    }
}

fn address(key: &'static str, text: &str) -> Result<Address, ConfigError> {
    text.parse().map_err(|e| ConfigError::value(key, e))
}

fn enumeration<T: FromStr<Err = ParseError> + Default>(
    key: &'static str,
    text: Option<String>,
) -> Result<T, ConfigError> {
    text.map_or(Ok(T::default()), |t| t.parse().map_err(|e| ConfigError::value(key, e)))
}

/// A quarter of the processors, 1 to 4: a shard that has nothing to do costs nothing, but the
/// node's processors belong to its VMs.
fn default_shards() -> usize {
    std::thread::available_parallelism().map_or(1, |n| (n.get() / 4).clamp(1, 4))
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
