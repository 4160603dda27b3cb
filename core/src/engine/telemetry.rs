//! Logs: to standard error, for people or for machines.
//!
//! ```text
//!   text   2026-11-24T20:00:00.000000Z  INFO engine{node="a"}: understudy_core::engine: serving
//!   json   {"timestamp":"...","level":"INFO","fields":{"message":"serving"},"span":{"node":"a",...}}
//! ```

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use super::config::{Log, LogFormat};

/// Sends this process's logs to standard error; at most once per process.
pub fn init(log: &Log) -> Result<(), TryInitError> {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    match log.format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
}
