//! The link: one ordered stream of frames per group, from the primary's engine to the secondary's.
//!
//! ```text
//!   primary                                            secondary
//!   hello ───────────────────────────────────────────► who I am, my highest epoch
//!          ◄─────────────────────────────────────────  hello: mine, and my record
//!   write, zeroes, discard, flush, begin-epoch ──────►  staged, in order
//!          ◄─────────────────────────────────────────  ack (received, applied), record, flushed, error
//!   status ◄─────────────────────────────────────────►  sign of life, both ways
//! ```
//!
//! [`frame`] is pure; [`Window`] bounds and sends what the primary queues; [`Connection`] reads and
//! writes whole frames over any [`crate::runtime::Stream`].

mod connection;
pub mod frame;
mod window;

pub use connection::{Connection, LinkError};
pub use window::{Queued, Window};
