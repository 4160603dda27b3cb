//! Start: a group takes a role.
use super::super::group::Group;
use super::super::machine::Operation;
use super::set_generation;
use crate::disk::{Error, ErrorKind, Host, Result};
use crate::overlay::{ActiveId, CommitPosition, Member, Policy, Role, Stage};
use crate::runtime::Address;
use crate::units::{Epoch, Generation};

/// How to start.
#[derive(Clone, Debug)]
pub struct StartSpec {
    /// The generation of the group: the same on both sides.
    pub generation: Generation,
    /// What this replica is to be.
    pub role: Role,
    /// Primary: where the secondary takes links; none is solo. Secondary: where the primary is; if
    /// that names a node, links of others are refused.
    pub peer: Option<Address>,
    /// Interval, limits, mode.
    pub policy: Policy,
    /// Secondary: writes come from an NBD client instead of a link.
    pub inbound: bool,
    /// Primary that is one already, in an older generation: its devices go on in this one.
    pub adopt: bool,
}

impl<H: Host> Group<H> {
    /// Begins a role, or says that it runs already. See `start` in the engine API.
    pub async fn start(&self, spec: StartSpec) -> Result<()> {
        let _turn = self.turn().await?;
        let peer = spec.peer.as_ref().map(ToString::to_string);
        let (same, current) = {
            let s = self.state();
            let same = s.role == spec.role
                && s.generation == spec.generation
                // A secondary is called: where its primary is may change under it.
                && (s.peer_address == peer || s.role == Role::Secondary)
                && s.inbound == spec.inbound;
            (same, s.generation)
        };
        let names_peer = spec.role == Role::Secondary || peer.is_some();
        // A peer is given up by a stop, never in passing.
        let adopt = spec.adopt && !same && (names_peer || self.state().peer_address.is_none());
        if !self.allow(Operation::Start { peer: names_peer, same, adopt })? {
            return self.note_primary(spec.role, same, peer).await;
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
            Role::Secondary => self.start_secondary(spec, peer).await,
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
        if self.state().role == Role::Secondary && self.state().record != Epoch::NONE {
            // Its disks may hold more than its checkpoint, and volumes that this does not cover.
            return Err(Error::own(
                ErrorKind::NotPermitted,
                format!(
                    "a stopped copy becomes primary by a failover, at its checkpoint {}",
                    self.state().record
                ),
            ));
        }
        if peer.is_some() {
            // Nothing is known of the peer: until a hello says otherwise it lacks everything. The
            // flag outlives a restart before that hello.
            self.intent().await?;
        }
        // What is the primary goes on as it is: only the peer changes, or the generation's number.
        let (was, line) = {
            let s = self.state();
            let goes_on = s.generation == spec.generation || spec.adopt;
            (s.generation, s.role == Role::Primary && goes_on)
        };
        let keeps = self.primary().filter(|_| line);
        // Writes of a primary that ends here end first, and no new one begins before it is decided.
        let held = match self.primary().filter(|_| keeps.is_none()) {
            Some((p, _)) => p.hold().await,
            None => Vec::new(),
        };
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
                if !line {
                    s.all_joined();
                }
                s.blank = false;
                s.peer_address = peer;
                s.policy = spec.policy;
                s.inbound = false;
                s.undo.clear();
                s.active = None;
                for m in &mut s.members {
                    if !line {
                        m.begin_anew();
                    } else if was != spec.generation {
                        m.carry(was);
                    }
                }
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
            drop(held);
            self.become_primary();
        }
        self.connect_peer(true).await
    }

    /// A secondary that runs already learns where its primary is now; a link of another node ends.
    async fn note_primary(&self, role: Role, same: bool, peer: Option<String>) -> Result<()> {
        if role != Role::Secondary || !same {
            return Ok(());
        }
        if self.state().stage == Stage::Running && self.running_secondary().is_none() {
            // It was started, and then something of it could not be opened.
            self.become_secondary(true).await?;
        }
        if self.state().peer_address == peer {
            return Ok(());
        }
        let Some(running) = self.secondary() else { return Ok(()) };
        self.0.store.update(|s| s.peer_address = peer).await?;
        running.cut();
        Ok(())
    }

    async fn start_secondary(&self, spec: StartSpec, peer: Option<String>) -> Result<()> {
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
                s.peer_address = peer;
                s.policy = spec.policy;
                s.inbound = spec.inbound;
                s.anew = true;
                s.undo.clear();
                s.commit = CommitPosition::default();
                s.record = Epoch::NONE;
                s.all_joined();
                if spec.inbound {
                    s.record = s.epoch;
                    s.epoch = s.epoch.next();
                    (s.record_cut, s.record_done, s.record_bytes) = (now, now, 0);
                    s.blank = false;
                }
                s.active = Some(ActiveId { id, generation: spec.generation, checkpoint: s.record });
                s.members.iter_mut().for_each(Member::begin_anew);
            })
            .await?;
        self.end_part();
        drop(held);
        *self.0.inbound_error.borrow_mut() = None;
        self.become_secondary(false).await?;
        Ok(())
    }
}
