//! The ledger: dependent, numbered writes over the volumes of a group, and the judge of what is left.
//!
//! ```text
//!   number    1     2     3     4     5     6   …       each issued only after the one before completed
//!   volume    0     1     0     1     0     1
//!   place     round r of a volume goes to slot (r × stride) mod slots, so places are written again
//!
//!   after a failover, exactly one k must explain all volumes together:
//!   every place holds the newest record ≤ k that belongs there, or was never written
//! ```
//!
//! `record` is the block, `plan` says which number belongs where, `check` is the pure verdict,
//! `journal` the durable list of what completed and when, `run` and `target` do the I/O, `keep` goes on
//! over many lives of the writer.

mod check;
mod journal;
mod keep;
mod plan;
mod record;
mod run;
mod target;

pub use check::{Bounds, Found, Verdict, check};
pub use journal::{Completed, Journal, Writer as JournalWriter, now_us};
pub use keep::{KeepOptions, Life, keep, went_back};
pub use plan::{Place, Plan};
pub use record::{Hash, Reading, Record, hash};
pub use run::{Ended, RunOptions, read_back, run};
pub use target::Target;
