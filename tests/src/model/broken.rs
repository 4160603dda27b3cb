//! What of the design a history broke.

use std::fmt;

/// An invariant of the design, by its number there, or what every test must hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Broken {
    /// The VM's own disk does not read what was written to it.
    Disk,
    /// 1: the view is the last checkpoint and the consumer's own writes.
    View,
    /// 2: the promoted disk reads the view at the moment of failover.
    Failover,
    /// 3: no completed checkpoint is lost.
    Checkpoint,
    /// 4: one group, one epoch, and each a consistent cut.
    Epoch,
    /// 6: nothing is lost silently.
    Silent,
    /// 8: every wait has an end.
    Bounded,
    /// 9: a restart is not an outage.
    Restart,
    /// The product's own assertions, or the world stood still.
    Panic,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "the VM's disk",
            Self::View => "invariant 1 (view)",
            Self::Failover => "invariant 2 (failover keeps the view)",
            Self::Checkpoint => "invariant 3 (no checkpoint lost)",
            Self::Epoch => "invariant 4 (one epoch, a consistent cut)",
            Self::Silent => "invariant 6 (never silent)",
            Self::Bounded => "invariant 8 (bounded)",
            Self::Restart => "invariant 9 (a restart is no outage)",
            Self::Panic => "an assertion",
        })
    }
}
