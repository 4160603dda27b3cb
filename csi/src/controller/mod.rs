//! The Controller service: volumes come, go and grow.
//!
//! ```text
//!   CreateVolume ── create.rs ──► ReplicatedVolume (intent) ──► engine: replica, group of its own
//!   DeleteVolume ── delete.rs ──► engine: none left ──► ReplicatedVolume gone
//!   ControllerExpandVolume ── expand.rs ──► secondary ─► primary ─► ReplicationGroup ─► ReplicatedVolume
//!   ListVolumes, GetCapacity, Validate… ── look.rs       change nothing
//! ```
//!
//! It keeps no state: what it has half done stands in the objects and the engines, and the same call
//! again finishes it. One operation a volume is under way at a time, here; the operator works on the
//! same objects, hence each write is a compare-and-swap.

mod create;
mod delete;
mod expand;
mod look;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tonic::{Request, Response, Status};
use understudy_core::engine::api::{Address, Uuid};

use crate::call;
use crate::engines::Engines;
use crate::fault::{Asked, Fault, Problem};
use crate::guard::Guards;
use crate::proto::csi;
use crate::volumes::Volumes;

/// The service. Clones share the guards.
#[derive(Debug)]
pub struct Controller<V, E> {
    volumes: Arc<V>,
    engines: Arc<E>,
    guards: Guards,
    installation: Arc<str>,
}

impl<V, E> Clone for Controller<V, E> {
    fn clone(&self) -> Self {
        Self {
            volumes: self.volumes.clone(),
            engines: self.engines.clone(),
            guards: self.guards.clone(),
            installation: self.installation.clone(),
        }
    }
}

impl<V: Volumes, E: Engines> Controller<V, E> {
    /// Serves the volumes of one installation.
    pub fn new(volumes: Arc<V>, engines: Arc<E>, installation: &str) -> Self {
        Self { volumes, engines, guards: Guards::default(), installation: installation.into() }
    }

    /// Where the engine of a node takes calls.
    async fn engine_of(&self, node: &str) -> Result<Address, Fault> {
        let unavailable = |text: String| Fault::new(Problem::Unavailable, text);
        let Some(found) = self.volumes.node(node).await? else {
            return Err(unavailable(format!(
                "node {node} does not run the driver (there is no such node, or it has no label {}): bring it back",
                crate::TOPOLOGY_INSTALLATION
            )));
        };
        let engine = found.engine.ok_or_else(|| {
            unavailable(format!("node {node} has no InternalIP, so its engine can't be reached"))
        })?;
        Ok(engine.api)
    }

    /// The engine of a node, and whether it holds the pool that is meant: one that was set up anew
    /// knows nothing of the volume.
    async fn engine_with_pool(
        &self,
        asked: Asked,
        node: &str,
        pool: Uuid,
    ) -> Result<Address, Fault> {
        let at = self.engine_of(node).await?;
        let found = self.engines.capacity(&at).await.map_err(|e| Fault::engine(asked, node, &e))?;
        if found.pool == pool {
            return Ok(at);
        }
        Err(Fault::wrong_state(format!(
            "the engine of node {node} has the pool {}, and not {pool}, where the replica lies: bring the old pool back",
            found.pool
        )))
    }
}

#[tonic::async_trait]
impl<V: Volumes, E: Engines> csi::controller_server::Controller for Controller<V, E> {
    async fn create_volume(
        &self,
        request: Request<csi::CreateVolumeRequest>,
    ) -> Result<Response<csi::CreateVolumeResponse>, Status> {
        let (this, request) = (self.clone(), request.into_inner());
        let name = request.name.clone();
        call::run("CreateVolume", &name, async move { this.create(&request).await }).await
    }

    async fn delete_volume(
        &self,
        request: Request<csi::DeleteVolumeRequest>,
    ) -> Result<Response<csi::DeleteVolumeResponse>, Status> {
        let (this, id) = (self.clone(), request.into_inner().volume_id);
        let name = id.clone();
        call::run("DeleteVolume", &name, async move { this.delete(&id).await }).await
    }

    async fn controller_expand_volume(
        &self,
        request: Request<csi::ControllerExpandVolumeRequest>,
    ) -> Result<Response<csi::ControllerExpandVolumeResponse>, Status> {
        let (this, request) = (self.clone(), request.into_inner());
        let name = request.volume_id.clone();
        call::run("ControllerExpandVolume", &name, async move { this.expand(&request).await }).await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<csi::ValidateVolumeCapabilitiesResponse>, Status> {
        let (this, request) = (self.clone(), request.into_inner());
        let name = request.volume_id.clone();
        let work = async move { this.validate(request).await };
        call::run("ValidateVolumeCapabilities", &name, work).await
    }

    async fn list_volumes(
        &self,
        request: Request<csi::ListVolumesRequest>,
    ) -> Result<Response<csi::ListVolumesResponse>, Status> {
        let (this, request) = (self.clone(), request.into_inner());
        call::run("ListVolumes", "", async move { this.list(&request).await }).await
    }

    async fn get_capacity(
        &self,
        request: Request<csi::GetCapacityRequest>,
    ) -> Result<Response<csi::GetCapacityResponse>, Status> {
        let (this, request) = (self.clone(), request.into_inner());
        call::run("GetCapacity", "", async move { this.capacity(&request).await }).await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<csi::ControllerGetCapabilitiesResponse>, Status> {
        use csi::controller_service_capability::{Rpc, Type, rpc};
        let capabilities = [
            rpc::Type::CreateDeleteVolume,
            rpc::Type::ListVolumes,
            rpc::Type::GetCapacity,
            rpc::Type::ExpandVolume,
            rpc::Type::SingleNodeMultiWriter,
        ]
        .map(|kind| csi::ControllerServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: kind.into() })),
        });
        let capabilities = capabilities.to_vec();
        Ok(Response::new(csi::ControllerGetCapabilitiesResponse { capabilities }))
    }
}
