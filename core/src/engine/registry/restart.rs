//! What an engine finds in its pool when it starts, and after groups were changed.
//!
//! ```text
//!   volumes/*  ── label ──► replicas        damaged: listed with its error, and refused
//!   groups/*   ── superblock ──► members ─┬─ named by one group
//!                                         └─ by two: the higher generation has it, and the other
//!                                            leaves it behind, or goes with its last one
//!              ──► open on a shard: role, stage, epoch as they were
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Engine, ReplicaRecord, blocking, on_shard};
use crate::engine::api::{GroupId, Refusal, VolumeId};
use crate::engine::error::EngineError;
use crate::engine::pool::Kind;
use crate::overlay::GroupState;

/// How often a group is tried that can't be opened just now, and how long between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

impl Engine {
    /// Fills the state from the pool.
    pub(super) async fn find_again(&self) -> Result<(), EngineError> {
        let pool = self.pool.clone();
        let (volumes, groups) =
            blocking(move || Ok((pool.list(Kind::Volume)?, pool.list(Kind::Group)?))).await?;
        for volume in volumes {
            self.find_replica(volume).await;
        }
        // What is wrong with a group is said in its place.
        let _ = self.settle(groups).await;
        Ok(())
    }

    /// Opens these groups as the pool has them, those that are not there excepted. The first error
    /// is returned; all stand in the state.
    pub(super) async fn settle(&self, groups: Vec<GroupId>) -> Result<(), EngineError> {
        self.step()?;
        let pool = self.pool.clone();
        let named = groups.clone();
        let there = blocking(move || {
            Ok(named.into_iter().filter(|g| pool.has(Kind::Group, g)).collect::<Vec<_>>())
        })
        .await?;
        {
            let mut state = self.state();
            for r in state.replicas.values_mut().flatten() {
                r.group.take_if(|g| groups.contains(g));
            }
            state.groups.retain(|g, _| !groups.contains(g) || there.contains(g));
        }
        let mut found = BTreeMap::new();
        let mut first = Ok(());
        let mut failed = |group: GroupId, e: EngineError| {
            let e = e.context(format!("group {group} can't be opened"));
            tracing::error!(%group, "{e}");
            self.state().groups.insert(group, Err(e.clone()));
            if first.is_ok() {
                first = Err(e);
            }
        };
        for group in there {
            match self.stored_state(&group).await {
                Ok(s) => drop(found.insert(group, s)),
                Err(e) => failed(group, e),
            }
        }
        for (group, leaving) in contested(&found) {
            let left = match leaving {
                Ok(volumes) => self.leave_behind(&group, volumes).await,
                Err(e) => Err(e),
            };
            match left {
                Ok(Some(s)) => drop(found.insert(group, s)),
                Ok(None) => drop(found.remove(&group)),
                Err(e) => {
                    found.remove(&group);
                    failed(group, e);
                }
            }
        }
        for (group, s) in found {
            let members: Vec<_> = s.members.iter().map(|m| m.volume.clone()).collect();
            if let Err(e) = self.open_found(&group, s).await {
                // Nobody else may use what is its.
                self.claim(&group, &members);
                failed(group, e);
            }
        }
        self.changes.send_modify(|n| *n += 1);
        first
    }

    /// Notes which group has these volumes.
    pub(super) fn claim(&self, group: &GroupId, members: &[VolumeId]) {
        let mut state = self.state();
        for m in members {
            if let Some(Ok(r)) = state.replicas.get_mut(m) {
                r.group = Some(group.clone());
            }
        }
    }

    /// Reads who a replica is, once more if it was known.
    pub(super) async fn find_replica(&self, volume: VolumeId) {
        let path = self.pool.path(Kind::Volume, &volume);
        let (shard, name) = (self.shards.round_robin(0), volume.clone());
        let found = self.shards.run(shard, |env| on_shard::read_replica(env, path, name)).await;
        let record = found.map(|replica| ReplicaRecord { replica, group: None }).map_err(|e| {
            let e = e.context(format!("the replica of volume {volume} can't be opened"));
            tracing::error!(%volume, "{e}");
            e
        });
        self.state().replicas.insert(volume, record);
    }

