//! A world in one thread, decided by a seed: nodes with clocks, tasks, disks and streams that
//! misbehave as real ones do, so that the production code of replication can be driven into every
//! corner, and back into the same corner.
//!
//! ```text
//!   Sim ── node("a") ─► SimHost (Env + Host) ─┬ tasks     the seed picks which goes on
//!    │                                        ├ clock     virtual; jumps to the next event
//!    │                                        ├ SimDir / SimDisk      torn, lost, reordered
//!    │                                        └ SimStream / SimListener   delayed, cut, silent
//!    ├ block_on, run_for                      run the world
//!    └ crash, kill, power_cut, partition, cut, heal, drift, pause, crash_at_sync
//! ```
//!
//! The same seed and the same calls give the same [`Sim::trace_hash`]. A failure prints the seed and
//! the last things that happened; `UNDERSTUDY_TRACE=1` prints all of them.

mod dir;
mod disk;
mod events;
mod faults;
mod file;
mod host;
mod network;
mod node;
mod pages;
mod random;
mod request;
mod run;
mod side;
mod stream;
mod sync;
mod trace;
mod world;

pub use dir::SimDir;
pub use disk::SimDisk;
pub use faults::{Failure, Operation};
pub use file::{Held, Keep};
pub use host::SimHost;
pub use network::{Direction, Loss, SimListener};
pub use random::Random;
pub use run::Sim;
pub use stream::SimStream;
pub use sync::When;

#[cfg(test)]
mod tests;
