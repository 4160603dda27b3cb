//! The Node service: a volume becomes a device or a directory of a pod.
//!
//! ```text
//!   NodeStageVolume    who serves it now? ─► attach daemon: device ─► (ext4, mounted at staging)
//!   NodePublishVolume  staging or device ══ bind ══► target          a replaced device: staged anew
//!   NodeExpandVolume   device ─► its new size ─► ext4 grows          NodeGetVolumeStats
//!   NodeUnpublish…     target gone          NodeUnstage…  staging unmounted, device gone
//!   fence.rs           a device that waits for an engine that was replaced fails, so that pods end
//! ```
//!
//! It keeps no state: the attach daemon's list says which devices there are, the kernel's table what
//! is mounted. Taking away needs neither the API server nor an engine.

mod fence;
mod publish;
mod serving;
mod sizes;
mod stage;
#[cfg(test)]
mod tests;

pub use serving::Served;

use std::sync::Arc;

use tonic::{Request, Response, Status};
use understudy_core::engine::api::VolumeId;
use understudy_core::engine::attach::api::{Device, EngineAddresses};

use crate::attach::Attach;
use crate::fault::{Asked, Fault};
use crate::guard::Guards;
use crate::mount::{DeviceNumber, Found, Mounts};
use crate::proto::csi;
use crate::request;
use crate::volumes::Volumes;
use crate::{TOPOLOGY_INSTALLATION, TOPOLOGY_NODE, call};

/// Which node this is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Here {
    /// Its name.
    pub node: String,
    /// The installation that it belongs to.
    pub installation: String,
    /// The most volumes it may have; 0: no limit known.
    pub max_volumes: u32,
    /// Its own engine, by Unix sockets.
    pub engine: EngineAddresses,
}

/// The service. Clones share the guards.
#[derive(Debug)]
pub struct Node<V, A, M> {
    volumes: Arc<V>,
    attach: Arc<A>,
    mounts: Arc<M>,
    here: Arc<Here>,
    guards: Guards,
}

impl<V, A, M> Clone for Node<V, A, M> {
    fn clone(&self) -> Self {
        Self {
            volumes: self.volumes.clone(),
            attach: self.attach.clone(),
            mounts: self.mounts.clone(),
            here: self.here.clone(),
            guards: self.guards.clone(),
        }
    }
}

impl<V: Volumes, A: Attach, M: Mounts> Node<V, A, M> {
    /// Serves this node.
    pub fn new(here: Here, volumes: Arc<V>, attach: Arc<A>, mounts: Arc<M>) -> Self {
        Self { volumes, attach, mounts, here: Arc::new(here), guards: Guards::default() }
    }

    /// The device of a volume, if there is one here.
    async fn held(&self, volume: &VolumeId) -> Result<Option<Device>, Fault> {
        let list = self.attach.list().await.map_err(|e| Fault::attach(Asked::List, &e))?;
        Ok(list.into_iter().find(|device| device.volume == *volume))
    }

    /// Runs what may block.
    async fn on_mounts<T: Send + 'static>(
        &self,
        work: impl FnOnce(&M) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let mounts = self.mounts.clone();
        call::blocking(move || work(&mounts)).await
    }
}

/// The number of a device.
fn number<M: Mounts>(mounts: &M, device: &Device) -> Result<DeviceNumber, Fault> {
    match mounts.found(&device.path)? {
        Found::Device(number) => Ok(number),
        Found::Nothing | Found::Directory | Found::File => Err(Fault::internal(format!(
            "{}, the device of volume {}, is no block device: is /dev the node's own?",
            device.path.display(),
            device.volume
        ))),
    }
}

