//! The daemon of a node, `understudyd`, and the typed client of its API.
//!
//! ```text
//!   operator, csi, tests ── client ──► api ◄── convert ── proto      typed on both ends
//! ```
//!
//! The only layer that knows tonic and tokio.

pub mod api;
pub mod client;
mod convert;
pub mod proto;
