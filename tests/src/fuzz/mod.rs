//! What must hold of every decoder for any bytes at all: the bodies of the fuzz targets.
//!
//! ```text
//!   tests/fuzz (cargo-fuzz, nightly) ─┐                        ┌─ seeds     made by our own encoders
//!                                     ├─► TARGETS[name].run ◄──┤
//!   t1_fuzz (stable, a few seconds) ──┘      (&[u8])           └─ corpus    tests/fuzz/corpus/NAME
//! ```
//!
//! A target reads its bytes as a small script (`input.rs`), so that most of what a mutation makes gets
//! past the checksum: patches to a good store that are sealed again, frames whose checksum is
//! computed, replies with the cookie that is awaited. One mode of each is *rot*: a change that the
//! checksum must find for certain, because it is no longer than the checksum is. What else must hold
//! stands at the head of each target. A breach is a panic.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a target fails by panicking"
)]

mod active;
pub mod corpus;
mod input;
mod intent;
mod label;
mod link;
mod manifest;
mod nbd_client;
mod nbd_peer;
mod nbd_replies;
mod nbd_server;
mod seal;
mod superblock;
mod undo;
mod watched;
mod world;

pub use active::active;
pub use intent::intent;
pub use label::label;
pub use link::link;
pub use manifest::manifest;
pub use nbd_client::nbd_client;
pub use nbd_server::nbd_server;
pub use superblock::superblock;
pub use undo::undo;

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As the corpus folder and the cargo-fuzz target are named.
    pub name: &'static str,
    /// Judges some bytes; panics when something does not hold.
    pub run: fn(&[u8]),
    /// Inputs that go deep, by name.
    pub seeds: fn() -> Vec<(&'static str, Vec<u8>)>,
    /// Whether a seed reaches what it was made for.
    pub reaches: fn(&[u8]) -> bool,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "superblock",
        run: superblock,
        seeds: superblock::seeds,
        reaches: superblock::reaches,
    },
    Target { name: "undo", run: undo, seeds: undo::seeds, reaches: undo::reaches },
    Target { name: "intent", run: intent, seeds: intent::seeds, reaches: intent::reaches },
    Target { name: "active", run: active, seeds: active::seeds, reaches: active::reaches },
    Target { name: "label", run: label, seeds: label::seeds, reaches: label::reaches },
    Target { name: "link", run: link, seeds: link::seeds, reaches: link::reaches },
    Target {
        name: "nbd_server",
        run: nbd_server,
        seeds: nbd_server::seeds,
        reaches: nbd_server::reaches,
    },
    Target {
        name: "nbd_client",
        run: nbd_client,
        seeds: nbd_client::seeds,
        reaches: nbd_client::reaches,
    },
    Target { name: "manifest", run: manifest, seeds: manifest::seeds, reaches: manifest::reaches },
];
