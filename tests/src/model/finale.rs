//! The end of every history: mend everything, and see that all comes right by itself.

use std::time::Duration;

use understudy_core::overlay::Policy;
use understudy_core::replication::LinkState;
use understudy_core::sim::Failure;

use super::broken::Broken;
use super::plan::{Death, Mix};
use super::player::Player;
use super::world::micros;

impl Player {
    /// Ends the history.
    pub(super) async fn finish(&mut self, mix: Mix) {
        self.mend().await;
        self.settle().await;
        if !self.paired {
            self.await_done().await;
            self.verify_primary().await;
            if matches!(mix, Mix::Faults | Mix::Growth | Mix::Join | Mix::Tight) && self.is_fine() {
                self.rejoin().await;
            }
        }
        if self.is_fine() {
            self.finish_growing().await;
        }
        if self.paired && self.is_fine() {
            self.agree().await;
            self.converge().await;
        }
        if self.paired && self.is_fine() {
            self.finish_joining().await;
        }
        if self.paired && self.is_fine() {
            self.failover(false).await;
            self.await_done().await;
            self.verify_primary().await;
        }
        match self.shared.oracle.borrow().check_cuts() {
            Ok(n) => self.shared.count(|c| c.checkpoints += u64::try_from(n).unwrap_or(0)),
            Err(e) => self.shared.fail(Broken::Epoch, e),
        }
    }

    pub(super) fn is_fine(&self) -> bool {
        self.shared.violation.borrow().is_none()
    }

    async fn mend(&mut self) {
        self.heal();
        self.sim.set_disk_delay(micros(20)..micros(200));
        for side in [0, 1] {
            self.thaw(side);
            if self.poisoned[side] {
                self.die(side, Death::Kill);
            }
            self.pool_full(side, Failure::Never);
            self.heal_disks(side);
        }
        // What was armed dies now, not later.
        for side in [0, 1] {
            let beyond = u64::MAX;
            self.sim.crash_at_sync(
                super::world::NAMES[side],
                beyond,
                understudy_core::sim::When::Before,
            );
        }
        self.notice();
        for side in [0, 1] {
            self.restart(side).await;
        }
    }

    /// The link comes up, what is missing is sent, a checkpoint completes, the view shows it.
    async fn converge(&mut self) {
        let mut done = false;
        for round in 0..8 {
            for _ in 0..500 {
                if self.status(self.primary).is_some_and(|s| s.link == LinkState::Running) {
                    break;
                }
                self.sim.pause(Duration::from_millis(20)).await;
            }
            let Some(group) = self.group(self.primary) else { return };
            let generation = self.generation;
            let began = self.shared.oracle.borrow_mut().tick();
            let asked = self.call(self.primary, async move { group.checkpoint(generation).await });
            if let Some(Ok(n)) = asked.await {
                let mut o = self.shared.oracle.borrow_mut();
                let now = o.tick();
                self.shared.check(Broken::Epoch, o.completed(n.0, began, now));
                done = true;
                break;
            }
            if round == 0 {
                // An undo log that is too small is said to be so, and mended by a person.
                self.raise_limits().await;
            }
        }
        if !done {
            let both = [0, 1].map(|s| self.status(s));
            self.shared
                .fail(Broken::Bounded, format!("the sides do not come together again: {both:?}"));
            return;
        }
        self.verify_view().await;
        self.verify_primary().await;
        let now = self.status(self.secondary()).map_or(0, |s| s.checkpoint.epoch.0);
        if !self.shared.oracle.borrow().is_view_written(now) {
            self.compare_sides().await;
        }
    }

    pub(super) async fn raise_limits(&mut self) {
        let policy =
            Policy { undo_limit: 64 << 20, resync_ceiling: 0, ..self.setting.policy.clone() };
        self.setting.policy = policy.clone();
        for side in [0, 1] {
            let (Some(group), generation) = (self.group(side), self.generation) else { continue };
            let policy = policy.clone();
            let r =
                self.call(side, async move { group.set_policy(generation, policy).await }).await;
            if let Some(Err(e)) = r {
                self.shared.fail(Broken::Bounded, format!("the limits can't be raised: {e:?}"));
            }
        }
    }
}
