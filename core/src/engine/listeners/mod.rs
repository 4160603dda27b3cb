//! Who may come in: sockets, how many at once, and where a connection goes.
//!
//! ```text
//!   accept ─┬─ a place is free ─► serve ─► shard (NBD, link) or tokio (API)
//!           └─ all are taken ───► closed at once, counted, logged once a second
//! ```
//!
//! Metrics are tokio's to the end: a scrape every few seconds.
//!
//! Accepting and waiting for a hello is tokio's; from then on a connection is its shard's.

pub(crate) mod api;
mod door;
mod link;
mod metrics;
mod nbd;
mod peek;
mod socket;

pub(crate) use door::Stop;
pub(crate) use link::serve as serve_links;
pub(crate) use metrics::serve as serve_metrics;
pub(crate) use nbd::{Places, serve as serve_nbd};
pub(crate) use socket::{Acceptor, Socket};