    /// Takes volumes out of a group that is closed, and the group away with its last one.
    pub(super) async fn leave_behind(
        &self,
        group: &GroupId,
        volumes: Vec<VolumeId>,
    ) -> Result<Option<GroupState>, EngineError> {
        self.step()?;
        let (path, shard) = (self.pool.path(Kind::Group, group), self.shards.round_robin(0));
        let left = self.shards.run(shard, |env| on_shard::leave_group(env, path, volumes)).await?;
        if left.is_empty() {
            let (pool, name) = (self.pool.clone(), group.clone());
            blocking(move || pool.remove(Kind::Group, &name)).await?;
        }
        self.step()?;
        if left.is_empty() { Ok(None) } else { self.stored_state(group).await.map(Some) }
    }

    async fn open_found(&self, group: &GroupId, s: GroupState) -> Result<(), EngineError> {
        let damaged = |text| Err(EngineError::new(Refusal::DataLoss, text));
        if s.group != *group {
            return damaged(format!(
                "its superblock is that of group {}: move the folder back",
                s.group
            ));
        }
        if s.pool != self.pool.uuid() {
            return damaged(format!(
                "it belongs to the pool {}, this one is {}: a copied pool must not serve",
                s.pool,
                self.pool.uuid()
            ));
        }
        if s.generation.number == 0 {
            // Its first start was not even refused: the engine was killed in between.
            let (pool, name) = (self.pool.clone(), group.clone());
            return blocking(move || pool.remove(Kind::Group, &name)).await;
        }
        let mut members = Vec::with_capacity(s.members.len());
        for m in s.members {
            match self.state().replicas.get(&m.volume) {
                // A larger one was expanded: opening the group finishes it.
                Some(Ok(r)) if r.replica.uuid == m.uuid && r.replica.size.0 >= m.size => {}
                Some(Ok(_)) => {
                    return damaged(format!(
                        "the replica of volume {} is another than it was made of",
                        m.volume
                    ));
                }
                Some(Err(e)) => return Err(e.clone()),
                None => {
                    return damaged(format!(
                        "the replica of its volume {} is missing in the pool",
                        m.volume
                    ));
                }
            }
            members.push(m.volume);
        }
        let known = self.state().groups.get(group).and_then(|g| g.as_ref().ok()).map(|r| r.shard);
        let (shard, path) =
            (known.unwrap_or_else(|| self.place()), self.pool.path(Kind::Group, group));
        let mut tries = 0;
        loop {
            match self.open_group(group, path.clone(), members.clone(), shard).await {
                // Whoever had its files open may not have ended quite yet.
                Err(e) if e.refusal == Refusal::Unavailable && tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other.map(drop),
            }
        }
    }
}

type Leaving = BTreeMap<GroupId, Result<Vec<VolumeId>, EngineError>>;

/// Which groups name volumes that another group of a higher generation names too: an engine was
/// ended while that one took them over.
fn contested(groups: &BTreeMap<GroupId, GroupState>) -> Leaving {
    let mut owner: BTreeMap<&VolumeId, &GroupState> = BTreeMap::new();
    let mut leaving = Leaving::new();
    for s in groups.values() {
        for m in &s.members {
            let Some(other) = owner.get(&m.volume).copied() else {
                owner.insert(&m.volume, s);
                continue;
            };
            let (a, b) = (other.generation.number, s.generation.number);
            if a == b {
                let text = format!(
                    "groups {} and {} both name volume {} in generation {a}: move the folder of the wrong one away, and restart the engine",
                    other.group, s.group, m.volume
                );
                for group in [&other.group, &s.group] {
                    let e = EngineError::new(Refusal::DataLoss, text.clone());
                    leaving.insert(group.clone(), Err(e));
                }
                continue;
            }
            let loser = if a < b { other } else { s };
            if a < b {
                owner.insert(&m.volume, s);
            }
            let volumes = leaving.entry(loser.group.clone()).or_insert_with(|| Ok(Vec::new()));
            if let Ok(volumes) = volumes {
                volumes.push(m.volume.clone());
            }
        }
    }
    leaving
}
