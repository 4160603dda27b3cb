//! Building a role from what the superblock says: at a start, and again after a restart.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::group::{Group, Part};
use super::leg::Leg;
use super::local::Local;
use super::peer::Peer;
use super::primary::Primary;
use super::promoted::Promoted;
use super::replica::slot_of;
use super::secondary::{Secondary, SecondaryVolume};
use super::status::Checkpoint;
use super::{apply, checkpoint, resync, session};
use crate::disk::{Disk, Error, ErrorKind, Host, Result};
use crate::overlay::{Active, Bitmap, Chain, RangeLock, Role, Stage, UndoLog};
use crate::runtime::Address;
use crate::units::{Epoch, Uuid, VolumeIndex};

impl<H: Host> Group<H> {
    /// After a restart: what ran goes on.
    pub(crate) async fn resume(&self) -> Result<()> {
        let (role, stage, inbound) = {
            let s = self.state();
            (s.role, s.stage, s.inbound)
        };
        match (role, stage) {
            (Role::Primary, Stage::Running | Stage::Done) => {
                // No log counts: damage in one that was freed long ago is nobody's.
                self.0.logs.recover(Epoch(u64::MAX), |_| false).await?;
                self.become_primary();
                self.connect_peer(false).await
            }
            (Role::Primary, Stage::Failover | Stage::FailoverFailed) => {
                self.resume_promoted().await
            }
            (Role::Secondary, Stage::Running) => {
                self.become_secondary(true).await?;
                if inbound {
                    *self.0.inbound_error.borrow_mut() =
                        Some("the engine was restarted: what the inbound writer sent meanwhile is unknown".into());
                }
                Ok(())
            }
            // A stopped copy: a failover by hand looks for its logs.
            (Role::Secondary, Stage::None) => Ok(()),
            (Role::None | Role::Primary, Stage::None)
            | (Role::Secondary, Stage::Failover | Stage::FailoverFailed | Stage::Done)
            | (
                Role::None,
                Stage::Running | Stage::Failover | Stage::FailoverFailed | Stage::Done,
            ) => {
                self.0.logs.recover(Epoch(u64::MAX), |_| false).await?;
                Ok(())
            }
        }
    }

    /// A primary on the plain disks, solo until a peer is connected.
    pub(crate) fn become_primary(&self) -> Rc<Primary<H>> {
        let locals = self.disks().into_iter().map(Local::Plain).collect();
        let p = self.primary_on(locals);
        *self.0.part.borrow_mut() = Part::Primary(p.clone(), None);
        p
    }

    fn primary_on(&self, locals: Vec<Local<H>>) -> Rc<Primary<H>> {
        let g = &self.0;
        Primary::new(&g.host, g.store.clone(), locals, g.counters.clone(), g.changed.clone())
    }

    /// Gives the primary its peer, if the superblock names one. `anew`: nothing is known of what
    /// the peer has.
    pub(crate) async fn connect_peer(&self, anew: bool) -> Result<()> {
        let Some((p, _)) = self.primary() else { return Ok(()) };
        // A restart before the first hello of such a start: still nothing is known.
        let anew = anew || self.state().anew;
        let Some(address) = self.state().peer_address.clone() else { return Ok(()) };
        let address: Address = address.parse().map_err(|e: crate::units::ParseError| {
            Error::own(ErrorKind::Corrupt, format!("peer address: {e}"))
        })?;
        let intent = self.intent().await?;
        let lens: Vec<u64> = self.disks().iter().map(Disk::len).collect();
        let mut missing = vec![Bitmap::new(); p.volumes.len()];
        if !anew {
            for (i, m) in missing.iter_mut().enumerate() {
                for r in intent.marked(VolumeIndex::of(i)) {
                    m.set(r.intersect(crate::units::ByteRange::new(0, lens[i])));
                }
            }
        }
        let (epoch, last, policy) = {
            let s = self.state();
            let last = Checkpoint {
                epoch: s.record,
                cut: s.record_cut,
                done: s.record_done,
                bytes: s.record_bytes,
            };
            (s.epoch, if anew { Checkpoint::default() } else { last }, s.policy.clone())
        };
        let leg = Leg::new(&self.0.host, epoch, lens, missing, &policy, self.0.counters.clone());
        leg.set_joined(self.state().joined);
        *p.policy.borrow_mut() = policy;
        let peer = Peer::new(leg, intent, last);
        let spawn =
            |name, f: std::pin::Pin<Box<dyn Future<Output = ()>>>| self.0.host.spawn(name, f);
        let tasks = vec![
            spawn("link", Box::pin(session::run(p.clone(), peer.clone(), address))),
            spawn("checkpoints", Box::pin(checkpoint::run(p.clone(), peer.clone()))),
            spawn("resync", Box::pin(resync::run(p.clone(), peer.clone()))),
        ];
        *peer.tasks.borrow_mut() = tasks;
        *p.peer.borrow_mut() = Some(peer);
        self.0.changed.notify();
        Ok(())
    }

