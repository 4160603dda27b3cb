//! The attach daemon, `understudy-attachd`, and the typed client of its API.
//!
//! ```text
//!   csi, tests ── client ──► api ◄── convert ── proto           typed on both ends
//!                                       │
//!   daemon ── socket ──► service ── devices ──► crate::attach   holders, loop devices, state files
//! ```

pub mod api;
pub mod client;
mod convert;
pub mod daemon;
pub mod proto;
mod service;
