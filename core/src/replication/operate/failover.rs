//! Failover: the secondary becomes a primary at its last checkpoint.

use std::rc::Rc;

use super::super::apply;
use super::super::group::{Group, Part};
use super::super::machine::Operation;
use super::super::promoted::Promoted;
use super::super::replica::slot_of;
use super::super::secondary::Secondary;
use super::set_generation;
use crate::bug::{Bug, bug};
use crate::disk::{Error, ErrorKind, Host, Result};
use crate::overlay::{Active, ActiveId, CommitPosition, Member, Role, Stage, UndoLog};
use crate::runtime::Task;
use crate::units::{Epoch, Generation, VolumeIndex};

/// How to fail over.
#[derive(Clone, Copy, Debug)]
pub struct FailoverSpec {
    /// The generation that is replaced: must be the current one.
    pub replace: Generation,
    /// The one from now on; its number must be higher.
    pub new: Generation,
    /// Keep what a consumer wrote to the view.
    pub keep_active: bool,
}

impl<H: Host> Group<H> {
    /// Promotes the secondary to its last checkpoint; says which. The promoted volumes can be used
    /// when this returns; the roll-back is merged in the background.
    pub async fn failover(&self, spec: FailoverSpec) -> Result<Epoch> {
        let _turn = self.turn().await?;
        if self.state().generation == spec.new && !self.allow(Operation::Failover)? {
            return Ok(self.state().record);
        }
        if self.state().stage == Stage::FailoverFailed && self.state().generation == spec.new {
            if let Some((_, Some(promoted))) = self.primary() {
                self.0.host.spawn("commit", promoted.commit());
            }
            return Ok(self.state().record);
        }
        self.check_generation(spec.replace)?;
        if !self.allow(Operation::Failover)? {
            return Ok(self.state().record);
        }
        if spec.new.number <= spec.replace.number {
            return Err(Error::own(
                ErrorKind::Invalid,
                format!(
                    "the new generation {} must have a higher number than {}",
                    spec.new, spec.replace
                ),
            ));
        }
        let secondary = match &*self.0.part.borrow() {
            Part::Secondary(s) => Some(s.clone()),
            Part::Idle | Part::Primary(..) => None,
        };
        let secondary = match secondary {
            Some(s) => s,
            // Stopped earlier: the copy is the checkpoint itself.
            None => self.become_secondary(true).await?,
        };
        self.0.promoting.set(true);
        let promoted = self.promote(&secondary, spec).await;
        self.0.promoting.set(false);
        match promoted {
            Ok(promoted) => {
                secondary.end();
                self.serve_promoted(promoted);
                Ok(self.state().record)
            }
            Err(e) => {
                secondary.go_on();
                Err(e)
            }
        }
    }

    async fn promote(&self, s: &Rc<Secondary<H>>, spec: FailoverSpec) -> Result<Rc<Promoted<H>>> {
        s.cut();
        s.quiet().await;
        // A hello that came just before may have made it forget its checkpoint.
        if self.state().record == Epoch::NONE {
            return Err(Error::own(
                ErrorKind::NotPermitted,
                format!(
                    "group {} gave its checkpoint up by its primary's word while the failover began: \
                     there is none to fail over to",
                    self.state().group
                ),
            ));
        }
        // No consumer's write is lost between the view and the promoted volume.
        s.ended.set(true);
        s.changed.wait_until(|| s.consumer_writes.get() == 0).await;
        let point = s.chain.point();
        // Those that no checkpoint covers stay behind, in no group: nothing is known of them that the
        // others could be consistent with.
        let kept = if bug(Bug::FailoverKeepsJoining) { s.volumes.len() } else { s.covered().get() };
        let old: Vec<Active<H::Disk>> =
            (0..kept).map(|i| point.active(VolumeIndex::of(i))).collect();
        let (id, mut actives) = if spec.keep_active {
            for a in &old {
                a.flush().await?;
            }
            (s.active_id(), old)
        } else {
            let slot = u128::from(1 ^ u8::try_from(slot_of(s.active_id())).unwrap_or(0));
            let id = self.new_active_id(slot);
            s.changed.wait_until(|| s.holders.get()[slot_of(id)] == 0).await;
            (id, s.blank_actives(id))
        };
        actives.truncate(kept);
        // A log that holds nothing is not on disk; there is nothing in it to undo.
        let logs: Vec<UndoLog<H::Disk>> =
            s.chain.logs().into_iter().filter(|l| l.used() > 0).collect();
        let undo = logs.iter().map(UndoLog::uuid).collect::<Vec<_>>();
        let epoch = s.open_epoch.get().max(self.state().epoch).next();
        self.0
            .store
            .update(|g| {
                g.role = Role::Primary;
                g.stage = Stage::Failover;
                set_generation(&mut g.generation, &mut g.history, spec.new);
                g.epoch = epoch;
                g.undo = undo;
                g.commit = CommitPosition::default();
                g.active = Some(ActiveId { id, generation: spec.new, checkpoint: g.record });
                g.peer_address = None;
                g.anew = false;
                g.inbound = false;
                if kept < g.members.len() {
                    g.members.truncate(kept);
                    // One of another shape.
                    g.intent = g.intent.wrapping_add(1);
                }
                g.all_joined();
                g.members.iter_mut().for_each(Member::begin_anew);
            })
            .await?;
        if kept < s.volumes.len() {
            self.let_go(kept);
        }
        let record = self.state().record;
        s.chain.complete(record, actives);
        Ok(Promoted::new(
            &self.0.host,
            self.0.store.clone(),
            self.disks(),
            s.chain.clone(),
            CommitPosition::default(),
            self.0.counters.clone(),
            self.0.changed.clone(),
        ))
    }
}

impl<H: Host> Secondary<H> {
    /// A promotion that failed leaves a secondary that applies what comes.
    fn go_on(self: &Rc<Self>) {
        self.ended.set(false);
        if self.task.borrow().as_ref().is_none_or(Task::is_done) {
            let task = self.host.spawn("apply", apply::run(self.clone()));
            *self.task.borrow_mut() = Some(task);
        }
    }
}
