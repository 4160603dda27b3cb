//! An engine: its pool, its shards, and which group lies where.
//!
//! ```text
//!   Engine ─┬─ Pool                                      on disk
//!           ├─ Shards ── groups (by thread)              where the work is done
//!           └─ State ─┬─ replicas: volume → uuid, size, group
//!                     └─ groups:   name → shard, members
//! ```
//!
//! What changes which replicas and groups there are takes `structure`, one change at a time; what
//! a group does takes none of it. A replica or group that is damaged stands in `State` with its
//! error: it is listed and refused, and nothing else notices.

mod adopt;
#[cfg(test)]
mod crash;
mod expand;
mod groups;
mod join;
mod reopen;
mod replicas;
mod restart;
mod sessions;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::api::{
    Capacity, EngineStatus, GroupId, GroupStatus, LinkState, Refusal, Replica, ReplicaStatus,
    Stage, VolumeId,
};
use super::config::{Config, Limits};
use super::error::EngineError;
use super::groups as on_shard;
use super::groups::Offer;
use super::metrics::{Refused, Sample};
use super::pool::Pool;
use super::shards::{ShardId, Shards};
use crate::runtime::Address;
use crate::tls::Tls;

/// How long a status waits for a group that is closed for a change: less than who asks does.
const CHANGE: Duration = Duration::from_secs(1);

/// An engine. Shared by the API and the listeners.
#[derive(Debug)]
pub(crate) struct Engine {
    pool: Arc<Pool>,
    shards: Shards,
    limits: Limits,
    secure: Secure,
    state: Mutex<State>,
    /// Held while replicas or groups come or go.
    structure: Arc<tokio::sync::Mutex<()>>,
    /// Counts changes of any group.
    changes: watch::Sender<u64>,
    /// Connections that were refused.
    refused: Refused,
    /// Where NBD is served first, for the URIs in status; set once the listeners are up.
    nbd: Mutex<Option<Address>>,
    /// Where tests end it.
    #[cfg(test)]
    crash: crash::Crash,
}

/// How this engine may reach others.
#[derive(Clone, Copy, Debug)]
struct Secure {
    tls: bool,
    plaintext: bool,
}

#[derive(Debug, Default)]
struct State {
    replicas: BTreeMap<VolumeId, Result<ReplicaRecord, EngineError>>,
    groups: BTreeMap<GroupId, Result<GroupRecord, EngineError>>,
}

#[derive(Debug, Clone)]
struct ReplicaRecord {
    replica: Replica,
    group: Option<GroupId>,
}

#[derive(Debug, Clone)]
struct GroupRecord {
    shard: ShardId,
    members: Vec<VolumeId>,
    /// Held while the group starts, or is deleted.
    busy: Arc<tokio::sync::Mutex<()>>,
}

impl Engine {
    /// Opens the pool, starts the shards, and finds again what was there.
    pub(crate) async fn open(config: &Config, tls: Option<Tls>) -> Result<Arc<Self>, EngineError> {
        let root = config.pool.clone();
        let pool = Arc::new(blocking(move || Pool::open(&root)).await?);
        let secure = Secure { tls: tls.is_some(), plaintext: config.insecure_plaintext };
        let shards = Shards::start(config, tls)
            .map_err(|e| EngineError::system("can't start the data-plane threads", e))?;
        let engine = Arc::new(Self {
            pool,
            shards,
            limits: config.limits,
            secure,
            state: Mutex::default(),
            structure: Arc::default(),
            changes: watch::Sender::new(0),
            refused: Refused::default(),
            nbd: Mutex::default(),
            #[cfg(test)]
            crash: crash::Crash::default(),
        });
        engine.find_again().await?;
        Ok(engine)
    }

    /// The shards.
    pub(crate) fn shards(&self) -> &Shards {
        &self.shards
    }

