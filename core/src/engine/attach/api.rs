//! The attach API in types: what a client asks and what it hears, already checked.
//!
//! ```text
//!   Attach { volume, generation, engine: EngineAddresses, read_only } ──► Device
//!   Device { volume, generation, path, size, state, error, … IoCounters }
//! ```

use std::path::PathBuf;
use std::time::Duration;

pub use crate::attach::{DeviceState, IoCounters};
pub use crate::engine::api::Refusal;
pub use crate::runtime::Address;
pub use crate::units::{ByteLen, Generation, VolumeId};

/// Where the engine is that serves a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineAddresses {
    /// Where it takes calls.
    pub api: Address,
    /// Where it serves NBD.
    pub nbd: Address,
}

/// Makes a device of a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attach {
    /// The volume.
    pub volume: VolumeId,
    /// The generation that the device is bound to.
    pub generation: Generation,
    /// Who serves it.
    pub engine: EngineAddresses,
    /// A device that can't be written.
    pub read_only: bool,
}

/// A device at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its volume.
    pub volume: VolumeId,
    /// The generation it is bound to.
    pub generation: Generation,
    /// Its node: `/dev/loopN`.
    pub path: PathBuf,
    /// Its length.
    pub size: ByteLen,
    /// Whether it can't be written.
    pub read_only: bool,
    /// How it stands.
    pub state: DeviceState,
    /// Waiting or gone: why.
    pub error: Option<String>,
    /// Its session at the engine; `None` with an engine that knows none.
    pub session: Option<u64>,
    /// Connections to the engine after the first.
    pub reconnects: u64,
    /// The longest that a request waited for an engine that was away.
    pub longest_stall: Duration,
    /// What it has done.
    pub io: IoCounters,
    /// Who serves it.
    pub engine: EngineAddresses,
}
