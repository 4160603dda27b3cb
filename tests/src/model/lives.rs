//! Deaths, restarts, promotions: what ends an era, and what must hold then (invariants 2, 3, 9).

use std::rc::Rc;
use std::time::Duration;

use understudy_core::disk::ErrorKind;
use understudy_core::overlay::{Role, Stage, UndoFull};
use understudy_core::replication::{ExportKind, FailoverSpec, GroupStatus, LinkState};
use understudy_core::sim::SimHost;
use understudy_core::units::{VolumeCount, usize_of};

use super::broken::Broken;
use super::join::Before;
use super::plan::Death;
use super::player::{NONE, Player, generation};
use super::world::{NAMES, Side, spec};

fn role(s: &GroupStatus) -> (Role, Stage) {
    s.role.unwrap_or((Role::None, Stage::None))
}

impl Player {
    pub(super) fn die(&mut self, side: usize, death: Death) {
        if self.sides[side].host.is_dead() {
            return;
        }
        match death {
            Death::Kill => self.sim.kill(NAMES[side]),
            Death::Crash => self.sim.crash(NAMES[side]),
            Death::PowerCut => self.sim.power_cut(NAMES[side]),
        }
        self.died(side, death);
    }

    pub(super) fn died(&mut self, side: usize, death: Death) {
        self.shared.count(|c| c.deaths += 1);
        self.sides[side].slot.take();
        self.deaths[side] = Some(death);
        self.power_cuts[side] = self.sim.power_cuts(NAMES[side]);
        self.frozen[side] = false;
        if self.poisoned[side] {
            // What was not flushed then may be gone, however it died.
            self.deaths[side] = Some(Death::Crash);
            self.heal_disks(side);
        }
        if side == self.primary {
            self.in_flight = Rc::default();
        } else {
            self.consuming = Rc::default();
            self.shared.oracle.borrow_mut().consumer_died();
        }
    }

    /// Starts a dead node again; what it was, it is.
    pub(super) async fn restart(&mut self, side: usize) {
        if !self.sides[side].slot.is_empty() {
            return;
        }
        let mut death = self.deaths[side].take().unwrap_or(Death::Kill);
        if self.sim.power_cuts(NAMES[side]) != self.power_cuts[side] {
            // Killed first; then its power failed, and with it went what its kernel had.
            death = Death::Crash;
        }
        let shared = self.shared.clone();
        let is_primary = side == self.primary;
        let begin = move |first_epoch| {
            if is_primary {
                shared.oracle.borrow_mut().begin_era(first_epoch);
            }
        };
        match Side::reopen(&self.sim, side, begin).await {
            Ok(Some(new)) => self.opened_again(side, new),
            Ok(None) => {
                // Whatever it died of before: its power failed while it was opened.
                self.deaths[side] = Some(Death::Crash);
                return;
            }
            Err(e) => {
                self.shared.fail(
                    Broken::Restart,
                    format!("side {side} can't be opened after {death:?}: {e:?}"),
                );
                return;
            }
        }
        if is_primary {
            // It may have died before it had taken its peer.
            self.paired &= self.status(side).is_some_and(|s| s.link != LinkState::Solo);
            if self.status(side).is_some_and(|s| role(&s).0 == Role::None) {
                // Or before it was started at all: nobody has written anything.
                let zeroes = self.setting.room.iter().map(|s| vec![0; usize_of(*s)]).collect();
                self.shared.oracle.borrow_mut().know_base(zeroes);
                return;
            }
            self.learn_base(death).await;
        }
    }

    /// A side lives again; it may have been promoted before it died.
    pub(super) fn opened_again(&mut self, side: usize, new: Side) {
        self.shared.count(|c| c.restarts += 1);
        self.sides[side] = new;
        self.check_sizes(side);
        if side != self.primary {
            self.find_promotion(side);
        }
    }