    /// Moves on with each change of any group.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Tells the address that URIs in status name.
    pub(crate) fn serve_nbd_at(&self, address: Option<Address>) {
        *self.nbd.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// Whether a primary of ours can reach a peer at an address; what is the remedy if not.
    pub(crate) fn check_peer(&self, peer: Option<&Address>) -> Result<(), EngineError> {
        let problem = match peer {
            Some(a @ Address::Tcp(_)) if !self.secure.plaintext => format!(
                "peer {a} is plaintext: use tls:NODE@HOST:PORT, or start this engine with \
                 --insecure-plaintext"
            ),
            Some(a @ Address::Tls { .. }) if !self.secure.tls => {
                format!("peer {a} needs certificates: start this engine with --tls DIRECTORY")
            }
            _ => return Ok(()),
        };
        Err(EngineError::new(Refusal::Invalid, problem))
    }

    /// Leaves an empty directory where the pool held nothing; for the end of the process.
    pub(crate) async fn leave_empty_pool(&self) -> Result<bool, EngineError> {
        let pool = self.pool.clone();
        blocking(move || pool.leave_if_empty()).await
    }

    /// The pool's space.
    pub(crate) async fn capacity(&self) -> Result<Capacity, EngineError> {
        let pool = self.pool.clone();
        blocking(move || pool.capacity()).await
    }

    /// The engine now. A group that is closed for a change is not left out: it would look like one that
    /// is not there. The change is waited for.
    pub(crate) async fn status(&self) -> Result<EngineStatus, EngineError> {
        let groups = self.groups_on_shards().await?;
        if self.closed(&groups).is_none() {
            return Ok(self.told(groups));
        }
        let changed = tokio::time::timeout(CHANGE, self.structure.lock()).await;
        let groups = self.groups_on_shards().await?;
        drop(changed);
        match self.closed(&groups) {
            None => Ok(self.told(groups)),
            Some(name) => {
                let text = format!("group {name} is closed for a change: ask again");
                Err(EngineError::new(Refusal::Unavailable, text))
            }
        }
    }

    async fn groups_on_shards(&self) -> Result<Vec<GroupStatus>, EngineError> {
        let nbd = self.nbd.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut groups = Vec::new();
        for shard in self.shards.all() {
            let nbd = nbd.clone();
            groups.extend(
                self.shards
                    .run(shard, |_| async move { Ok(on_shard::status(nbd.as_ref())) })
                    .await?,
            );
        }
        Ok(groups)
    }

    /// A sound group that is not among these.
    fn closed(&self, open: &[GroupStatus]) -> Option<GroupId> {
        let state = self.state();
        let sound = state.groups.iter().filter(|(_, record)| record.is_ok()).map(|(name, _)| name);
        sound.into_iter().find(|name| !open.iter().any(|g| g.group == **name)).cloned()
    }

    fn told(&self, mut groups: Vec<GroupStatus>) -> EngineStatus {
        let state = self.state();
        for (name, record) in &state.groups {
            if let Err(e) = record {
                groups.push(damaged(name, e));
            }
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        let replica = |(volume, r): (&VolumeId, &Result<ReplicaRecord, EngineError>)| {
            let r = r.as_ref().ok()?;
            let (uuid, size, group) = (r.replica.uuid, r.replica.size, r.group.clone());
            Some(ReplicaStatus { volume: volume.clone(), uuid, size, group })
        };
        EngineStatus {
            pool: self.pool.uuid(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            groups,
            replicas: state.replicas.iter().filter_map(replica).collect(),
        }
    }

    /// Connections that were refused, for who refuses them.
    pub(crate) fn refused(&self) -> &Refused {
        &self.refused
    }

    /// The engine now, for metrics. A group that is closed for a change is left out: it is there again
    /// at the next look.
    pub(crate) async fn sample(&self) -> Result<Sample, EngineError> {
        let mut groups = Vec::new();
        for shard in self.shards.all() {
            groups.extend(self.shards.run(shard, |_| async { Ok(on_shard::samples()) }).await?);
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        let capacity = self.capacity().await;
        let state = self.state();
        let damaged = state.groups.values().filter(|g| g.is_err()).count()
            + state.replicas.values().filter(|r| r.is_err()).count();
        let replicas = state.replicas.len();
        Ok(Sample { groups, damaged, replicas, capacity, refused: self.refused.all() })
    }

    /// What NBD clients may open, and on which shard it is.
    pub(crate) async fn offers(&self) -> Result<Vec<(ShardId, Offer)>, EngineError> {
        let mut all = Vec::new();
        for shard in self.shards.all() {
            let offers = self.shards.run(shard, |_| async { Ok(on_shard::offers()) }).await?;
            all.extend(offers.into_iter().map(|o| (shard, o)));
        }
        Ok(all)
    }

    /// The shard of a group, if it is here and sound.
    pub(crate) fn shard_of(&self, group: &GroupId) -> Option<ShardId> {
        self.state().groups.get(group).and_then(|g| g.as_ref().ok()).map(|g| g.shard)
    }

    /// Ends all groups cleanly: what is in flight ends, nothing new begins.
    pub(crate) async fn shutdown(&self) {
        for shard in self.shards.all() {
            if let Err(e) = self.shards.run(shard, |_| on_shard::shutdown()).await {
                tracing::warn!("{e}");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; and it is never held across an await.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs what blocks on a thread for that.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(call).await.unwrap_or_else(|e| {
        Err(EngineError::new(Refusal::Internal, format!("a file system call panicked: {e}")))
    })
}

/// The status of a group that can't be opened.
fn damaged(name: &GroupId, error: &EngineError) -> GroupStatus {
    GroupStatus {
        group: name.clone(),
        generation: crate::units::Generation::default(),
        role: None,
        stage: Stage::None,
        link: LinkState::Solo,
        epoch: crate::units::Epoch::NONE,
        record: crate::units::Epoch::NONE,
        checkpoint_cut: None,
        checkpoint_done: None,
        checkpoint_bytes: crate::units::ByteLen::default(),
        bytes_at_risk: crate::units::ByteLen::default(),
        missing: crate::units::ByteLen::default(),
        resync_rate: crate::units::ByteLen::default(),
        window: crate::units::ByteLen::default(),
        undo: crate::units::ByteLen::default(),
        active: crate::units::ByteLen::default(),
        commit_done: crate::units::ByteLen::default(),
        commit_total: crate::units::ByteLen::default(),
        frames_sent: 0,
        frames_acknowledged: 0,
        frames_applied: 0,
        error: Some(error.message.clone()),
        exports: Vec::new(),
        joining: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
