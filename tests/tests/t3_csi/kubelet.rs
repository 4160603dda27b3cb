//! The calls of one node's kubelet and of the sidecars.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tonic::Status;
use understudy_csi::proto::csi;
use understudy_csi::proto::csi::controller_client::ControllerClient;
use understudy_csi::proto::csi::node_client::NodeClient;
use understudy_csi::server::connect;
use understudy_csi::{TOPOLOGY_INSTALLATION, TOPOLOGY_NODE};
use understudy_tests::harness::csi::Driver;

use super::MIB;

/// A mounted volume, as the sidecars and the kubelet ask for it.
pub(crate) struct Kubelet<'a> {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) driver: &'a Driver,
    directory: PathBuf,
}

pub(crate) fn mount() -> csi::VolumeCapability {
    use csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
    csi::VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

pub(crate) fn block() -> csi::VolumeCapability {
    use csi::volume_capability::{AccessMode, AccessType, BlockVolume, access_mode::Mode};
    csi::VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
        access_type: Some(AccessType::Block(BlockVolume {})),
    }
}

pub(crate) fn size(mib: i64) -> csi::CapacityRange {
    csi::CapacityRange { required_bytes: mib * MIB, limit_bytes: 0 }
}

impl Kubelet<'_> {
    pub(crate) fn new<'a>(driver: &'a Driver, directory: &Path) -> Kubelet<'a> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Kubelet { runtime, driver, directory: directory.to_owned() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn controller<T, F>(
        &self,
        call: impl FnOnce(ControllerClient<tonic::transport::Channel>) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let socket = self.driver.socket("controller");
        self.runtime
            .block_on(async { call(ControllerClient::new(connect(&socket))).await })
            .map(tonic::Response::into_inner)
    }

    pub(crate) fn node<T, F>(
        &self,
        call: impl FnOnce(NodeClient<tonic::transport::Channel>) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let socket = self.driver.socket("node");
        self.runtime
            .block_on(async { call(NodeClient::new(connect(&socket))).await })
            .map(tonic::Response::into_inner)
    }

    pub(crate) fn create(&self, name: &str, mib: i64) -> csi::Volume {
        self.create_for(name, mib, &mount())
    }

    pub(crate) fn create_for(
        &self,
        name: &str,
        mib: i64,
        capability: &csi::VolumeCapability,
    ) -> csi::Volume {
        let segments = HashMap::from([
            (TOPOLOGY_NODE.to_owned(), "node-a".to_owned()),
            (TOPOLOGY_INSTALLATION.to_owned(), "prod".to_owned()),
        ]);
        let request = csi::CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(size(mib)),
            volume_capabilities: vec![capability.clone()],
            accessibility_requirements: Some(csi::TopologyRequirement {
                requisite: Vec::new(),
                preferred: vec![csi::Topology { segments }],
            }),
            ..csi::CreateVolumeRequest::default()
        };
        let made = self.controller(|mut c| async move { c.create_volume(request).await });
        made.unwrap().volume.unwrap()
    }

    pub(crate) fn stage(&self, volume: &str) -> Result<csi::NodeStageVolumeResponse, Status> {
        self.stage_for(volume, &mount())
    }

    pub(crate) fn stage_for(
        &self,
        volume: &str,
        capability: &csi::VolumeCapability,
    ) -> Result<csi::NodeStageVolumeResponse, Status> {
        let request = csi::NodeStageVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: self.text("staging"),
            volume_capability: Some(capability.clone()),
            ..csi::NodeStageVolumeRequest::default()
        };
        self.node(|mut c| async move { c.node_stage_volume(request).await })
    }

    pub(crate) fn publish(&self, volume: &str, target: &str, readonly: bool) -> Result<(), Status> {
        self.publish_as(volume, target, &mount(), readonly)
    }

    pub(crate) fn publish_for(
        &self,
        volume: &str,
        target: &str,
        capability: &csi::VolumeCapability,
    ) -> Result<(), Status> {
        self.publish_as(volume, target, capability, false)
    }

    fn publish_as(
        &self,
        volume: &str,
        target: &str,
        capability: &csi::VolumeCapability,
        readonly: bool,
    ) -> Result<(), Status> {
        let request = csi::NodePublishVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: self.text("staging"),
            target_path: self.text(target),
            volume_capability: Some(capability.clone()),
            readonly,
            ..csi::NodePublishVolumeRequest::default()
        };
        self.node(|mut c| async move { c.node_publish_volume(request).await }).map(drop)
    }

    pub(crate) fn unpublish(&self, volume: &str, target: &str) {
        let request = csi::NodeUnpublishVolumeRequest {
            volume_id: volume.to_owned(),
            target_path: self.text(target),
        };
        self.node(|mut c| async move { c.node_unpublish_volume(request).await }).unwrap();
    }

    pub(crate) fn unstage(&self, volume: &str) -> Result<(), Status> {
        let request = csi::NodeUnstageVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: self.text("staging"),
        };
        self.node(|mut c| async move { c.node_unstage_volume(request).await }).map(drop)
    }

    pub(crate) fn expand(&self, volume: &str, target: &str, mib: i64) -> Result<i64, Status> {
        let request = csi::ControllerExpandVolumeRequest {
            volume_id: volume.to_owned(),
            capacity_range: Some(size(mib)),
            volume_capability: Some(mount()),
        };
        let grown =
            self.controller(|mut c| async move { c.controller_expand_volume(request).await });
        assert!(grown.unwrap().node_expansion_required);
        let request = csi::NodeExpandVolumeRequest {
            volume_id: volume.to_owned(),
            volume_path: self.text(target),
            capacity_range: Some(size(mib)),
            ..csi::NodeExpandVolumeRequest::default()
        };
        let grown = self.node(|mut c| async move { c.node_expand_volume(request).await });
        Ok(grown?.capacity_bytes)
    }

    pub(crate) fn delete(&self, volume: &str) -> Result<(), Status> {
        let request = csi::DeleteVolumeRequest { volume_id: volume.to_owned() };
        self.controller(|mut c| async move { c.delete_volume(request).await }).map(drop)
    }

    /// Bytes and files of the file system at a target.
    pub(crate) fn totals(&self, volume: &str, target: &str) -> Vec<i64> {
        let request = csi::NodeGetVolumeStatsRequest {
            volume_id: volume.to_owned(),
            volume_path: self.text(target),
            ..csi::NodeGetVolumeStatsRequest::default()
        };
        let stats = self.node(|mut c| async move { c.node_get_volume_stats(request).await });
        stats.unwrap().usage.into_iter().map(|usage| usage.total).collect()
    }
}