    /// The restarted primary's disks are the base of its new era.
    pub(super) async fn learn_base(&self, death: Death) {
        let Some(mut all) = self.read_volumes(self.primary, ExportKind::Primary).await else {
            let s = self.status(self.primary);
            if !self.sides[self.primary].host.is_dead() {
                self.shared
                    .fail(Broken::Restart, format!("a restarted primary can't be read: {s:?}"));
            }
            return;
        };
        let mut o = self.shared.oracle.borrow_mut();
        let old = o.era() - 1;
        let there = all.len();
        all.resize(self.setting.sizes.len(), Vec::new());
        for (v, bytes) in all.iter_mut().enumerate() {
            // What it has not grown to is as good as zeroes: nobody was told of a write there.
            bytes.resize(usize_of(self.setting.room[v]), 0);
            if v >= there {
                // In no group: when it joins, it is written over.
                continue;
            }
            let r = o.check_after_crash(old, v, bytes, death == Death::Kill);
            self.shared.check(Broken::Restart, r.map_err(|e| format!("{death:?}: {e}")));
        }
        o.know_base(all);
    }

    /// A node died during its promotion: it may have been promoted.
    fn find_promotion(&mut self, side: usize) {
        let Some(s) = self.status(side) else { return };
        let Some(keep) = self.promoting.take() else { return };
        if role(&s).0 == Role::Primary && s.generation.number > self.generation.number {
            self.check_kept(&s, None);
            self.promoted(side, &s, keep);
        }
    }

    pub(super) async fn failover(&mut self, keep_active: bool) {
        let side = self.secondary();
        let (Some(group), true) = (self.group(side), self.paired) else { return };
        let s = group.status();
        if role(&s) != (Role::Secondary, Stage::Running) || self.frozen[side] || self.poisoned[side]
        {
            return;
        }
        let before = Before::of(&s);
        let new = generation(self.generation.number + 2);
        let spec = FailoverSpec { replace: self.generation, new, keep_active };
        self.promoting = Some(keep_active);
        let asked = group.clone();
        let result = self.call(side, async move { asked.failover(spec).await }).await;
        self.notice();
        let Some(result) = result else { return };
        self.promoting = None;
        match result {
            Ok(_) => {
                let s = group.status();
                self.check_kept(&s, Some(before));
                self.promoted(side, &s, keep_active);
            }
            // What a consumer wrote is kept only if there is room to make it durable.
            Err(e) if keep_active && self.full[side] && e.kind() == ErrorKind::NoSpace => {}
            Err(_) if self.may_drop() && group.status().checkpoint.epoch.0 == NONE => {}
            Err(e) if self.reported > 0 => {
                self.shared.fail(
                    Broken::Checkpoint,
                    format!("checkpoint {} was reported, but: {e:?}", self.reported),
                );
            }
            // No checkpoint yet.
            Err(_) => {}
        }
    }

    /// Whether a checkpoint may be dropped for want of undo space.
    fn may_drop(&self) -> bool {
        self.setting.policies.iter().any(|p| p.undo_full == UndoFull::DropCheckpoint)
    }

    fn promoted(&mut self, side: usize, s: &GroupStatus, keep_active: bool) {
        self.shared.count(|c| c.failovers += 1);
        let landed = s.checkpoint.epoch.0;
        if landed < self.reported {
            self.shared.fail(Broken::Checkpoint, format!(
                "failover landed on checkpoint {landed}, but {} was reported complete (invariant 3)",
                self.reported
            ));
        }
        self.generation = s.generation;
        self.opened = NONE;
        self.primary = side;
        self.paired = false;
        self.reported = NONE;
        self.in_flight = Rc::default();
        self.consuming = Rc::default();
        self.shared.consumer_life.set(self.shared.consumer_life.get() + 1);
        self.shared.oracle.borrow_mut().promoted(s.epoch.0, landed, keep_active);
    }

