//! The operations of the filter: start, checkpoint, get_error, stop, failover. One at a time.
//!
//! Each is: is it allowed (`machine`)? ─► everything that can fail, without a trace ─► one write of
//! the superblock ─► the new part. So an operation that fails leaves what was.

use std::rc::Rc;

use super::checkpoint;
use super::group::{Group, Part};
use super::machine::{Operation, Verdict, decide};
use super::promoted::Promoted;
use super::replica::slot_of;
use super::secondary::{Item, Secondary, Staged};
use crate::disk::{Error, ErrorKind, Host, Result};
use crate::overlay::{Active, ActiveId, CommitPosition, HISTORY_MAX, Policy, Role, Stage, UndoLog};
use crate::runtime::Address;
use crate::units::{ByteRange, Epoch, Generation, Uuid, VolumeIndex};

/// How to start.
#[derive(Clone, Debug)]
pub struct StartSpec {
    /// The generation of the group: the same on both sides.
    pub generation: Generation,
    /// What this replica is to be.
    pub role: Role,
    /// Primary: where the secondary takes links; none is solo.
    pub peer: Option<Address>,
    /// Interval, limits, mode.
    pub policy: Policy,
    /// Secondary: writes come from an NBD client instead of a link.
    pub inbound: bool,
}

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

/// How long a stop waits for the secondary's word that it has stopped too.
const STOP_MAX: std::time::Duration = std::time::Duration::from_secs(10);

impl<H: Host> Group<H> {
    fn allow(&self, operation: Operation) -> Result<bool> {
        let (verdict, name) = {
            let s = self.state();
            (decide(s.role, s.stage, s.record != Epoch::NONE, operation), s.group.clone())
        };
        match verdict {
            Verdict::Go => Ok(true),
            Verdict::Ignore => Ok(false),
            Verdict::Refuse(why) => {
                Err(Error::own(ErrorKind::NotPermitted, format!("group {name}: {why}")))
            }
        }
    }

    /// Refuses a generation that is not the group's.
    fn check_generation(&self, asked: Generation) -> Result<()> {
        let s = self.state();
        if asked == s.generation {
            return Ok(());
        }
        Err(Error::own(
            ErrorKind::Stale,
            format!("group {} is of generation {}, the call is for {asked}", s.group, s.generation),
        ))
    }

    async fn turn(&self) -> crate::overlay::RangeGuard {
        self.0.turn.lock(ByteRange::new(0, 1)).await
    }

    /// Begins a role, or says that it runs already. See `start` in the engine API.
    pub async fn start(&self, spec: StartSpec) -> Result<()> {
        let _turn = self.turn().await;
        let peer = spec.peer.as_ref().map(ToString::to_string);
        let (same, current) = {
            let s = self.state();
            let same = s.role == spec.role
                && s.generation == spec.generation
                && s.peer_address == peer
                && s.inbound == spec.inbound;
            (same, s.generation)
        };
        let names_peer = spec.role == Role::Secondary || peer.is_some();
        if !self.allow(Operation::Start { peer: names_peer, same })? {
            return Ok(());
        }
        if spec.generation.number < current.number
            || (spec.generation.number == current.number && spec.generation != current)
            || spec.generation.number == 0
        {
            return Err(Error::own(
                ErrorKind::Stale,
                format!(
                    "group {} is of generation {current}, it can't be started as {}",
                    self.state().group,
                    spec.generation
                ),
            ));
        }
        match spec.role {
            Role::Primary => self.start_primary(spec, peer).await,
            Role::Secondary => self.start_secondary(spec).await,
            Role::None => {
                Err(Error::own(ErrorKind::Invalid, "start needs a role: primary or secondary"))
            }
        }
    }

    async fn start_primary(&self, spec: StartSpec, peer: Option<String>) -> Result<()> {
        if self.state().role == Role::Secondary && self.state().stage == Stage::Running {
            return Err(Error::own(
                ErrorKind::NotPermitted,
                "a running secondary becomes primary by a failover",
            ));
        }
        if peer.is_some() {
            // Nothing is known of the peer: until a hello says otherwise it lacks everything. The
            // flag outlives a restart before that hello.
            self.intent().await?;
        }
        let keeps = self.primary().filter(|_| self.state().generation == spec.generation);
        self.0
            .store
            .update(|s| {
                s.role = Role::Primary;
                s.stage = Stage::Running;
                set_generation(&mut s.generation, &mut s.history, spec.generation);
                s.anew = peer.is_some();
                if peer.is_some() {
                    // What is recorded is of an earlier pair; this one has no checkpoint yet.
                    s.record = Epoch::NONE;
                }
                s.blank = false;
                s.peer_address = peer;
                s.policy = spec.policy;
                s.inbound = false;
                s.undo.clear();
                s.active = None;
            })
            .await?;
        if let Some((p, _)) = keeps {
            // Devices stay attached: only the peer changes.
            if let Some(old) = p.peer.borrow_mut().take() {
                old.end_tasks();
            }
            *p.policy.borrow_mut() = self.state().policy.clone();
        } else {
            self.end_part();
            self.become_primary();
        }
        self.connect_peer(true).await
    }

