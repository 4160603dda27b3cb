//! Volumes that grow under a running group, cut off anywhere, and asked for again.
//!
//! ```text
//!   secondary first:   close ─► new label ─► open      beside it the primary is written to
//!   then the primary:  requests end ─► close ─► new label ─► open: a new era over the same bytes
//! ```
//! For the model a volume is as long as it will ever get, and zeroes where it has not grown to: what
//! a failover lands on may be of the old or the new size, and nothing else is asked of it, for a
//! write in the new space counts as done only where there is such a space.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};
use understudy_core::overlay::{Role, Stage};
use understudy_core::units::ByteRange;

use super::broken::Broken;
use super::plan::{Death, Kind};
use super::player::Player;
use super::world::{self, micros};

/// How long requests in flight are waited for, as the engine does.
const LEAVE: Duration = Duration::from_secs(5);

impl Player {
    /// A volume is to get so many bytes more.
    pub(super) fn ask_for(&mut self, v: usize, by: u64) {
        self.target[v] = (self.target[v] + by).min(self.setting.room[v]);
    }

    /// Secondary first, then the primary.
    pub(super) async fn expand(&mut self, v: usize, by: u64) {
        self.ask_for(v, by);
        let (primary, secondary) = (self.primary, self.secondary());
        self.grow(secondary, v).await;
        self.notice();
        if self.size(secondary, v) == Some(self.target[v]) {
            self.grow(primary, v).await;
        }
    }

    /// What was asked for and cut off is asked for again: all comes to its size.
    pub(super) async fn finish_growing(&mut self) {
        if self.setting.room == self.setting.sizes || !self.await_done().await {
            return;
        }
        for side in [self.secondary(), self.primary] {
            for v in 0..self.setting.first.max(self.volumes(side)) {
                self.grow(side, v).await;
                let size = self.size(side, v);
                if size != Some(self.target[v]) && self.is_fine() {
                    let text = format!(
                        "side {side} has {size:?} of {} bytes of volume {v}",
                        self.target[v]
                    );
                    self.shared.fail(Broken::Bounded, text);
                }
            }
        }
    }

    /// The size of a volume on a side, while its group is open.
    pub(super) fn size(&self, side: usize, v: usize) -> Option<u64> {
        self.group(side)?.names().members.get(v).map(|(_, size)| *size)
    }

    /// A side that was opened again: an expand has happened or not.
    pub(super) fn check_sizes(&self, side: usize) {
        for (v, (first, target)) in self.setting.sizes.iter().zip(&self.target).enumerate() {
            let size = self.size(side, v);
            if size.is_some_and(|s| s < *first || s > *target) {
                let text = format!("volume {v} was to grow from {first} to {target}, has {size:?}");
                self.shared.fail(Broken::Restart, text);
            }
        }
    }

    /// Makes a replica as large as was asked for. Nothing is done where the engine would refuse.
    pub(super) async fn grow(&mut self, side: usize, v: usize) {
        let Some(s) = self.status(side) else { return };
        let stage = s.role.map_or(Stage::None, |(_, stage)| stage);
        let refused = matches!(stage, Stage::Failover | Stage::FailoverFailed);
        if refused || self.frozen[side] || self.poisoned[side] || self.promoting.is_some() {
            return;
        }
        if !self.leave(side).await || self.sides[side].host.is_dead() {
            return;
        }
        let (is_primary, shared) = (side == self.primary, self.shared.clone());
        // The role that it had when it was closed: a primary goes on as one, over the same bytes.
        let serves = is_primary && s.role.is_some_and(|(role, _)| role == Role::Primary);
        let begin = move |first_epoch| {
            if serves {
                shared.oracle.borrow_mut().begin_era(first_epoch);
            }
        };
        let (host, slot) = (self.sides[side].host.clone(), self.sides[side].slot.clone());
        let size = (v, self.target[v]);
        let work = world::expand(host, slot, size, begin);
        let done = self.beside_load(side, work).await;
        self.notice();
        match done {
            Some(Ok(())) => {
                self.shared.count(|c| c.expands += 1);
                self.check_sizes(side);
                if serves {
                    self.in_flight = Rc::default();
                    self.learn_base(Death::Kill).await;
                }
            }
            Some(Err(e)) => {
                let text = format!("volume {v} of side {side} can't grow: {e:?}");
                self.shared.fail(Broken::Restart, text);
            }
            None => {}
        }
    }

    /// Until no request of a side is in flight; not longer than the engine waits.
    pub(super) async fn leave(&self, side: usize) -> bool {
        let busy = if side == self.primary { &self.in_flight } else { &self.consuming };
        let until = self.sim.elapsed() + LEAVE;
        while busy.get() > 0 && self.sim.elapsed() < until {
            if self.sides[side].host.is_dead() {
                return false;
            }
            self.sim.pause(Duration::from_millis(1)).await;
        }
        busy.get() == 0
    }

    /// An operation of a side; while the secondary is busy with one, the primary is written to.
    pub(super) async fn beside_load<T: 'static>(
        &mut self,
        side: usize,
        work: impl Future<Output = T> + 'static,
    ) -> Option<T> {
        let mut load = self.load.clone();
        let is_primary = side == self.primary;
        let done = {
            let mut call = pin!(self.call(side, work));
            loop {
                let pause = pin!(self.sim.pause(micros(200 + load.below(3000))));
                match select(call.as_mut(), pause).await {
                    Either::Left((done, _)) => break done,
                    Either::Right(_) if is_primary => {}
                    Either::Right(_) => {
                        let v = usize::try_from(load.below(64)).unwrap_or(0) % self.target.len();
                        let at = load.below(self.setting.room[v]);
                        self.write(v, ByteRange::new(at, at + 1 + load.below(5000)), Kind::Data);
                    }
                }
            }
        };
        self.load = load;
        done
    }
}
