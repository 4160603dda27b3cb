//! Volumes that join a running group, cut off anywhere; and those that a failover leaves behind.
//!
//! ```text
//!   secondary first:   its replica, made or left of before ─► close ─► one write ─► open
//!   then the primary:  its replica, filled ─► requests end ─► close ─► one write ─► open: a new era
//!   a failover         keeps what a record covers: no more, no less
//!   the return of the old primary          close ─► one write without what was left behind ─► open
//! ```
//! For the model every volume is there from the beginning; what is in no group can't be opened, so
//! nothing is asked of it. What a replica in no group holds is written over as a whole before it joins.

use std::rc::Rc;
use std::time::Duration;

use understudy_core::disk::{Dir, Disk, ErrorKind, Result};
use understudy_core::overlay::Role;
use understudy_core::replication::{GroupStatus, LinkState, Replica};
use understudy_core::runtime::{Data, Env};
use understudy_core::sim::{Failure, Operation, SimHost};
use understudy_core::units::{ByteRange, CLUSTER, Uuid, VolumeCount, usize_of};

use super::broken::Broken;
use super::content::Fill;
use super::plan::Death;
use super::player::Player;
use super::world;
use super::writes::Write;

/// How long files may stay open after their group was closed.
const STILL_OPEN: Duration = Duration::from_secs(1);

/// What a failover has to keep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    checkpoint: u64,
    joined: VolumeCount,
}

impl Before {
    pub(super) fn of(s: &GroupStatus) -> Self {
        Self { checkpoint: s.checkpoint.epoch.0, joined: s.joined }
    }
}

impl Player {
    /// How many volumes the group of a side has, while it is open.
    pub(super) fn volumes(&self, side: usize) -> usize {
        self.group(side).map_or(0, |g| g.volumes())
    }

    /// The next volume joins, or one that the secondary has already; with `both` on the primary too.
    pub(super) async fn join(&mut self, both: bool) {
        let (primary, secondary) = (self.primary, self.secondary());
        let (here, there) = (self.volumes(primary), self.volumes(secondary));
        if !self.paired || here == 0 || there < here {
            return;
        }
        if here == there {
            if here == self.setting.sizes.len() {
                return;
            }
            self.join_side(secondary, here).await;
            self.notice();
        }
        if both && self.volumes(secondary) > here && self.volumes(primary) == here {
            self.join_side(primary, here).await;
        }
    }

    /// A volume joins on one side. Nothing is done where the engine would refuse.
    async fn join_side(&mut self, side: usize, v: usize) {
        let Some(s) = self.status(side) else { return };
        if !self.may_reshape(side, &s) || s.link == LinkState::Solo {
            return;
        }
        let is_primary = side == self.primary;
        if self.make(side, v, is_primary).await.is_none() || !self.leave(side).await {
            return;
        }
        if self.sides[side].host.is_dead() {
            return;
        }
        let shared = self.shared.clone();
        let begin = move |first_epoch| {
            if is_primary {
                shared.oracle.borrow_mut().begin_era(first_epoch);
            }
        };
        let (host, slot) = (self.sides[side].host.clone(), self.sides[side].slot.clone());
        let work = world::join(host, slot, v, begin);
        let done = self.beside_load(side, work).await;
        self.notice();
        match done {
            Some(Ok(())) => {
                self.shared.count(|c| c.joins += 1);
                if self.volumes(side) != v + 1 && !self.sides[side].host.is_dead() {
                    let text = format!("volume {v} joined side {side}, and is not in its group");
                    self.shared.fail(Broken::Restart, text);
                }
                if is_primary {
                    self.in_flight = Rc::default();
                    self.learn_base(Death::Kill).await;
                }
            }
            Some(Err(e)) => {
                let text = format!("volume {v} can't join on side {side}: {e:?}");
                self.shared.fail(Broken::Restart, text);
            }
            None => {}
        }
    }

    /// The replica of a volume that is in no group. On a primary it is filled, and the model hears of
    /// it; on a secondary it is new, or what it was left with before.
    async fn make(&mut self, side: usize, v: usize, is_primary: bool) -> Option<()> {
        let host = self.sides[side].host.clone();
        let size = self.setting.sizes[v];
        let is_new = !std::mem::replace(&mut self.made[side][v], true);
        let pattern = self.shared.oracle.borrow_mut().pattern();
        // A new one has holes; of one that was used nothing but what is written is known.
        let all = ByteRange::new(0, size);
        let filled = match (is_primary, is_new) {
            (true, true) => ByteRange::new(0, size / 2 / CLUSTER * CLUSTER),
            (true, false) => all,
            (false, true) if self.load.chance(30) => all,
            (false, _) => ByteRange::default(),
        };
        let content = pattern.bytes(filled).to_vec();
        // What was armed while it was in the group is for the VM's writes.
        for operation in [Operation::Write, Operation::Flush] {
            host.inject(&format!("volumes/v{v}/disk"), operation, Failure::Never);
        }
        let work = async move {
            // What was cut when it was let go ends on its own, and holds its files until then.
            for _ in 0..100 {
                match replica(&host, v, size, is_new, content.clone()).await {
                    Err(e) if e.kind() == ErrorKind::Locked => host.sleep(STILL_OPEN / 100).await,
                    done => return done,
                }
            }
            replica(&host, v, size, is_new, content).await
        };
        match self.call(side, work).await {
            Some(Ok(())) => {}
            Some(Err(e)) => {
                let text = format!("the replica of volume {v} can't be made on side {side}: {e:?}");
                self.shared.fail(Broken::Restart, text);
                return None;
            }
            None => {
                self.made[side][v] = !is_new;
                return None;
            }
        }
        if is_primary && !filled.is_empty() {
            self.filled(v, filled, pattern);
        }
        Some(())
    }

