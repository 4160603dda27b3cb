//! The controller over engines and objects in memory.

mod create;
mod delete;
mod expand;
mod look;
mod world;

use tonic::Request;
use understudy_core::engine::api::{ByteLen, VolumeId};
use understudy_crds::replication_group::{GroupMember, GroupSide, Owner};
use understudy_crds::{ReplicationGroup, ReplicationGroupSpec};

use crate::fault::{Fault, Problem};
use crate::proto::csi;
use crate::proto::csi::controller_server::Controller as _;
use crate::request::MIB;
use crate::volume::{Place, Volume};
use crate::volumes::Volumes;
use crate::{TOPOLOGY_INSTALLATION, TOPOLOGY_NODE};
use world::World;

fn handle(text: &str) -> VolumeId {
    text.parse().unwrap()
}

fn capability() -> csi::VolumeCapability {
    use csi::volume_capability::{AccessMode, AccessType, BlockVolume, access_mode::Mode};
    csi::VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
        access_type: Some(AccessType::Block(BlockVolume {})),
    }
}

fn range(mib: u64) -> csi::CapacityRange {
    csi::CapacityRange { required_bytes: i64::try_from(mib * MIB).unwrap(), limit_bytes: 0 }
}

fn topology(node: &str) -> csi::Topology {
    let segments = [(TOPOLOGY_NODE, node), (TOPOLOGY_INSTALLATION, "prod")];
    let segments = segments.map(|(key, value)| (key.to_owned(), value.to_owned()));
    csi::Topology { segments: segments.into() }
}

/// A volume of so many MiB, wished for on a node.
fn request(name: &str, mib: u64, node: &str) -> csi::CreateVolumeRequest {
    csi::CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(range(mib)),
        volume_capabilities: vec![capability()],
        accessibility_requirements: Some(csi::TopologyRequirement {
            requisite: vec![topology("node-a"), topology("node-b")],
            preferred: vec![topology(node)],
        }),
        ..csi::CreateVolumeRequest::default()
    }
}

impl World {
    async fn create(&self, name: &str, mib: u64, node: &str) -> Result<csi::Volume, Fault> {
        let made = self.controller().create(&request(name, mib, node)).await?;
        Ok(made.volume.unwrap())
    }

    async fn delete(&self, name: &str) -> Result<(), Fault> {
        self.controller().delete(name).await.map(drop)
    }

    async fn volume(&self, name: &str) -> Option<Volume> {
        self.volumes.get(&handle(name)).await.unwrap()
    }

    /// Puts a volume into a group, as the operator does: node-a first, node-b second.
    fn join(&self, name: &str, mib: u64) {
        let side = |node: &str| GroupSide {
            node: node.to_owned(),
            pool: self.pool(node).to_string(),
            policy: None,
        };
        let size_bytes = i64::try_from(mib * MIB).unwrap();
        let spec = ReplicationGroupSpec {
            owner: Owner { namespace: "shop".to_owned(), name: "db".to_owned() },
            generation: "2-00000000000000aa".to_owned(),
            members: vec![GroupMember::new(name, size_bytes)],
            primary: side("node-a"),
            secondary: Some(side("node-b")),
            left_behind: Vec::new(),
            promotion: None,
        };
        self.volumes.put_group(ReplicationGroup::new("shop.db", spec));
        self.volumes.edit(&handle(name), |o| o.spec.group = Some("shop.db".to_owned()));
        self.put_replica("node-b", name, ByteLen(mib * MIB));
    }
}

#[tokio::test]
async fn a_bad_request_reaches_neither_objects_nor_engines() {
    let world = World::new();
    let controller = world.controller();
    let answer = controller.create_volume(Request::new(csi::CreateVolumeRequest::default()));
    assert_eq!(answer.await.unwrap_err().code(), tonic::Code::InvalidArgument);
    assert_eq!(world.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn two_operations_on_one_volume_do_not_run_at_once() {
    let world = World::new();
    let controller = world.controller();
    let _busy = controller.guards.take(&handle("vol-a")).unwrap();
    for fault in [
        controller.create(&request("vol-a", 1, "node-a")).await.unwrap_err(),
        controller.delete("vol-a").await.unwrap_err(),
        controller
            .expand(&csi::ControllerExpandVolumeRequest {
                volume_id: "vol-a".to_owned(),
                capacity_range: Some(range(2)),
                volume_capability: None,
            })
            .await
            .unwrap_err(),
    ] {
        assert_eq!(fault.problem, Problem::Busy);
    }
}
