//! Pods come and go, volumes grow, the plugin is killed: the files stay.

use std::path::Path;

use tonic::Code;
use understudy_csi::proto::registration::InfoRequest;
use understudy_csi::proto::registration::registration_client::RegistrationClient;
use understudy_csi::server::connect;

use super::kubelet::Kubelet;
use super::{MIB, assert_nothing_is_left, driver};

/// Whether the kernel lets us grow a mounted ext4: some sandboxes do without this capability.
fn may_grow_file_systems() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap() >> CAP_SYS_RESOURCE & 1 == 1
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