    async fn start_secondary(&self, spec: StartSpec) -> Result<()> {
        let limit = spec.policy.undo_limit;
        self.0.logs.set_limit(limit);
        // Writes of a primary that ends here end first, and no new one begins before it is decided.
        let held = match self.primary() {
            Some((p, _)) => p.hold().await,
            None => Vec::new(),
        };
        if spec.inbound {
            // What is there now is the checkpoint that the writer begins from.
            for d in self.disks() {
                use crate::disk::Disk;
                d.flush().await?;
            }
        }
        let id = self.new_active_id(0);
        self.0.logs.recover(Epoch(u64::MAX), |_| false).await?;
        self.0.logs.prepare(2).await?;
        self.active_files().await?;
        let now = self.0.host.wall();
        self.0
            .store
            .update(|s| {
                s.role = Role::Secondary;
                s.stage = Stage::Running;
                set_generation(&mut s.generation, &mut s.history, spec.generation);
                s.peer_address = None;
                s.policy = spec.policy;
                s.inbound = spec.inbound;
                s.undo.clear();
                s.commit = CommitPosition::default();
                s.record = Epoch::NONE;
                if spec.inbound {
                    s.record = s.epoch;
                    s.epoch = s.epoch.next();
                    (s.record_cut, s.record_done, s.record_bytes) = (now, now, 0);
                    s.blank = false;
                }
                s.active = Some(ActiveId { id, generation: spec.generation, checkpoint: s.record });
            })
            .await?;
        self.end_part();
        drop(held);
        *self.0.inbound_error.borrow_mut() = None;
        self.become_secondary(false).await?;
        Ok(())
    }

    fn new_active_id(&self, slot: u128) -> Uuid {
        let random = u128::from(self.0.host.random()) << 64 | u128::from(self.0.host.random());
        Uuid((random & !1) | slot)
    }

    fn end_part(&self) {
        match std::mem::replace(&mut *self.0.part.borrow_mut(), Part::Idle) {
            Part::Idle => {}
            Part::Primary(p, _) => p.end(),
            Part::Secondary(s) => s.end(),
        }
    }

    /// Changes interval, limits and mode of a running group.
    pub async fn set_policy(&self, generation: Generation, policy: Policy) -> Result<()> {
        let _turn = self.turn().await;
        self.check_generation(generation)?;
        self.0.store.update(|s| s.policy = policy.clone()).await?;
        self.0.logs.set_limit(policy.undo_limit);
        if let Some((p, _)) = self.primary() {
            if let Some(peer) = &*p.peer.borrow() {
                peer.leg.set_policy(&policy);
            }
            *p.policy.borrow_mut() = policy;
        }
        self.0.changed.notify();
        Ok(())
    }

    /// Closes the open epoch and waits until its checkpoint is complete; says its number.
    pub async fn checkpoint(&self, generation: Generation) -> Result<Epoch> {
        if !self.allow(Operation::Checkpoint)? {
            return Ok(self.state().record);
        }
        self.check_generation(generation)?;
        if let Some((p, _)) = self.primary() {
            let peer = p.peer.borrow().clone();
            let peer = peer.ok_or_else(|| {
                Error::own(
                    ErrorKind::NotPermitted,
                    "this primary is solo: start it with a peer to make checkpoints",
                )
            })?;
            return checkpoint::ask(&p, &peer).await;
        }
        let s = self
            .running_secondary()
            .ok_or_else(|| Error::own(ErrorKind::NotPermitted, "the group plays no role here"))?;
        if !self.state().inbound {
            return Err(Error::own(
                ErrorKind::NotPermitted,
                "checkpoints are cut by the primary: ask it",
            ));
        }
        if let Some(e) = &*self.0.inbound_error.borrow() {
            return Err(Error::own(
                ErrorKind::Io,
                format!("no checkpoint before a new start and full copy: {e}"),
            ));
        }
        stage_begin_epoch(&s).await
    }

    /// The first error that no later checkpoint has cleared.
    pub fn get_error(&self, generation: Generation) -> Result<Option<String>> {
        if !self.allow(Operation::GetError)? {
            return Ok(None);
        }
        self.check_generation(generation)?;
        Ok(self.error())
    }

