//! T3: the CSI driver's programs with a real API server, a real engine over TLS, and real devices:
//! csi-sanity, the interface's own test, and what that does not ask.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

use tonic::{Code, Status};
use understudy_csi::proto::csi;
use understudy_csi::proto::csi::controller_client::ControllerClient;
use understudy_csi::proto::csi::node_client::NodeClient;
use understudy_csi::proto::registration::InfoRequest;
use understudy_csi::proto::registration::registration_client::RegistrationClient;
use understudy_csi::server::connect;
use understudy_csi::{TOPOLOGY_INSTALLATION, TOPOLOGY_NODE};
use understudy_tests::cluster::{Bench, programs};
use understudy_tests::harness::attach::possible;
use understudy_tests::harness::csi::Driver;
use understudy_tests::harness::tools;

/// What csi-sanity may leave out, by its own words: each is a capability that is not advertised.
const SKIPS: [&str; 12] = [
    "Controller Publish, UnpublishVolume not supported",
    "ControllerModifyVolume not supported",
    "ControllerPublishVolume not supported",
    "ControllerUnpublishVolume not supported",
    "CreateSnapshot not supported",
    "DeleteSnapshot not supported",
    "GroupControllerService not supported",
    "ListSnapshots not supported",
    "Modify Volume not supported",
    "Modify volume not supported",
    "Snapshot not supported",
    "Volume Cloning not supported",
];

const MIB: i64 = 1 << 20;

/// The driver in a directory of its own, or `None` after saying what is skipped and why.
fn driver(test: &str) -> Option<(tempfile::TempDir, Bench, Driver)> {
    let can = programs::require(test, &["etcd", "kube-apiserver", "kubectl", "csi-sanity"])
        && possible(test)
        && tools::require(test, ["mkfs.ext4", "resize2fs"]).is_some();
    if !can {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::start().unwrap();
    let driver = Driver::start(directory.path(), &bench).unwrap();
    Some((directory, bench, driver))
}

/// Whether anything of ours is still there.
fn assert_nothing_is_left(directory: &Path, bench: &Bench, driver: &Driver) {
    assert_eq!(driver.attachd.list().unwrap(), []);
    assert_eq!(driver.engine.status().unwrap().replicas, []);
    let volumes = bench.kubectl().unwrap().run(["get", "rvol", "-o", "name"]).unwrap();
    assert_eq!(volumes.trim(), "");
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = directory.display().to_string();
    let mounted: Vec<_> = table.lines().filter(|line| line.contains(&ours)).collect();
    assert!(mounted.iter().all(|line| line.contains(" - fuse ")), "still mounted: {mounted:?}");
}

fn sanity(test: &str, access: &str) {
    let Some((directory, bench, mut driver)) = driver(test) else { return };
    let path = |name: &str| directory.path().join(name).display().to_string();
    let output = Command::new(programs::find("csi-sanity").unwrap())
        .arg(format!("--csi.endpoint=unix://{}", driver.socket("node").display()))
        .arg(format!("--csi.controllerendpoint=unix://{}", driver.socket("controller").display()))
        .arg(format!("--csi.mountdir={}", path("mount")))
        .arg(format!("--csi.stagingdir={}", path("staging")))
        .arg(format!("--csi.testvolumeaccesstype={access}"))
        .arg(format!("--csi.testvolumesize={}", 64 * MIB))
        .arg(format!("--csi.testvolumeexpandsize={}", 96 * MIB))
        .args(["--ginkgo.v", "--ginkgo.no-color"])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}\n{}", driver.log(), driver.attachd.log());
    let skips: BTreeSet<&str> = printed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("[SKIPPED] "))
        .filter(|reason| !reason.starts_with("in ["))
        .collect();
    assert!(!skips.is_empty(), "its words have changed:\n{printed}");
    let unexpected: Vec<_> = skips.iter().filter(|reason| !SKIPS.contains(*reason)).collect();
    assert!(unexpected.is_empty(), "left out: {unexpected:?}\n{printed}");
    let summary = printed.lines().rev().find(|line| line.contains(" Passed")).unwrap_or_default();
    println!("{access}: {}; left out: {skips:?}", summary.trim());
    assert_nothing_is_left(directory.path(), &bench, &driver);
    assert_eq!(driver.end().unwrap(), [Some(0), Some(0)]);
}

