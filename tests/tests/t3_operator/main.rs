//! T3: the operator on a real API server with real engines, over TLS, with the rights of the chart.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "a test fails by panicking")]

mod away;
mod doctor;
mod join;
mod kills;
mod life;
mod objects;
mod people;
mod refusals;
mod stage;