    /// Notes what a replica was filled with before anybody could write to it.
    fn filled(&self, volume: usize, range: ByteRange, fill: Fill) {
        let mut o = self.shared.oracle.borrow_mut();
        let (began, ended, era) = (o.tick(), o.tick(), o.era());
        o.eras[era].writes.add(Write {
            volume,
            range,
            fill,
            began,
            ended: Some(ended),
            torn: false,
            durable: true,
            over: (0, 0),
            sure: None,
        });
    }

    /// A promoted group has the volumes that its checkpoint covers, and no other.
    pub(super) fn check_kept(&mut self, s: &GroupStatus, before: Option<Before>) {
        let kept = s.volumes;
        let landed = s.checkpoint.epoch.0;
        if kept < self.covered {
            let text = format!(
                "the failover kept {} volumes, but {} were reported to be covered",
                kept.0, self.covered.0
            );
            self.shared.fail(Broken::Checkpoint, text);
        }
        if let Some(before) = before.filter(|b| b.checkpoint == landed)
            && before.joined != kept
        {
            let text = format!(
                "checkpoint {landed} covers {} volumes, the failover to it kept {}",
                before.joined.0, kept.0
            );
            self.shared.fail(Broken::Failover, text);
        }
        self.covered = VolumeCount::default();
    }

    /// What the old primary had and the promoted side has not is in no group from now on; says whether
    /// they have the same.
    pub(super) async fn let_go(&mut self, side: usize, left: usize) -> bool {
        if self.volumes(side) == left {
            return true;
        }
        let Some(s) = self.status(side) else { return false };
        if !self.may_reshape(side, &s) || self.volumes(side) < left {
            return false;
        }
        let (host, slot) = (self.sides[side].host.clone(), self.sides[side].slot.clone());
        match self.call(side, world::let_go(host, slot, left)).await {
            Some(Ok(())) => true,
            Some(Err(e)) => {
                let text = format!("side {side} can't go on with {left} volumes: {e:?}");
                self.shared.fail(Broken::Restart, text);
                false
            }
            None => false,
        }
    }

    /// What began to join and was cut off is asked for again: a checkpoint covers all volumes.
    pub(super) async fn finish_joining(&mut self) {
        if self.setting.first == self.setting.sizes.len() || !self.paired {
            return;
        }
        if self.volumes(self.secondary()) > self.volumes(self.primary) {
            self.join(true).await;
        }
        for round in 0..20 {
            if round == 4 {
                // An undo log that is too small for what a primary lacks that was closed is mended by
                // a person.
                self.raise_limits().await;
            }
            let [Some(p), Some(s)] = [self.primary, self.secondary()].map(|side| self.status(side))
            else {
                return;
            };
            let all = VolumeCount::of(self.volumes(self.primary));
            if p.joined == all && s.joined == all && p.link == LinkState::Running {
                self.verify_view().await;
                return self.verify_primary().await;
            }
            if !self.is_fine() {
                return;
            }
            self.checkpoint();
            self.sim.pause(Duration::from_secs(1)).await;
            self.notice();
        }
        let both = [0, 1].map(|s| self.status(s));
        self.shared.fail(Broken::Bounded, format!("a volume never joins: {both:?}"));
    }

    fn may_reshape(&self, side: usize, s: &GroupStatus) -> bool {
        use understudy_core::overlay::Stage;
        let runs = s.role.is_some_and(|(role, stage)| {
            role != Role::None && matches!(stage, Stage::Running | Stage::Done)
        });
        runs && !self.frozen[side] && !self.poisoned[side] && self.promoting.is_none()
    }
}

/// Makes the replica of a volume from nothing, or opens it; writes its beginning.
async fn replica(
    host: &SimHost,
    v: usize,
    size: u64,
    is_new: bool,
    content: Vec<u8>,
) -> Result<()> {
    let dir = host.dir(&format!("volumes/v{v}"));
    let made = if is_new {
        for name in dir.list().await? {
            dir.remove(&name).await?;
        }
        let uuid = Uuid(u128::from(host.random()));
        Replica::<SimHost>::create(dir, world::volume(v)?, uuid, size).await?
    } else {
        Replica::<SimHost>::open(dir).await?
    };
    if !content.is_empty() {
        let mut whole = content;
        whole.resize(whole.len().next_multiple_of(usize_of(CLUSTER)), 0);
        let at = ByteRange::new(0, 0).offset();
        made.disk.write(at, Data::copy_of(&whole)).await?;
        made.disk.flush().await?;
    }
    Ok(())
}
