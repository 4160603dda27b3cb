//! helm install, helm uninstall, and that nothing is left.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::world::{World, text};
use crate::cluster::image::PRODUCT;
use crate::cluster::programs;
use crate::harness::tools::workspace;

/// Where the chart is installed.
pub(super) const NAMESPACE: &str = "understudy";

fn helm(world: &World, words: &[&str]) -> Result<String> {
    let mut command = Command::new(programs::find("helm")?);
    command
        .arg("--kubeconfig")
        .arg(world.kubeconfig())
        .args(["--namespace", NAMESPACE])
        .args(words);
    let output = command.output()?;
    if !output.status.success() {
        bail!("helm {words:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As the documents say, with the images of the suite, and metrics on the network, too.
pub(super) fn install(world: &World) -> Result<()> {
    let chart = workspace().join("charts/understudy").display().to_string();
    let (repository, tag) = PRODUCT.rsplit_once(':').unwrap_or((PRODUCT, ""));
    let image = format!("image.repository={repository},image.tag={tag},metrics.enabled=true");
    let words = ["install", "understudy", &chart, "--create-namespace", "--set", &image];
    helm(world, &[&words[..], &["--wait", "--timeout", "3m"]].concat())?;
    world.step("helm install");
    World::wait("every node can attach volumes", Duration::from_mins(2), || {
        let drivers = world.list("/apis/storage.k8s.io/v1/csinodes")?;
        let has = |node: &&serde_json::Value| {
            let drivers = node["spec"]["drivers"].as_array();
            drivers.into_iter().flatten().any(|driver| driver["name"] == "csi.understudy.dev")
        };
        let nodes = world.nodes()?.len();
        Ok((drivers.iter().filter(has).count() == nodes).then_some(()))
    })?;
    world.step("the kubelets know the driver");
    Ok(())
}

/// As the documents say: the release, then what Helm leaves to people.
pub(super) fn uninstall(world: &World) -> Result<()> {
    helm(world, &["uninstall", "understudy", "--wait", "--timeout", "3m"])?;
    let crds = workspace().join("charts/understudy/crds").display().to_string();
    world.kubectl.run(["delete", "-f", &crds, "--timeout=60s"])?;
    world.kubectl.run(["delete", "namespace", NAMESPACE, "--timeout=60s"])?;
    world.step("helm uninstall");
    Ok(())
}

/// Everything that an installation could leave: objects, and on each node mounts, devices, files.
pub(super) fn inventory(world: &World) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for path in [
        "/api/v1/namespaces",
        "/api/v1/persistentvolumes",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "/apis/storage.k8s.io/v1/csidrivers",
        "/apis/storage.k8s.io/v1/storageclasses",
        "/apis/storage.k8s.io/v1/volumeattachments",
        "/apis/certificates.k8s.io/v1/certificatesigningrequests",
    ] {
        for object in world.list(path)? {
            found.insert(format!("{path}/{}", text(&object["metadata"]["name"])));
        }
    }
    for node in world.list("/api/v1/nodes")? {
        let name = text(&node["metadata"]["name"]);
        for (what, script) in ON_NODES {
            let lines = world.provider.exec(&name, &["sh", "-c", script])?;
            found.extend(lines.lines().map(|line| format!("{name}: {what} {}", line.trim())));
        }
    }
    Ok(found)
}

/// Scripts that list, one a line. Empty directories may stay, and the kubelet's labels on nodes do.
const ON_NODES: [(&str, &str); 4] = [
    ("mount", "grep understudy /proc/self/mountinfo | cut -d' ' -f5 || true"),
    ("loop device", "cat /sys/block/loop*/loop/backing_file 2>/dev/null || true"),
    ("file", "find /var/lib/understudy /run/understudy -not -type d 2>/dev/null || true"),
    (
        "kubelet's file",
        "find /var/lib/kubelet -path '*understudy*' -not -type d 2>/dev/null || true",
    ),
];

/// Refuses what is there afterwards and was not before.
pub(super) fn compare(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Result<()> {
    let left: Vec<&String> = after.difference(before).collect();
    ensure!(left.is_empty(), "left after the uninstall:\n{left:#?}");
    Ok(())
}
