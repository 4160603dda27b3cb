//! How a device stands, as its holder tells it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How a device and its engine stand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum DeviceState {
    /// Connected.
    Serving,
    /// The engine is away; requests wait.
    Waiting,
    /// Every request fails, for good.
    Gone,
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a device has done since it was attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct IoCounters {
    /// Reads that ended.
    pub reads: u64,
    /// What they brought, in bytes.
    pub read_bytes: u64,
    /// Writes that ended.
    pub writes: u64,
    /// What they took, in bytes.
    pub written_bytes: u64,
    /// Flushes that ended.
    pub flushes: u64,
    /// Discards, and writes of zeroes, that ended.
    pub discards: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Requests under way.
    pub in_flight: u64,
}

/// A device at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Its node.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// How it stands.
    pub state: DeviceState,
    /// Waiting or gone: why.
    pub error: Option<String>,
    /// Connections to the engine after the first.
    pub reconnects: u64,
    /// The longest that a request waited for an engine that was away, in microseconds.
    pub longest_stall: u64,
    /// What it has done.
    pub io: IoCounters,
}