    /// The old primary returns as the secondary and gets everything anew.
    pub(super) async fn rejoin(&mut self) {
        if self.paired {
            return;
        }
        let (primary, other) = (self.primary, self.secondary());
        self.restart(other).await;
        if !self.await_done().await {
            return;
        }
        // All of the base has to be known before checkpoints of it are looked at.
        self.verify_primary().await;
        if !self.let_go(other, self.volumes(primary)).await {
            return;
        }
        let [Some(p), Some(s)] = [self.group(primary), self.group(other)] else { return };
        if self.frozen != [false; 2] || self.poisoned != [false; 2] || self.full != [false; 2] {
            return;
        }
        let policy = self.setting.policy.clone();
        self.shared.oracle.borrow_mut().new_consumer();
        self.shared.consumer_life.set(self.shared.consumer_life.get() + 1);
        let as_secondary = spec(Role::Secondary, primary, self.generation, &policy);
        match self.call(other, async move { s.start(as_secondary).await }).await {
            Some(Ok(())) => {}
            Some(Err(e)) => {
                return self
                    .shared
                    .fail(Broken::Restart, format!("the old primary can't return: {e:?}"));
            }
            None => return,
        }
        let as_primary = spec(Role::Primary, other, self.generation, &policy);
        self.reported = NONE;
        self.covered = VolumeCount::default();
        match self.call(primary, async move { p.start(as_primary).await }).await {
            Some(Ok(())) => {
                self.shared.count(|c| c.rejoins += 1);
                self.paired = true;
            }
            Some(Err(e)) => {
                self.shared
                    .fail(Broken::Restart, format!("the promoted side takes no peer: {e:?}"));
            }
            // It may have been written before the death.
            None => self.paired = true,
        }
    }

    /// Reads all of the primary.
    pub(super) async fn verify_primary(&self) {
        for (v, room) in self.setting.room.iter().enumerate() {
            self.read(v, understudy_core::units::ByteRange::new(0, *room));
        }
        self.settle().await;
    }

    /// Until the roll-back is merged; asks again when that failed.
    pub(super) async fn await_done(&self) -> bool {
        let slowest = self.setting.disk_slowness.iter().map(|(a, b)| a * b).max().unwrap_or(1);
        for _ in 0..300 * slowest {
            let Some(group) = self.group(self.primary) else { return false };
            match role(&group.status()).1 {
                Stage::Done | Stage::Running => return true,
                Stage::FailoverFailed => self.retry(&group).await,
                Stage::None | Stage::Failover => {}
            }
            self.sim.pause(Duration::from_millis(10)).await;
            let p = self.primary;
            let stuck = self.frozen[p] || self.poisoned[p] || self.full[p];
            if self.sides[p].host.is_dead() || stuck {
                return false;
            }
        }
        let s = self.status(self.primary);
        self.shared.fail(Broken::Failover, format!("the roll-back is never merged: {s:?}"));
        false
    }

    async fn retry(&self, group: &understudy_core::replication::Group<SimHost>) {
        let (g, now) = (group.clone(), self.generation);
        let spec = FailoverSpec { replace: now, new: now, keep_active: false };
        let r = self.call(self.primary, async move { g.failover(spec).await }).await;
        if let Some(Err(e)) = r {
            self.shared.fail(
                Broken::Failover,
                format!("a failed failover can't be asked for again: {e:?}"),
            );
        }
    }

    /// The running primary is started with its peer once more: it sends everything.
    pub(super) async fn start_again(&mut self) {
        let (Some(p), true) = (self.group(self.primary), self.paired) else { return };
        if self.frozen[self.primary] {
            return;
        }
        let mut policy = self.setting.policy.clone();
        policy.window += 512;
        let asked = spec(Role::Primary, self.secondary(), self.generation, &policy);
        self.setting.policy = policy;
        let r = self.call(self.primary, async move { p.start(asked).await }).await;
        self.shared.count(|c| c.rejoins += 1);
        if let Some(Err(e)) = r {
            self.shared.fail(Broken::Restart, format!("a primary can't be started again: {e:?}"));
        }
    }

    /// The view and the primary agree when nothing is written.
    pub(super) async fn compare_sides(&self) {
        let view = self.read_volumes(self.secondary(), ExportKind::View).await;
        let primary = self.read_volumes(self.primary, ExportKind::Primary).await;
        let (Some(view), Some(primary)) = (view, primary) else { return };
        for (v, (a, b)) in primary.iter().zip(&view).enumerate() {
            // The secondary may have grown already.
            let at = (0..a.len().max(b.len()))
                .find(|i| a.get(*i).unwrap_or(&0) != b.get(*i).unwrap_or(&0));
            if let Some(at) = at {
                self.shared.fail(
                    Broken::View,
                    format!("nothing is written, yet volume {v} differs at {at}"),
                );
            }
        }
    }
}
