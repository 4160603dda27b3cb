//! What the simulator itself must do.

mod crash;
mod disk;
mod stream;
mod world;

use super::{Sim, SimHost};
use crate::disk::{Dir as _, Space};
use crate::units::ByteRange;

/// A file of 64 KiB on a new node.
async fn small_disk(sim: &Sim) -> (SimHost, super::SimDisk) {
    let host = sim.node("a");
    let disk = host.dir("d").create("f", 65536, Space::Sparse).await.unwrap();
    (host, disk)
}

fn all() -> ByteRange {
    ByteRange::new(0, 65536)
}