#[tonic::async_trait]
impl<V: Volumes, A: Attach, M: Mounts> csi::node_server::Node for Node<V, A, M> {
    async fn node_stage_volume(
        &self,
        request: Request<csi::NodeStageVolumeRequest>,
    ) -> Result<Response<csi::NodeStageVolumeResponse>, Status> {
        let (this, request) = (self.clone(), request.into_inner());
        let name = request.volume_id.clone();
        let work = async move {
            this.stage(&request::Stage::parse(&request)?).await?;
            Ok(csi::NodeStageVolumeResponse {})
        };
        call::run("NodeStageVolume", &name, work).await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<csi::NodeUnstageVolumeRequest>,
    ) -> Result<Response<csi::NodeUnstageVolumeResponse>, Status> {
        let (this, request) = (self.clone(), request.into_inner());
        let name = request.volume_id.clone();
        let work = async move {
            this.unstage(request::Unstage::parse(&request)?).await?;
            Ok(csi::NodeUnstageVolumeResponse {})
        };
        call::run("NodeUnstageVolume", &name, work).await
    }

    async fn node_publish_volume(
        &self,
        request: Request<csi::NodePublishVolumeRequest>,
    ) -> Result<Response<csi::NodePublishVolumeResponse>, Status> {
        let (this, request) = (self.clone(), request.into_inner());
        let name = request.volume_id.clone();
        let work = async move {
            this.publish(request::Publish::parse(&request)?).await?;
            Ok(csi::NodePublishVolumeResponse {})
        };
        call::run("NodePublishVolume", &name, work).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<csi::NodeUnpublishVolumeRequest>,
    ) -> Result<Response<csi::NodeUnpublishVolumeResponse>, Status> {
        let (this, request) = (self.clone(), request.into_inner());
        let name = request.volume_id.clone();
        let work = async move {
            this.unpublish(request::Unpublish::parse(&request)?).await?;
            Ok(csi::NodeUnpublishVolumeResponse {})
        };
        call::run("NodeUnpublishVolume", &name, work).await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<csi::NodeGetVolumeStatsRequest>,
    ) -> Result<Response<csi::NodeGetVolumeStatsResponse>, Status> {
        let (this, request) = (self.clone(), request.into_inner());
        let name = request.volume_id.clone();
        let work = async move { this.stats(request::Stats::parse(&request)?).await };
        call::run("NodeGetVolumeStats", &name, work).await
    }

    async fn node_expand_volume(
        &self,
        request: Request<csi::NodeExpandVolumeRequest>,
    ) -> Result<Response<csi::NodeExpandVolumeResponse>, Status> {
        let (this, request) = (self.clone(), request.into_inner());
        let name = request.volume_id.clone();
        let work = async move { this.expand(request::Expand::parse(&request)?).await };
        call::run("NodeExpandVolume", &name, work).await
    }

    async fn node_get_capabilities(
        &self,
        _: Request<csi::NodeGetCapabilitiesRequest>,
    ) -> Result<Response<csi::NodeGetCapabilitiesResponse>, Status> {
        use csi::node_service_capability::{Rpc, Type, rpc};
        let capabilities = [
            rpc::Type::StageUnstageVolume,
            rpc::Type::GetVolumeStats,
            rpc::Type::ExpandVolume,
            rpc::Type::VolumeCondition,
            rpc::Type::SingleNodeMultiWriter,
        ]
        .map(|kind| csi::NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: kind.into() })),
        });
        let capabilities = capabilities.to_vec();
        Ok(Response::new(csi::NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(
        &self,
        _: Request<csi::NodeGetInfoRequest>,
    ) -> Result<Response<csi::NodeGetInfoResponse>, Status> {
        let segments = [
            (TOPOLOGY_NODE.to_owned(), self.here.node.clone()),
            (TOPOLOGY_INSTALLATION.to_owned(), self.here.installation.clone()),
        ];
        Ok(Response::new(csi::NodeGetInfoResponse {
            node_id: self.here.node.clone(),
            max_volumes_per_node: self.here.max_volumes.into(),
            accessible_topology: Some(csi::Topology { segments: segments.into() }),
        }))
    }
}
