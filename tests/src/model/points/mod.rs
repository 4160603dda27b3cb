//! Every sync point of every operation: the power fails just before it, and just after it.
//!
//! ```text
//!   scene    before ─► during                             played whole: counts the points of each node
//!                        │ point n of node x
//!   cut      before ─► during ┄┄ x's power fails there, or that of both ┄┄ ending ─► the oracle
//!                                    Before: it never began                 Recover: all start again
//!                                    After: nobody heard of it              Promote: the secondary, alone
//! ```
//! The same seed plays the same `before` and `during` up to the cut, so a point is the same in each.
//! What the cut leaves of what was not flushed is drawn from the seed, too.

mod play;
mod scenes;
mod tally;

pub use play::{Cut, Ending};
pub use scenes::{Scene, scenes};
pub use tally::{Tally, cut_all, seed_of};
