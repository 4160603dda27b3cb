//! The data plane of Understudy: a second, always-recoverable copy of a VM's disks on another node.
//!
//! ```text
//!   engine        the daemon: configuration, pools, shards, gRPC. The only layer that knows tonic or tokio.
//!     │
//!   attach        a volume as a block device of a node; a client of nbd
//!     │
//!   nbd           how consumers reach a volume
//!     │
//!   replication   the filter: start, checkpoint, get_error, stop, failover of a group
//!     │      │
//!   overlay link  undo logs, active disk, view, superblock │ frames, window, sessions
//!     │      │
//!   disk          a place for bytes at offsets; a directory of such places
//!     │
//!   runtime       one thread's tasks, buffers, clock, streams
//!     │
//!   tls           identities, certificates, who may come in where
//!     │
//!   units         offsets, epochs, identities
//! ```
//!
//! Imports go downward only, and nothing here knows Kubernetes; `tests/layering.rs` holds both.
//! `replication`, `overlay` and `link` touch no clock, thread, file or socket of their own: they are
//! generic over [`disk::Host`], so that the simulator (`sim`) runs the very same code.

pub mod attach;
pub mod bug;
pub mod disk;
pub mod engine;
pub mod link;
pub mod nbd;
pub mod overlay;
pub mod replication;
pub mod runtime;
pub mod tls;
pub mod units;

#[cfg(any(test, feature = "sim"))]
pub mod sim;
