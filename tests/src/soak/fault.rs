//! The faults, and how each is made.
//!
//! ```text
//!          a: primary ──────── proxy ────────► b: secondary ── pool
//!             KILL        cut, silent ↔, 200 ms     KILL, STOP   full
//! ```

use std::fmt;
use std::time::Duration;

use anyhow::Result;

use super::stage::Stage;
use crate::harness::proxy::Way;

/// How much later bytes arrive on a slow link, each way.
const DELAY: Duration = Duration::from_millis(200);

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    /// SIGKILL of the primary's engine, which is started again.
    PrimaryKilled,
    /// SIGKILL of the secondary's, which is started again.
    SecondaryKilled,
    /// Of both.
    BothKilled,
    /// The link is gone, and both sides hear of it.
    LinkCut,
    /// Nothing reaches the secondary.
    SilentOut,
    /// Nothing comes back from it.
    SilentBack,
    /// The link is slow.
    Slow,
    /// SIGSTOP of the secondary's engine for longer than its peer waits for a sign of life.
    Stopped,
    /// Nothing is free in the secondary's pool.
    PoolFull,
    /// The primary's engine is killed, and the secondary takes over.
    NodeLoss,
}

impl Kind {
    /// All of them.
    pub(super) const ALL: [Self; 10] = [
        Self::PrimaryKilled,
        Self::SecondaryKilled,
        Self::BothKilled,
        Self::LinkCut,
        Self::SilentOut,
        Self::SilentBack,
        Self::Slow,
        Self::Stopped,
        Self::PoolFull,
        Self::NodeLoss,
    ];

    /// From when to when it may last, in milliseconds: half of the time so, half so.
    pub(super) fn lengths(self) -> ((u64, u64), (u64, u64)) {
        match self {
            // Started again at once, or a moment later.
            Self::PrimaryKilled | Self::SecondaryKilled | Self::BothKilled => ((0, 0), (1, 400)),
            Self::LinkCut => ((100, 500), (500, 3000)),
            // Healed before anybody gives up, or after both sides have: 5 s without a sign of life.
            Self::SilentOut | Self::SilentBack => ((700, 3000), (6000, 7000)),
            Self::Slow => ((1000, 2000), (2000, 4000)),
            Self::Stopped => ((6000, 6500), (6500, 7500)),
            Self::PoolFull => ((1500, 2500), (2500, 4000)),
            Self::NodeLoss => ((0, 0), (0, 0)),
        }
    }

    /// Makes it. The loss of a node is more than this: see `loss`.
    pub(super) fn begin(self, stage: &mut Stage) -> Result<()> {
        match self {
            Self::PrimaryKilled | Self::NodeLoss => stage.primary_mut().engine.kill(),
            Self::SecondaryKilled => stage.secondary_mut().engine.kill(),
            Self::BothKilled => {
                stage.primary_mut().engine.kill();
                stage.secondary_mut().engine.kill();
            }
            Self::LinkCut => stage.link().cut(true),
            Self::SilentOut => stage.link().silence(Way::Out, true),
            Self::SilentBack => stage.link().silence(Way::Back, true),
            Self::Slow => stage.link().delay(DELAY),
            Self::Stopped => {
                let engine = &mut stage.secondary_mut().engine;
                if engine.pid().is_none() {
                    engine.restart()?;
                }
                engine.process()?.signal("STOP")?;
            }
            Self::PoolFull => stage.secondary_mut().pool.fill()?,
        }
        Ok(())
    }

    /// Mends it.
    pub(super) fn end(self, stage: &mut Stage) -> Result<()> {
        match self {
            Self::PrimaryKilled | Self::SecondaryKilled | Self::BothKilled => {
                stage.start_killed()?;
            }
            Self::LinkCut => stage.link().cut(false),
            Self::SilentOut => stage.link().silence(Way::Out, false),
            Self::SilentBack => stage.link().silence(Way::Back, false),
            Self::Slow => stage.link().delay(Duration::ZERO),
            Self::Stopped => {
                let engine = &mut stage.secondary_mut().engine;
                if engine.pid().is_some() {
                    engine.process()?.signal("CONT")?;
                }
            }
            Self::PoolFull => stage.secondary_mut().pool.empty()?,
            Self::NodeLoss => {}
        }
        Ok(())
    }

    /// Whether the primary's engine is away meanwhile, so that requests wait for it.
    pub(super) fn takes_primary(self) -> bool {
        matches!(self, Self::PrimaryKilled | Self::BothKilled | Self::NodeLoss)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PrimaryKilled => "primary killed",
            Self::SecondaryKilled => "secondary killed",
            Self::BothKilled => "both killed",
            Self::LinkCut => "link cut",
            Self::SilentOut => "nothing to the secondary",
            Self::SilentBack => "nothing from the secondary",
            Self::Slow => "200 ms of delay",
            Self::Stopped => "secondary stopped",
            Self::PoolFull => "pool full",
            Self::NodeLoss => "node lost",
        })
    }
}
