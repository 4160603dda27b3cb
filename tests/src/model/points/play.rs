//! One cut: the scene up to it, the power cut, what comes after.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use understudy_core::bug::{Bug, plant};
use understudy_core::overlay::Stage;
use understudy_core::replication::LinkState;
use understudy_core::sim::{Sim, When};

use super::super::broken::Broken;
use super::super::case::{Failed, STEPS_MAX, panicked};
use super::super::plan::{Death, Mix, Op, Plan};
use super::super::player::Player;
use super::super::shared::Counts;
use super::super::world::NAMES;
use super::scenes::{Scene, setting};

/// What happens after the cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Whoever is down starts again, and both come together.
    Recover,
    /// The primary stays down, the secondary is promoted; then the primary returns.
    Promote,
}

/// One power cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Whose sync point (0: the node that was the first primary).
    pub node: usize,
    /// Which of the scene.
    pub point: u64,
    /// Before or after.
    pub when: When,
    /// Of both nodes in that moment.
    pub both: bool,
    /// What comes then.
    pub ending: Ending,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (when, whose) =
            (format!("{:?}", self.when).to_lowercase(), if self.both { "both" } else { "its" });
        write!(
            f,
            "{when} sync point {} of node {}, {whose} power cut, then {:?}",
            self.point, NAMES[self.node], self.ending
        )
    }
}

/// Where a scene begins and ends in each node's numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spans {
    from: [u64; 2],
    to: [u64; 2],
    /// Which node is the primary when it begins.
    pub(super) primary: usize,
}

impl Spans {
    /// How many points a node has in it.
    pub(super) fn of(&self, node: usize) -> u64 {
        self.to[node] - self.from[node]
    }
}

impl Scene {
    /// Plays it in the world of a seed with a cut, or whole. Says what was counted.
    pub(super) fn play(
        &self,
        seed: u64,
        cut: Option<Cut>,
        bug: Option<Bug>,
    ) -> Result<(Spans, Counts), Failed> {
        let _planted = plant(bug);
        let result = catch_unwind(AssertUnwindSafe(|| {
            let sim = Sim::new(seed);
            sim.limit_steps(STEPS_MAX);
            let world = sim.clone();
            sim.block_on(async { self.play_in(&world, cut).await })
        }));
        let result = result.unwrap_or_else(|panic| Err(panicked(&*panic)));
        result.map_err(|(broken, what)| Failed { step: 0, broken, what })
    }

    async fn play_in(
        &self,
        sim: &Sim,
        cut: Option<Cut>,
    ) -> Result<(Spans, Counts), (Broken, String)> {
        let setting = setting();
        let mut player = match &self.before {
            None => Player::create(sim, &setting).await,
            Some(before) => Player::new(sim, &Plan { setting, ops: before.clone() }).await,
        }
        .map_err(|e| (Broken::Restart, e))?;
        steps(&mut player, self.before.as_deref().unwrap_or_default()).await?;
        let points = || NAMES.map(|name| sim.sync_points(name));
        let (from, primary, reported) = (points(), player.primary, player.reported);
        let lives = NAMES.map(|name| sim.incarnation(name));
        if let Some(cut) = cut {
            let (name, point) = (NAMES[cut.node], from[cut.node] + cut.point);
            if cut.both {
                sim.blackout_at_sync(name, point, cut.when);
            } else {
                sim.crash_at_sync(name, point, cut.when);
            }
        }
        steps(&mut player, &self.during).await?;
        let spans = Spans { from, to: points(), primary };
        if cut.is_none() {
            is_done(&player, reported)?;
        }
        if let Some(cut) = cut {
            // The last one may have begun only just before the end.
            steps(&mut player, &[Op::Pause(100_000)]).await?;
            if sim.incarnation(NAMES[cut.node]) == lives[cut.node] {
                return Err((Broken::Panic, "this sync point was never reached".to_owned()));
            }
            self.end(&mut player, cut.ending).await;
        }
        player.finish(Mix::Faults).await;
        player.verdict().map(|counts| (spans, counts))
    }

    async fn end(&self, player: &mut Player, ending: Ending) {
        if ending == Ending::Promote && player.paired {
            let (primary, secondary) = (player.primary, player.secondary());
            player.die(primary, Death::PowerCut);
            player.restart(secondary).await;
            player.failover(true).await;
        }
        if self.before.is_none() && player.primary == 0 {
            // Whoever asked for the start asks again, unless it came to a failover.
            player.begin_again().await;
        }
    }
}

/// Whether a scene that nothing disturbed has come to its end, or it would have too few points.
fn is_done(player: &Player, reported: u64) -> Result<(), (Broken, String)> {
    let Some(s) = player.status(player.primary) else { return Ok(()) };
    let is_merged = s.role.is_some_and(|(_, stage)| stage == Stage::Done);
    let is_running = s.link == LinkState::Running && player.reported > reported;
    if player.paired && is_running || !player.paired && is_merged {
        return Ok(());
    }
    Err((Broken::Bounded, format!("the scene is over before the operation is: {s:?}")))
}

/// Plays steps, and looks often meanwhile: what was reported, who died.
async fn steps(player: &mut Player, ops: &[Op]) -> Result<(), (Broken, String)> {
    const LOOKS: u64 = 40;
    for op in ops {
        if let Op::Pause(time) = op {
            let slice = (time / LOOKS).max(200);
            for _ in 0..time / slice {
                player.step(Op::Pause(slice)).await;
            }
        } else {
            player.step(*op).await;
        }
        player.verdict()?;
    }
    Ok(())
}
