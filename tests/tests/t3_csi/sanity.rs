//! csi-sanity, and what it leaves out.
//!
//! ```text
//!   csi-sanity ─► report: each spec passed, or skipped ─► skips.txt: capability, spec
//!                                                              └─► the driver does not advertise it
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use understudy_csi::proto::csi;
use understudy_csi::proto::csi::identity_client::IdentityClient;
use understudy_csi::server::connect;
use understudy_tests::cluster::programs;
use understudy_tests::harness::tools::workspace;

use super::kubelet::Kubelet;
use super::{MIB, assert_nothing_is_left, driver};

/// What csi-sanity may leave out: the capability that is not advertised, a tab, the spec's name.
const SKIPS: &str = include_str!("skips.txt");

/// In place of a capability: csi-sanity itself has the spec switched off, for every driver.
const PENDING: &str = "-";

/// Capability by spec.
fn allowed() -> BTreeMap<&'static str, &'static str> {
    let lines = SKIPS.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once('\t').unwrap()).map(|(c, spec)| (spec, c)).collect()
}

/// The specs of a report by how they ended, and how many there are.
fn specs(report: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut by_state: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let suites = report.as_array().unwrap().iter();
    for spec in suites.flat_map(|suite| suite["SpecReports"].as_array().unwrap()) {
        if spec["LeafNodeType"] != "It" {
            continue;
        }
        let around = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten();
        let words: Vec<_> =
            around.chain([&spec["LeafNodeText"]]).filter_map(Value::as_str).collect();
        let state = spec["State"].as_str().unwrap().to_owned();
        by_state.entry(state).or_default().insert(words.join(" "));
    }
    by_state
}

/// Every capability that the driver advertises, by the names of the specification.
fn advertised(kubelet: &Kubelet<'_>) -> BTreeSet<String> {
    use csi::controller_service_capability::{Type as Controller, rpc::Type as ControllerRpc};
    use csi::node_service_capability::{Type as Node, rpc::Type as NodeRpc};
    use csi::plugin_capability::{Type as Plugin, service::Type as Service};
    let mut names = BTreeSet::new();
    let request = csi::ControllerGetCapabilitiesRequest {};
    let answer =
        kubelet.controller(|mut c| async move { c.controller_get_capabilities(request).await });
    for capability in answer.unwrap().capabilities {
        if let Some(Controller::Rpc(rpc)) = capability.r#type {
            names.insert(ControllerRpc::try_from(rpc.r#type).unwrap().as_str_name().to_owned());
        }
    }
    let request = csi::NodeGetCapabilitiesRequest {};
    let answer = kubelet.node(|mut c| async move { c.node_get_capabilities(request).await });
    for capability in answer.unwrap().capabilities {
        if let Some(Node::Rpc(rpc)) = capability.r#type {
            names.insert(NodeRpc::try_from(rpc.r#type).unwrap().as_str_name().to_owned());
        }
    }
    let socket = kubelet.driver.socket("controller");
    let answer = kubelet.runtime.block_on(async {
        let request = csi::GetPluginCapabilitiesRequest {};
        IdentityClient::new(connect(&socket)).get_plugin_capabilities(request).await
    });
    for capability in answer.unwrap().into_inner().capabilities {
        if let Some(Plugin::Service(service)) = capability.r#type {
            names.insert(Service::try_from(service.r#type).unwrap().as_str_name().to_owned());
        }
    }
    names
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
        .arg(format!("--ginkgo.json-report={}", path("report.json")))
        .args(["--ginkgo.v", "--ginkgo.no-color"])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}\n{}", driver.log(), driver.attachd.log());
    let report = std::fs::read_to_string(path("report.json")).unwrap();
    let specs = specs(&serde_json::from_str(&report).unwrap());
    let count = |state: &str| specs.get(state).map_or(0, BTreeSet::len);
    let states: Vec<_> =
        specs.iter().map(|(state, all)| format!("{} {state}", all.len())).collect();
    assert!(count("passed") > 40, "{states:?}: its report has changed");
    let known = |state: &String| ["passed", "skipped", "pending"].contains(&state.as_str());
    assert!(specs.keys().all(known), "{states:?}");

    let allowed = allowed();
    let advertised = advertised(&Kubelet::new(&driver, directory.path()));
    assert!(advertised.contains("CREATE_DELETE_VOLUME"), "{advertised:?}");
    let mut unexpected = Vec::new();
    for spec in specs.get("skipped").into_iter().flatten() {
        match allowed.get(spec.as_str()) {
            None | Some(&PENDING) => unexpected.push(format!("?\t{spec}")),
            Some(capability) if advertised.contains(*capability) => {
                unexpected.push(format!("{capability}, which is advertised\t{spec}"));
            }
            Some(_) => {}
        }
    }
    for spec in specs.get("pending").into_iter().flatten() {
        if allowed.get(spec.as_str()) != Some(&PENDING) {
            unexpected.push(format!("{PENDING}\t{spec}"));
        }
    }
    assert!(unexpected.is_empty(), "left out, and not in skips.txt:\n{}", unexpected.join("\n"));
    let ran = specs.get("passed").cloned().unwrap_or_default();
    let stale: Vec<_> = allowed.keys().filter(|spec| ran.contains(**spec)).collect();
    assert!(stale.is_empty(), "in skips.txt, and not left out: {stale:#?}");
    println!("{access}: {}", states.join(", "));
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

#[test]
fn the_document_names_everything_that_is_left_out() {
    let document = std::fs::read_to_string(workspace().join("docs/csi.md")).unwrap();
    for (spec, capability) in allowed() {
        // Without its first words, which name the service.
        let name = spec.split("] ").last().unwrap_or(spec);
        let row = format!("| `{capability}` |");
        let listed = document.lines().any(|line| line.starts_with(&row) && line.contains(name));
        assert!(listed, "docs/csi.md: {capability}: {name}");
    }
}
