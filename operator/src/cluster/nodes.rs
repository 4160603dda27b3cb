//! Nodes of the cluster as places for replicas: pure, from `Node` objects.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Taint};
use understudy_core::engine::api::Address;
use understudy_crds::names::INSTALLATION_LABEL;

use crate::observe::{Nodes, Place};

/// Where engines listen on their node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports {
    /// The engine API.
    pub api: u16,
    /// Links.
    pub link: u16,
}

/// Every node that runs the driver, and where its engine's API is.
pub fn of<'a>(
    nodes: impl IntoIterator<Item = &'a Node>,
    ports: Ports,
    plaintext: bool,
) -> (Nodes, BTreeMap<String, Address>) {
    let (mut places, mut engines) = (Nodes::new(), BTreeMap::new());
    for node in nodes {
        let labels = node.metadata.labels.as_ref();
        let ours = labels.is_some_and(|l| l.contains_key(INSTALLATION_LABEL));
        let Some(name) = node.metadata.name.clone().filter(|_| ours) else { continue };
        let at = |port| address(&name, internal_ip(node)?, port, plaintext);
        if let Some(engine) = at(ports.api) {
            engines.insert(name.clone(), engine);
        }
        let (link, ready, closed) = (at(ports.link), is_ready(node), closed(node));
        places.insert(name.clone(), Place { link, ready, closed });
    }
    (places, engines)
}

/// Whether the kubelet says that it can run pods, and is heard.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Taints that Kubernetes sets on a node that is not ready, which is judged by itself, and that a cordon
/// sets too.
const KNOWN_OTHERWISE: [&str; 3] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/unschedulable",
];

/// What keeps pods off the node, in words.
fn closed(node: &Node) -> Option<String> {
    let spec = node.spec.as_ref()?;
    if spec.unschedulable == Some(true) {
        return Some("is cordoned".to_owned());
    }
    let counts = |t: &&Taint| {
        matches!(t.effect.as_str(), "NoSchedule" | "NoExecute")
            && !KNOWN_OTHERWISE.contains(&t.key.as_str())
    };
    let taint = spec.taints.iter().flatten().find(counts)?;
    Some(format!("has the taint {}:{}", taint.key, taint.effect))
}

fn internal_ip(node: &Node) -> Option<&str> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().find(|a| a.type_ == "InternalIP").map(|a| a.address.as_str())
}

fn address(node: &str, ip: &str, port: u16, plaintext: bool) -> Option<Address> {
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let text =
        if plaintext { format!("tcp:{host}:{port}") } else { format!("tls:{node}@{host}:{port}") };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Ports, of};

    const PORTS: Ports = Ports { api: 7460, link: 7462 };

    fn node(name: &str, labelled: bool, ready: &str, ip: &str) -> k8s_openapi::api::core::v1::Node {
        let labels =
            if labelled { json!({ "csi.understudy.dev/installation": "x" }) } else { json!({}) };
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels },
            "status": {
                "addresses": [
                    { "type": "Hostname", "address": name },
                    { "type": "InternalIP", "address": ip },
                ],
                "conditions": [{ "type": "Ready", "status": ready }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn nodes_that_run_the_driver_are_reached_at_their_internal_address() {
        let all = [
            node("a", true, "True", "10.0.0.1"),
            node("b", true, "Unknown", "fd00::2"),
            node("control", false, "True", "10.0.0.9"),
        ];
        let (places, engines) = of(&all, PORTS, true);
        let shown: Vec<_> = engines.iter().map(|(n, a)| format!("{n} {a}")).collect();
        assert_eq!(shown, ["a tcp:10.0.0.1:7460", "b tcp:[fd00::2]:7460"]);
        assert_eq!(places.len(), 2);
        assert!(places["a"].ready && !places["b"].ready);
        assert_eq!(places["a"].link.as_ref().unwrap().to_string(), "tcp:10.0.0.1:7462");
    }

    #[test]
    fn a_cordon_or_a_taint_closes_a_node_and_not_being_ready_does_not() {
        let table = [
            (json!({}), None),
            (json!({ "unschedulable": true }), Some("is cordoned")),
            (
                json!({ "taints": [{
                    "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule",
                }] }),
                Some("has the taint node-role.kubernetes.io/control-plane:NoSchedule"),
            ),
            (
                json!({ "taints": [
                    { "key": "node.kubernetes.io/not-ready", "effect": "NoExecute" },
                    { "key": "gpu", "effect": "NoExecute" },
                ] }),
                Some("has the taint gpu:NoExecute"),
            ),
            (
                json!({ "taints": [
                    { "key": "node.kubernetes.io/unreachable", "effect": "NoSchedule" },
                    { "key": "slow", "effect": "PreferNoSchedule" },
                ] }),
                None,
            ),
        ];
        for (spec, closed) in table {
            let mut node = node("a", true, "True", "10.0.0.1");
            node.spec = Some(serde_json::from_value(spec.clone()).unwrap());
            let (places, _) = of([&node], PORTS, true);
            assert_eq!(places["a"].closed.as_deref(), closed, "{spec}");
        }
    }
}
