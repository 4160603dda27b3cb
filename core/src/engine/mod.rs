//! The daemon of a node, `understudyd`, and the typed client of its API.
//!
//! ```text
//!   operator, csi, tests ── client ──► api ◄── convert ── proto      typed on both ends
//!                                                  │
//!   daemon ── config, telemetry ──►  service ── registry ── pool     tokio: control
//!      └── listeners: API, NBD, links        │        └─ shards
//!                         │                  │            │
//!   ──────────────────────┼──────────────────┼────────────┼───────────────────────────
//!                         └──────────────────┴──► groups ─┘          shards: data
//! ```
//!
//! `attach` beside them is a daemon of its own, `understudy-attachd`, which outlives this one.
//!
//! The only layer that knows tonic and tokio. `groups` is the only part of it that knows replication.

pub mod api;
pub mod attach;
pub mod client;
pub mod config;
mod convert;
pub mod daemon;
pub mod error;
mod groups;
pub mod health;
mod listeners;
mod metrics;
mod pool;
pub mod proto;
mod registry;
mod service;
mod shards;
pub mod supervise;
pub mod telemetry;
