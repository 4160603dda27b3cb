//! The replication filter of a group of volumes: start, checkpoint, get_error, stop, failover.
//!
//! ```text
//!   Group (group, operate, resume, report)
//!     ├─ machine      which operation is allowed in which stage: pure
//!     ├─ Store        the group superblock, one atomic change at a time
//!     ├─ Counters     what it has done so far, for metrics
//!     ├─ Primary      the VM's side: local disk beside the forwarding leg
//!     │    ├─ Peer        what it has besides with a peer: leg, intent marks, errors
//!     │    ├─ Leg         spans, missing, window: what the peer has and lacks
//!     │    ├─ session     connect, hello, receive, backoff
//!     │    ├─ checkpoint  when an epoch is closed, when its checkpoint is complete
//!     │    ├─ resync      sends what is missing
//!     │    └─ Promoted    after a failover: view at once, merged in the background
//!     ├─ Secondary    rolled back to the last checkpoint at any time
//!     │    ├─ staging     taken and not applied yet: by a session, or inbound
//!     │    ├─ serve       its side of a session
//!     │    ├─ apply       save old content, sync, overwrite
//!     │    ├─ record      begin-epoch N+1 makes record N
//!     │    └─ view        what a consumer sees and writes
//!     ├─ sessions     which of its consumers may write: durable numbers
//!     ├─ reshape      volumes that join, leave, grow, while the group is not open
//!     └─ Volume       a disk for consumers, bound to one generation
//! ```

mod align;
mod apply;
mod checkpoint;
mod counters;
mod forwarding;
mod group;
mod hello;
mod inbound;
mod leg;
mod local;
mod logs;
pub mod machine;
mod operate;
mod peer;
mod primary;
mod promoted;
mod record;
mod replica;
mod report;
pub mod reshape;
mod resume;
mod resync;
mod secondary;
mod serve;
mod session;
mod sessions;
mod staging;
mod status;
mod store;
mod view;
mod volume;

pub use counters::Counts;
pub use forwarding::ForwardingLeg;
pub use group::Group;
pub use operate::{FailoverSpec, StartSpec};
pub use replica::Replica;
pub(crate) use replica::slot_of;
pub use serve::serve_link;
pub use status::{Checkpoint, GroupNames, GroupStatus, Limits, LinkState};
pub use volume::{ExportKind, Volume};

#[cfg(test)]
mod tests;