#[test]
fn the_interfaces_own_test_passes_for_block_volumes() {
    sanity("the_interfaces_own_test_passes_for_block_volumes", "block");
}

#[test]
fn the_interfaces_own_test_passes_for_mounted_volumes() {
    sanity("the_interfaces_own_test_passes_for_mounted_volumes", "mount");
}

/// Whether the kernel lets us grow a mounted ext4: some sandboxes do without this capability.
fn may_grow_file_systems() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap() >> CAP_SYS_RESOURCE & 1 == 1
}

/// A mounted volume, as the sidecars and the kubelet ask for it.
struct Kubelet<'a> {
    runtime: tokio::runtime::Runtime,
    driver: &'a Driver,
    directory: PathBuf,
}

fn mount() -> csi::VolumeCapability {
    use csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
    csi::VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

fn size(mib: i64) -> csi::CapacityRange {
    csi::CapacityRange { required_bytes: mib * MIB, limit_bytes: 0 }
}

impl Kubelet<'_> {
    fn new<'a>(driver: &'a Driver, directory: &Path) -> Kubelet<'a> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Kubelet { runtime, driver, directory: directory.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn controller<T, F>(
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

    fn node<T, F>(
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

    fn create(&self, name: &str, mib: i64) -> csi::Volume {
        let segments = HashMap::from([
            (TOPOLOGY_NODE.to_owned(), "node-a".to_owned()),
            (TOPOLOGY_INSTALLATION.to_owned(), "prod".to_owned()),
        ]);
        let request = csi::CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(size(mib)),
            volume_capabilities: vec![mount()],
            accessibility_requirements: Some(csi::TopologyRequirement {
                requisite: Vec::new(),
                preferred: vec![csi::Topology { segments }],
            }),
            ..csi::CreateVolumeRequest::default()
        };
        let made = self.controller(|mut c| async move { c.create_volume(request).await });
        made.unwrap().volume.unwrap()
    }

    fn stage(&self, volume: &str) -> Result<csi::NodeStageVolumeResponse, Status> {
        let request = csi::NodeStageVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: self.text("staging"),
            volume_capability: Some(mount()),
            ..csi::NodeStageVolumeRequest::default()
        };
        self.node(|mut c| async move { c.node_stage_volume(request).await })
    }

    fn publish(&self, volume: &str, target: &str, readonly: bool) -> Result<(), Status> {
        let request = csi::NodePublishVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: self.text("staging"),
            target_path: self.text(target),
            volume_capability: Some(mount()),
            readonly,
            ..csi::NodePublishVolumeRequest::default()
        };
        self.node(|mut c| async move { c.node_publish_volume(request).await }).map(drop)
    }

    fn unpublish(&self, volume: &str, target: &str) {
        let request = csi::NodeUnpublishVolumeRequest {
            volume_id: volume.to_owned(),
            target_path: self.text(target),
        };
        self.node(|mut c| async move { c.node_unpublish_volume(request).await }).unwrap();
    }

    fn unstage(&self, volume: &str) -> Result<(), Status> {
        let request = csi::NodeUnstageVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: self.text("staging"),
        };
        self.node(|mut c| async move { c.node_unstage_volume(request).await }).map(drop)
    }

    fn expand(&self, volume: &str, target: &str, mib: i64) -> Result<i64, Status> {
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

    fn delete(&self, volume: &str) -> Result<(), Status> {
        let request = csi::DeleteVolumeRequest { volume_id: volume.to_owned() };
        self.controller(|mut c| async move { c.delete_volume(request).await }).map(drop)
    }

    /// Bytes and files of the file system at a target.
    fn totals(&self, volume: &str, target: &str) -> Vec<i64> {
        let request = csi::NodeGetVolumeStatsRequest {
            volume_id: volume.to_owned(),
            volume_path: self.text(target),
            ..csi::NodeGetVolumeStatsRequest::default()
        };
        let stats = self.node(|mut c| async move { c.node_get_volume_stats(request).await });
        stats.unwrap().usage.into_iter().map(|usage| usage.total).collect()
    }
}

