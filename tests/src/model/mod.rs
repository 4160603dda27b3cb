//! The filter against a plain model, in the simulator, with and without faults.
//!
//! ```text
//!   seed ─► plan (world, steps) ─► player ─► two groups of product code on simulated nodes
//!                                     │          requests in flight beside the steps
//!                                     ▼
//!                                  oracle   eras ─ writes in order of time
//!                                           cuts ─ what each checkpoint must and must not hold
//!                                           consumer ─ own writes over the view
//! ```
//! A failing seed is made short, and printed with the one command that plays it again.

mod begin;
mod broken;
mod bugs;
mod case;
mod content;
mod cut;
mod finale;
mod growth;
mod harm;
mod join;
mod lives;
mod many;
mod oracle;
mod plan;
mod player;
mod points;
mod requests;
mod shared;
mod view;
mod world;
mod writes;

pub use broken::Broken;
pub use bugs::{Found, Hunt, hunt, hunt_all, line, mix_for};
pub use case::{Case, Failed};
pub use many::{Total, judge, play_many};
pub use plan::{Death, Kind, Mix, Op, Plan, Setting};
pub use points::{Cut, Ending, Scene, Tally, cut_all, scenes, seed_of};
pub use shared::Counts;
