//! The daemon of a node, `understudyd`, and the typed client of its API.
//!
//! ```text
//!   operator, csi, tests ── client ──► api ◄── convert ── proto      typed on both ends
//! ```
//!
//! The only layer that knows tonic and tokio.

pub mod api;
pub mod client;
pub mod config;
mod convert;
pub mod error;
pub mod pool;
pub mod proto;
pub mod telemetry;
