//! T2: csi-sanity, the interface's own test, against the driver's services with a real engine and
//! real devices. Objects are in memory here; T3 has them in a real API server.
//!
//! ```text
//!   csi-sanity ── CSI ──► Identity, Controller, Node ─┬─► understudyd (node-a)
//!                                                      └─► understudy-attachd ─► /dev/loopN, ext4
//! ```

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tonic::service::Routes;
use understudy_core::engine::attach::api::EngineAddresses;
use understudy_csi::attach::LocalAttach;
use understudy_csi::controller::Controller;
use understudy_csi::engines::RemoteEngines;
use understudy_csi::identity::Identity;
use understudy_csi::mount::System;
use understudy_csi::node::{Here, Node};
use understudy_csi::proto::csi::controller_server::ControllerServer;
use understudy_csi::proto::csi::identity_server::IdentityServer;
use understudy_csi::proto::csi::node_server::NodeServer;
use understudy_csi::server::Socket;
use understudy_csi::volumes;
use understudy_csi::volumes::memory::MemoryVolumes;
use understudy_tests::harness::attach::{Attachd, possible};
use understudy_tests::harness::engine::Engine;
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

/// Where csi-sanity is; `None` after saying what is skipped.
fn csi_sanity(test: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("UNDERSTUDY_TOOLS") {
        let path = PathBuf::from(folder).join("csi-sanity");
        if path.is_file() {
            return Some(path);
        }
    }
    tools::require(test, ["csi-sanity"]).map(|[path]| path)
}

/// Serves all three services at DIRECTORY/csi.sock, as long as the runtime lives.
fn serve(runtime: &tokio::runtime::Runtime, directory: &Path, engine: &Engine) {
    let engine = EngineAddresses { api: engine.api_address(), nbd: engine.nbd_address() };
    let (node, installation) = ("node-a".to_owned(), "prod".to_owned());
    let volumes = Arc::new(MemoryVolumes::new([volumes::Node {
        name: node.clone(),
        installation: installation.clone(),
        engine: Some(engine.clone()),
    }]));
    let here = Here { node, installation: installation.clone(), max_volumes: 0, engine };
    let _inside = runtime.enter();
    let attach = Arc::new(LocalAttach::new(&directory.join("attach.sock")));
    let controller =
        Controller::new(volumes.clone(), Arc::<RemoteEngines>::default(), &installation);
    let routes = Routes::new(IdentityServer::new(Identity))
        .add_service(ControllerServer::new(controller))
        .add_service(NodeServer::new(Node::new(here, volumes, attach, Arc::new(System))));
    let socket = Socket::bind(&directory.join("csi.sock")).unwrap();
    runtime.spawn(socket.serve(routes, std::future::pending()));
}

fn run(test: &str, access: &str) {
    let Some(program) = csi_sanity(test) else { return };
    if !possible(test) || tools::require(test, ["mkfs.ext4", "resize2fs"]).is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::start("node-a", directory.path(), &[]).unwrap();
    let attachd = Attachd::start(directory.path()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    serve(&runtime, directory.path(), &engine);
    let path = |name: &str| directory.path().join(name).display().to_string();
    let output = Command::new(program)
        .arg(format!("--csi.endpoint=unix://{}", path("csi.sock")))
        .arg(format!("--csi.mountdir={}", path("mount")))
        .arg(format!("--csi.stagingdir={}", path("staging")))
        .arg(format!("--csi.testvolumeaccesstype={access}"))
        .arg(format!("--csi.testvolumesize={}", 64 << 20))
        .arg(format!("--csi.testvolumeexpandsize={}", 96 << 20))
        .args(["--ginkgo.v", "--ginkgo.no-color"])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}\n{}", engine.log(), attachd.log());
    let skips: BTreeSet<&str> = printed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("[SKIPPED] "))
        .filter(|reason| !reason.starts_with("in ["))
        .collect();
    assert!(!skips.is_empty(), "its words have changed:\n{printed}");
    let unexpected: Vec<_> = skips.iter().filter(|reason| !SKIPS.contains(*reason)).collect();
    println!("left out: {skips:?}");
    assert!(unexpected.is_empty(), "left out: {unexpected:?}\n{printed}");
    let summary = printed.lines().rev().find(|line| line.contains(" Passed")).unwrap_or_default();
    println!("{access}: {}", summary.trim());
    // It deletes what it made, and so must we have.
    assert_eq!(attachd.list().unwrap(), []);
    assert_eq!(engine.status().unwrap().replicas, []);
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = directory.path().join("mount").display().to_string();
    assert!(!table.contains(&ours), "still mounted:\n{table}");
}

#[test]
fn the_interfaces_own_test_passes_for_block_volumes() {
    run("the_interfaces_own_test_passes_for_block_volumes", "block");
}

#[test]
fn the_interfaces_own_test_passes_for_mounted_volumes() {
    run("the_interfaces_own_test_passes_for_mounted_volumes", "mount");
}
