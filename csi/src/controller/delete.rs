//! DeleteVolume.
//!
//! ```text
//!   in a group ─► FAILED_PRECONDITION          clients at the engine ─► FAILED_PRECONDITION
//!   Alone ─► the object loses its generation: nobody may serve or adopt the volume any more
//!         ─► engine: DeleteReplica ─► the object goes
//!                └─ the node is gone ─► UNAVAILABLE, unless the object says abandon-replica
//! ```
//!
//! The generation goes first because the operator may put the volume into a group between our look
//! and the engine's answer: one of the two compare-and-swaps fails.

use understudy_core::engine::api::{Address, Refusal, Uuid};
use understudy_core::engine::client::ClientError;

use super::Controller;
use crate::engines::Engines;
use crate::fault::{Asked, Fault, Problem};
use crate::proto::csi;
use crate::request::volume_id;
use crate::volume::{ANNOTATION_ABANDON, Place, Volume};
use crate::volumes::Volumes;

impl<V: Volumes, E: Engines> Controller<V, E> {
    pub(super) async fn delete(&self, id: &str) -> Result<csi::DeleteVolumeResponse, Fault> {
        // What can't be a handle of ours can't be a volume of ours.
        let Some(handle) = volume_id(id)? else { return Ok(csi::DeleteVolumeResponse {}) };
        let _guard = self.guards.take(&handle)?;
        let Some(volume) = self.volumes.get(&handle).await? else {
            return Ok(csi::DeleteVolumeResponse {});
        };
        let (node, pool) = match &volume.place {
            Place::Grouped { group } => return Err(in_group(&volume, group)),
            Place::Alone(alone) => (Some(alone.node.clone()), Some(alone.pool)),
            Place::Unserved { node, pool } => (node.clone(), *pool),
        };
        match node {
            // Not even a node was chosen.
            None => self.volumes.delete(&volume).await?,
            Some(node) => match self.reach(&node, pool).await {
                Ok(at) => self.delete_at(&at, &node, pool, volume).await?,
                Err(fault) => self.abandon(&volume, &fault).await?,
            },
        }
        Ok(csi::DeleteVolumeResponse {})
    }

    async fn reach(&self, node: &str, pool: Option<Uuid>) -> Result<Address, Fault> {
        match pool {
            Some(pool) => self.engine_with_pool(Asked::Delete, node, pool).await,
            None => self.engine_of(node).await,
        }
    }

    async fn delete_at(
        &self,
        at: &Address,
        node: &str,
        pool: Option<Uuid>,
        volume: Volume,
    ) -> Result<(), Fault> {
        let failed = |e: &ClientError| Fault::engine(Asked::Delete, node, e);
        let status = match self.engines.status(at).await {
            Ok(status) => status,
            Err(e) => return self.abandon(&volume, &failed(&e)).await,
        };
        let exports = status.groups.iter().flat_map(|group| &group.exports);
        let clients: u32 =
            exports.filter(|e| e.volume == volume.handle).map(|export| export.clients).sum();
        if clients > 0 {
            return Err(Fault::wrong_state(format!(
                "volume {} is in use: {clients} connections at the engine of node {node}; delete the pods that use it first",
                volume.handle
            )));
        }
        let served = volume.place.clone();
        let unserved = Place::Unserved { node: Some(node.to_owned()), pool };
        let leaving = if served == unserved {
            volume
        } else {
            self.volumes.update(&volume.with_place(unserved)).await?
        };
        match self.engines.delete_replica(at, &leaving.handle).await {
            Ok(()) => Ok(self.volumes.delete(&leaving).await?),
            Err(error) => {
                if error.refusal() == Some(Refusal::WrongState) && leaving.place != served {
                    // Somebody came in between: the volume lives on.
                    if let Err(e) = self.volumes.update(&leaving.with_place(served)).await {
                        tracing::warn!(volume = %leaving.handle, "its generation is not written back: {e}");
                    }
                    return Err(failed(&error));
                }
                self.abandon(&leaving, &failed(&error)).await
            }
        }
    }

    /// Leaves the replica where it is, if a person has said so.
    async fn abandon(&self, volume: &Volume, fault: &Fault) -> Result<(), Fault> {
        if volume.may_abandon {
            tracing::warn!(volume = %volume.handle, "its replica is left behind, as {ANNOTATION_ABANDON} says: {fault}");
            return Ok(self.volumes.delete(volume).await?);
        }
        let is_out_of_reach = matches!(fault.problem, Problem::Unavailable | Problem::WrongState);
        let mut fault = fault.clone();
        if is_out_of_reach {
            fault.message = format!(
                "{}; if that node never comes back: kubectl annotate rvol {} {ANNOTATION_ABANDON}=true",
                fault.message, volume.handle
            );
        }
        Err(fault)
    }
}

fn in_group(volume: &Volume, group: &str) -> Fault {
    let remedy = match group.split_once('.') {
        Some((namespace, name)) => {
            format!(
                "kubectl delete blockreplication -n {namespace} {name}, or take the volume out of it"
            )
        }
        None => "end its replication".to_owned(),
    };
    Fault::wrong_state(format!(
        "volume {} is replicated in the group {group}: first {remedy}",
        volume.handle
    ))
}