#[test]
fn a_pods_files_outlive_growth_a_killed_plugin_and_the_pod_itself() {
    let test = "a_pods_files_outlive_growth_a_killed_plugin_and_the_pod_itself";
    let Some((directory, bench, mut driver)) = driver(test) else { return };
    let kubelet = Kubelet::new(&driver, directory.path());
    let volume = kubelet.create("Some Pod's Volume", 32);
    let id = volume.volume_id.as_str();
    assert!(id.starts_with("pvc-"), "{id}");
    kubelet.stage(id).unwrap();
    kubelet.publish(id, "pod-1", false).unwrap();
    std::fs::write(kubelet.path("pod-1/file"), "words").unwrap();

    // A second target, for reading only.
    kubelet.publish(id, "pod-2", true).unwrap();
    assert_eq!(std::fs::read_to_string(kubelet.path("pod-2/file")).unwrap(), "words");
    assert!(std::fs::write(kubelet.path("pod-2/file"), "other").is_err());
    kubelet.unpublish(id, "pod-2");
    assert!(!kubelet.path("pod-2").exists());

    // In use: it neither goes nor is it unstaged, and it grows.
    assert_eq!(kubelet.delete(id).unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(kubelet.unstage(id).unwrap_err().code(), Code::FailedPrecondition);
    let before = kubelet.totals(id, "pod-1");
    let grown = kubelet.expand(id, "pod-1", 96);
    let device = driver.attachd.list().unwrap().remove(0);
    assert_eq!(device.size.0, 96 << 20);
    if may_grow_file_systems() {
        assert_eq!(grown.unwrap(), 96 * MIB);
        let after = kubelet.totals(id, "pod-1");
        assert!(after[0] > 2 * before[0] && after[1] > before[1], "{before:?} {after:?}");
    } else {
        let refusal = grown.unwrap_err();
        assert!(refusal.message().contains("CAP_SYS_RESOURCE"), "{refusal}");
    }

    drop(kubelet);
    driver.restart_node().unwrap();
    let kubelet = Kubelet::new(&driver, directory.path());
    kubelet.stage(id).unwrap();
    kubelet.publish(id, "pod-1", false).unwrap();
    assert_eq!(std::fs::read_to_string(kubelet.path("pod-1/file")).unwrap(), "words");

    // The pod goes, and another comes.
    kubelet.unpublish(id, "pod-1");
    kubelet.unstage(id).unwrap();
    kubelet.stage(id).unwrap();
    kubelet.publish(id, "pod-3", false).unwrap();
    assert_eq!(std::fs::read_to_string(kubelet.path("pod-3/file")).unwrap(), "words");
    kubelet.unpublish(id, "pod-3");
    kubelet.unstage(id).unwrap();
    kubelet.delete(id).unwrap();
    drop(kubelet);
    assert_nothing_is_left(directory.path(), &bench, &driver);
}

#[test]
fn the_kubelet_finds_the_driver_by_its_registration() {
    let test = "the_kubelet_finds_the_driver_by_its_registration";
    let Some((directory, _bench, driver)) = driver(test) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let info = runtime.block_on(async {
        let socket = directory.path().join("plugins/csi.understudy.dev@reg.sock");
        let mut client = RegistrationClient::new(connect(&socket));
        client.get_info(InfoRequest {}).await.unwrap().into_inner()
    });
    assert_eq!(info.name, "csi.understudy.dev");
    assert_eq!(Path::new(&info.endpoint), driver.socket("node"));
}