    /// A secondary; with `recover` the logs of the open epoch are found again, else there are none.
    pub(crate) async fn become_secondary(&self, recover: bool) -> Result<Rc<Secondary<H>>> {
        let (record, epoch, active, last) = {
            let s = self.state();
            let last = Checkpoint {
                epoch: s.record,
                cut: s.record_cut,
                done: s.record_done,
                bytes: s.record_bytes,
            };
            (s.record, s.epoch, s.active.map_or(Uuid::default(), |a| a.id), last)
        };
        // Without a record no log counts.
        let freed = if record == Epoch::NONE { Epoch(u64::MAX) } else { record };
        let logs = self
            .0
            .logs
            .recover(freed, |log| recover && record != Epoch::NONE && log.epoch() > record)
            .await?;
        // In a full pool the checkpoint can be read and promoted all the same; the first save that finds
        // no file says so, and the sessions after it try again until there is room.
        if let Err(e) = self.0.logs.prepare(2).await
            && e.kind() != ErrorKind::NoSpace
        {
            return Err(e);
        }
        let slots = self.active_files().await?;
        let actives = self.open_actives(&slots, active).await?;
        let chain = Chain::new(record, actives);
        let free = self.0.logs.clone();
        chain.on_free(Rc::new(move |log| free.give_back(&log)));
        let open = logs.iter().map(UndoLog::epoch).fold(epoch, Epoch::max);
        for log in logs {
            chain.push(log);
        }
        let volumes: Vec<_> = self
            .disks()
            .into_iter()
            .map(|disk| SecondaryVolume {
                disk,
                lock: RangeLock::default(),
                active_lock: RangeLock::default(),
            })
            .collect();
        let s = Rc::new(Secondary {
            host: self.0.host.clone(),
            store: self.0.store.clone(),
            claimed: RefCell::new(vec![Bitmap::new(); volumes.len()]),
            volumes,
            logs: self.0.logs.clone(),
            counters: self.0.counters.clone(),
            chain,
            log: RefCell::default(),
            saving: Cell::default(),
            open_epoch: Cell::new(open),
            staging: super::staging::Staging::new(self.state().policy.window),
            progress: RefCell::default(),
            applied: Cell::default(),
            batches: Cell::default(),
            received: Cell::default(),
            recording: Cell::default(),
            taking_over: Cell::default(),
            failed: RefCell::default(),
            error: RefCell::default(),
            session: RefCell::default(),
            sessions: Cell::default(),
            cut_session: RefCell::default(),
            epoch_bytes: Cell::default(),
            last: Cell::new(last),
            slots: RefCell::new(slots),
            consumer_writes: Cell::default(),
            active_reserved: Cell::default(),
            keeps_active: Cell::default(),
            forgotten: Cell::default(),
            holders: Cell::default(),
            ended: Cell::default(),
            changed: self.0.changed.clone(),
            task: RefCell::default(),
        });
        s.adopt_epoch(open);
        let task = self.0.host.spawn("apply", apply::run(s.clone()));
        *s.task.borrow_mut() = Some(task);
        *self.0.part.borrow_mut() = Part::Secondary(s.clone());
        self.0.changed.notify();
        Ok(s)
    }

    async fn open_actives(
        &self,
        slots: &[[(H::Disk, H::Disk); 2]],
        id: Uuid,
    ) -> Result<Vec<Active<H::Disk>>> {
        let mut actives = Vec::new();
        for (slot, disk) in slots.iter().zip(self.disks()) {
            let (data, map) = slot[slot_of(id)].clone();
            actives.push(Active::open(data, map, id, disk.len()).await?);
        }
        Ok(actives)
    }

    /// A promoted group whose roll-back is not merged yet: serves the view, resumes the commit.
    async fn resume_promoted(&self) -> Result<()> {
        let (record, undo, active, commit) = {
            let s = self.state();
            (s.record, s.undo.clone(), s.active.map_or(Uuid::default(), |a| a.id), s.commit)
        };
        let logs = self.0.logs.recover(record, |log| undo.contains(&log.uuid())).await?;
        for wanted in &undo {
            if !logs.iter().any(|l| l.uuid() == *wanted) {
                return Err(Error::own(
                    ErrorKind::Corrupt,
                    format!(
                        "undo log {wanted}, which the failover needs, is not in the pool: the roll-back can't be finished"
                    ),
                ));
            }
        }
        let slots = self.active_files().await?;
        let actives = self.open_actives(&slots, active).await?;
        let chain = Chain::new(record, actives);
        let free = self.0.logs.clone();
        chain.on_free(Rc::new(move |log| free.give_back(&log)));
        for log in logs {
            chain.push(log);
        }
        let promoted = Promoted::new(
            &self.0.host,
            self.0.store.clone(),
            self.disks(),
            chain,
            commit,
            self.0.counters.clone(),
            self.0.changed.clone(),
        );
        self.serve_promoted(promoted);
        Ok(())
    }

    /// Makes a promoted replica the primary, and merges in the background.
    pub(crate) fn serve_promoted(&self, promoted: Rc<Promoted<H>>) {
        let locals = (0..self.disks().len())
            .map(|i| Local::Promoted(promoted.clone(), VolumeIndex::of(i)))
            .collect();
        let p = self.primary_on(locals);
        *self.0.part.borrow_mut() = Part::Primary(p, Some(promoted.clone()));
        self.0.host.spawn("commit", promoted.commit());
        self.0.changed.notify();
    }
}
