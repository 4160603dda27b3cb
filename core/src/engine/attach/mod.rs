//! The attach daemon, `understudy-attachd`, and the typed client of its API.
//!
//! ```text
//!   csi, tests ── client ──► api ◄── convert ── proto           typed on both ends
//!                                       │
//!   daemon ── socket ──► service ── devices ──► crate::attach   holders, loop devices, state files
//!                                       └─ engine               sessions
//! ```
//!
//! The daemon holds no device: each has a process of its own, which goes on when the daemon is killed,
//! and which the next daemon finds again.

pub mod api;
pub mod client;
mod convert;
pub mod daemon;
mod devices;
mod holders;
pub mod proto;
mod service;
