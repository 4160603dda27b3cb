//! What lies over and beside a replica's disk: undo logs, the active disk, the view, and what a
//! group remembers about itself.
//!
//! ```text
//!   one directory per group                          one directory per replica
//!     Superblock   who we are, record, role            the disk itself
//!     IntentLog    what the peer may lack              Label      whose disk it is
//!     UndoLog ...  one per open epoch                  Active     data + map of a consumer's writes
//!
//!   view at checkpoint C of one volume (Point, held by every read):
//!
//!        Active          the consumer's own writes            first
//!        UndoLog C+1     what epoch C+1 overwrote             oldest log that has the cluster
//!        UndoLog C+2     ...
//!        disk            what nobody overwrote since C        last
//!
//!   Chain ─ complete(n) ─► a new Point; logs of epochs <= n are freed with the last older Point
//!
//!   RangeLock   one order for overlapping requests      Bitmap   sparse set of 4 KiB clusters
//! ```
//!
//! Every layout is little-endian, starts with a sealed header (`block.rs`: magic, version,
//! checksum) and is written in multiples of 4096 bytes, because a disk may ask for that alignment.

mod active;
mod active_map;
mod bitmap;
mod block;
mod chain;
mod intent;
mod label;
mod range_lock;
mod superblock;
mod undo;

pub use active::{Active, ActiveState};
pub use bitmap::Bitmap;
pub use chain::{Chain, Point};
pub use intent::{INTENT_HOT, INTENT_REGION, IntentLog};
pub use label::{LABEL_LEN, Label};
pub use range_lock::{RangeGuard, RangeLock};
pub use superblock::{
    ActiveId, CARRIED_MAX, CommitPosition, GroupState, HISTORY_MAX, Member, Mode, Policy, Role,
    SUPERBLOCK_LEN, Sessions, Stage, Superblock, UNDO_LOGS_MAX, UndoFull,
};
pub use undo::{Content, Place, Saved, UndoLog};

#[cfg(test)]
mod tests;