    pub(crate) fn error(&self) -> Option<String> {
        match &*self.0.part.borrow() {
            Part::Idle => None,
            Part::Primary(p, promoted) => {
                let failed = promoted.as_ref().and_then(|q| q.failure.borrow().clone());
                failed.or_else(|| {
                    p.peer.borrow().as_ref().and_then(|peer| peer.error.borrow().clone())
                })
            }
            Part::Secondary(s) => {
                s.error.borrow().clone().or_else(|| self.0.inbound_error.borrow().clone())
            }
        }
    }

    /// Ends replication: a last checkpoint, then both replicas keep it and go solo. With
    /// `abandon_peer` at once and without the other side; a secondary gives its copy up then.
    pub async fn stop(&self, generation: Generation, abandon_peer: bool) -> Result<()> {
        let _turn = self.turn().await;
        if !self.allow(Operation::Stop)? {
            return Ok(());
        }
        self.check_generation(generation)?;
        let Some((p, _)) = self.primary() else { return self.stop_secondary(abandon_peer).await };
        let Some(peer) = p.peer.borrow().clone() else { return Ok(()) };
        if !abandon_peer {
            peer.leg.closing.set(true);
            let ended = match checkpoint::ask(&p, &peer).await {
                Ok(epoch) => checkpoint::last(&p, &peer, epoch, STOP_MAX).await,
                Err(e) => Err(e),
            };
            peer.leg.closing.set(false);
            if let Err(e) = ended {
                // The replication goes on; what was written meanwhile is missing and gets sent.
                peer.leg.acknowledged();
                return Err(e);
            }
        }
        self.0
            .store
            .update(|s| {
                s.peer_address = None;
                s.anew = false;
                s.record = s.record.max(peer.last.get().epoch);
            })
            .await?;
        *p.peer.borrow_mut() = None;
        peer.end_tasks();
        self.0.changed.notify();
        Ok(())
    }

    async fn stop_secondary(&self, abandon_peer: bool) -> Result<()> {
        if !abandon_peer {
            return Err(Error::own(
                ErrorKind::NotPermitted,
                "a replication is stopped at its primary; to give this copy up, stop it with abandon_peer",
            ));
        }
        self.0
            .store
            .update(|s| {
                s.role = Role::None;
                s.stage = Stage::None;
                s.record = Epoch::NONE;
                s.inbound = false;
            })
            .await?;
        self.end_part();
        Ok(())
    }

    /// Promotes the secondary to its last checkpoint; says which. The promoted volumes can be used
    /// when this returns; the roll-back is merged in the background.
    pub async fn failover(&self, spec: FailoverSpec) -> Result<Epoch> {
        let _turn = self.turn().await;
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
                secondary.ended.set(false);
                Err(e)
            }
        }
    }

    async fn promote(&self, s: &Rc<Secondary<H>>, spec: FailoverSpec) -> Result<Rc<Promoted<H>>> {
        s.cut();
        s.quiet().await;
        // No consumer's write is lost between the view and the promoted volume.
        s.ended.set(true);
        s.changed.wait_until(|| s.consumer_writes.get() == 0).await;
        let point = s.chain.point();
        let old: Vec<Active<H::Disk>> = (0..s.volumes.len())
            .map(|i| point.active(VolumeIndex(u16::try_from(i).unwrap_or(u16::MAX))))
            .collect();
        let (id, actives) = if spec.keep_active {
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
            })
            .await?;
        let record = self.state().record;
        s.chain.complete(record, actives);
        Ok(Promoted::new(
            &self.0.host,
            self.0.store.clone(),
            self.disks(),
            s.chain.clone(),
            CommitPosition::default(),
            self.0.changed.clone(),
        ))
    }
}

fn set_generation(current: &mut Generation, history: &mut Vec<Generation>, new: Generation) {
    if *current == new {
        return;
    }
    if current.number != 0 {
        history.push(*current);
        let surplus = history.len().saturating_sub(HISTORY_MAX);
        history.drain(..surplus);
    }
    *current = new;
}

/// An inbound writer's epoch ends here: everything that it was told is done is in it.
async fn stage_begin_epoch<H: Host>(s: &Rc<Secondary<H>>) -> Result<Epoch> {
    let next = s.open_epoch.get().next();
    let (done, wait) = futures::channel::oneshot::channel();
    let sequence = s.next_sequence();
    s.staging.push(Staged::new(sequence, Item::BeginEpoch(next, s.host.wall()), Some(done))).await;
    wait.await.map_err(|_| {
        Error::own(ErrorKind::Stale, "the role ended while the checkpoint was under way")
    })??;
    s.changed
        .wait_until(|| {
            s.failed.borrow().is_some() || s.last.get().epoch >= next.previous() || s.ended.get()
        })
        .await;
    if let Some(e) = &*s.failed.borrow() {
        return Err(Error::own(ErrorKind::Io, e.clone()));
    }
    Ok(s.last.get().epoch)
}
