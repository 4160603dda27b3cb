//! A volume as a block device of a node, held by a process of its own.
//!
//! ```text
//!   VM, mount ── /dev/loopN ── kernel: loop, direct I/O ── FUSE file       node without ublk and NBD
//!                                                            │ /dev/fuse
//!   understudy-attachd hold  ┌───────────────────────────────▼──────────┐
//!    (one per device)        │ fuse thread ──► shard: line ── NBD client │ ◄── control socket ── daemon
//!                            └──────────────────────────┬───────────────┘
//!                                            unix socket │ or the network: an engine comes and goes
//!                                                        ▼
//!                                                   understudyd
//! ```
//!
//! The device lives as long as its holder and the holder needs neither the daemon nor, for a while,
//! the engine: requests wait until the engine is back, for ever if need be (invariant 9), and fail for
//! good when it says that the generation is gone (invariant 7).
//!
//! ```text
//!   record      what the state directory remembers of a device         (daemon and holder)
//!   holder      one device's process from its start to its end         (holder)
//!    ├ line      the connection to the engine: waits, connects anew, sends again
//!    ├ device    what turns requests into a block device; today: fuse_loop = fuse + loop_device
//!    └ control   what the daemon asks a holder
//!   leftover    a device whose holder died                             (daemon)
//!   probe       what this node has to make devices with
//! ```

mod control;
mod counters;
mod device;
mod fuse;
mod fuse_loop;
mod holder;
mod leftover;
mod line;
mod loop_device;
mod loop_ioctl;
mod probe;
mod protect;
mod record;
mod request;
mod status;
pub mod steps;
mod users;

pub use control::{Answer, Ask, ControlError, Refused, ask};
pub use holder::{Network, Ready, hold};
pub use leftover::{Cleared, clear, find};
pub use probe::{Backend, Missing, probe};
pub use record::{Record, StateDirectory};
pub use status::{DeviceState, IoCounters, Status};
pub use users::users_of;
