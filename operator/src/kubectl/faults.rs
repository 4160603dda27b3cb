//! Faults of the installation itself: operator, nodes, the parts on them, certificates, pods.

use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use kube::ResourceExt;
use understudy_crds::names::{COMPONENT_LABEL, INSTALLATION_LABEL, NODES_CONFIG_MAP};

use super::doctor::Finding;
use super::facts::Facts;
use super::words::{age, bytes, span};
use crate::cluster::nodes::is_ready;
use crate::cluster::sweep::NodeReport;

/// A Lease that was not renewed for so long has no living holder.
const LEASE_SECONDS: i64 = 30;
/// A request that waits for so long is not on its way any more.
const REQUEST_SECONDS: i64 = 30;
/// A pod may take so long to end beyond its grace.
const END_SECONDS: i64 = 60;

/// Whether it runs the driver.
pub fn is_ours(node: &Node) -> bool {
    node.labels().contains_key(INSTALLATION_LABEL)
}

/// Whether somebody reconciles.
pub fn operator(facts: &Facts) -> Vec<Finding> {
    let namespace = &facts.namespace;
    let about = format!("deployment/understudy-operator in {namespace}");
    let remedy =
        format!("kubectl -n {namespace} get pods -l {COMPONENT_LABEL}=operator; then their logs");
    let spec = facts.lease.as_ref().and_then(|l| l.spec.as_ref());
    let cause = match spec {
        None => "no operator has ever led here (there is no Lease understudy-operator)".to_owned(),
        Some(spec) => match (&spec.holder_identity, &spec.renew_time) {
            (Some(holder), Some(renewed)) => {
                let silent = facts.now.duration_since(renewed.0).as_secs();
                if silent <= LEASE_SECONDS {
                    return Vec::new();
                }
                format!("the one that led, {holder}, has been silent for {}", span(silent))
            }
            _ => "no operator leads".to_owned(),
        },
    };
    let cause = format!(
        "{cause}: disks are served and checkpoints made, but nothing is started, and nobody fails over"
    );
    vec![Finding::problem("OperatorDown", about, cause, remedy)]
}

/// A node and our parts on it.
pub fn node(facts: &Facts, node: &Node) -> Vec<Finding> {
    let name = node.name_any();
    let about = format!("node/{name}");
    let on = |component: &str| {
        facts.parts.iter().find(|p| {
            p.labels().get(COMPONENT_LABEL).is_some_and(|c| c == component)
                && p.spec.as_ref().and_then(|s| s.node_name.as_ref()) == Some(&name)
        })
    };
    let engine = on("engine");
    if !is_ours(node) {
        return match engine {
            None => Vec::new(),
            Some(_) => vec![Finding::problem(
                "DriverMissing",
                about,
                "it has an engine, but the kubelet does not know the driver: no pod here gets a volume",
                part_remedy(facts, on("csi-node"), "csi-node", &name),
            )],
        };
    }
    let mut found = Vec::new();
    let ready = is_ready(node);
    if !ready {
        found.push(Finding::problem(
            "NodeNotReady",
            about.clone(),
            "its kubelet is not heard: its pods can't be trusted to run, nor to end",
            "bring it back; if it is lost, fail over what has its primary there (see below)",
        ));
    }
    if !facts.drivers.contains(&name) {
        found.push(Finding::problem(
            "DriverMissing",
            about.clone(),
            "the kubelet does not know the driver: no pod here gets a volume",
            part_remedy(facts, on("csi-node"), "csi-node", &name),
        ));
    }
    match engine {
        None => found.push(Finding::problem(
            "EngineMissing",
            about.clone(),
            "it has no engine pod: it serves and keeps no replicas",
            "see that the DaemonSet understudy-engine tolerates its taints and selects it",
        )),
        // What a lost node's pods say is old.
        Some(pod) if ready => found.extend(broken_parts(pod, &about, facts)),
        Some(_) => {}
    }
    let broken = !found.is_empty();
    if let Some(report) = facts.reports.get(&name) {
        found.extend(reported(report, &about, broken, facts));
    }
    found
}

/// What the operator says of the node's engine. `broken`: a nearer cause was found.
fn reported(report: &NodeReport, about: &str, broken: bool, facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    match &report.error {
        Some(error) if error.contains("expired") => found.push(Finding::problem(
            "CertificateExpired",
            about,
            error.clone(),
            format!(
                "the container certificates of its engine pod renews it: kubectl -n {} logs POD -c \
                 certificates; and see that the node's clock is right",
                facts.namespace
            ),
        )),
        Some(error) if !broken => found.push(Finding::problem(
            "EngineSilent",
            about,
            format!("the operator can't reach its engine: {error}"),
            "see that nothing between the nodes blocks the engine's ports (7460 to 7462)",
        )),
        _ => {}
    }
    if let (Some(total), Some(available)) = (report.total_bytes, report.available_bytes) {
        let left = i64::try_from(available).unwrap_or(i64::MAX);
        let cause = format!(
            "its pool has {} of {} left",
            bytes(left),
            bytes(i64::try_from(total).unwrap_or(i64::MAX))
        );
        let remedy = "make the file system under the pool larger, or move volumes away";
        if available < total / 50 {
            found.push(Finding::problem("PoolFull", about, cause, remedy));
        } else if available < total / 10 {
            found.push(Finding::warning("PoolLow", about, cause, remedy));
        }
    }
    found
}

fn part_remedy(facts: &Facts, pod: Option<&Pod>, component: &str, node: &str) -> String {
    let namespace = &facts.namespace;
    match pod {
        Some(pod) => format!("kubectl -n {namespace} logs {} --all-containers", pod.name_any()),
        None => format!(
            "no {component} pod runs on {node}: see that its DaemonSet tolerates the node's taints"
        ),
    }
}

/// Containers of an engine pod that do not run.
fn broken_parts(pod: &Pod, about: &str, facts: &Facts) -> Vec<Finding> {
    let status = pod.status.as_ref();
    let first = status.and_then(|s| s.init_container_statuses.as_ref()).into_iter().flatten();
    let rest = status.and_then(|s| s.container_statuses.as_ref()).into_iter().flatten();
    let waits = first.clone().any(|c| c.name == "first-certificate" && !c.ready);
    if waits {
        return vec![Finding::problem(
            "CertificateMissing",
            about,
            format!("the engine pod {} waits for its first certificate", pod.name_any()),
            format!(
                "see whether the operator runs, and: kubectl -n {} logs {} -c first-certificate",
                facts.namespace,
                pod.name_any()
            ),
        )];
    }
    let mut found = Vec::new();
    for container in rest.filter(|c| !c.ready) {
        let why = why(container);
        // A crash of what it supervises starts no new container.
        let previous = if container.restart_count > 0 { " --previous" } else { "" };
        let logs = format!(
            "kubectl -n {} logs {} -c {}{previous}",
            facts.namespace,
            pod.name_any(),
            container.name
        );
        if container.name.contains("attach") && why.to_lowercase().contains("fuse") {
            found.push(Finding::problem(
                "FuseMissing",
                about,
                format!("volumes can't become devices here: {why}"),
                "load the kernel's module: modprobe fuse (and name it in /etc/modules-load.d)",
            ));
        } else {
            let fault = match container.name.as_str() {
                "engine" => "EngineDown",
                "certificates" => "CertificatesDown",
                _ => "PartDown",
            };
            let cause =
                format!("container {} of {} is not ready: {why}", container.name, pod.name_any());
            found.push(Finding::problem(fault, about, cause, logs));
        }
    }
    if found.is_empty() && status.is_none_or(|s| s.container_statuses.is_none()) {
        found.push(Finding::problem(
            "EngineDown",
            about,
            format!("the engine pod {} has not started", pod.name_any()),
            format!("kubectl -n {} describe pod {}", facts.namespace, pod.name_any()),
        ));
    }
    found
}

fn why(container: &ContainerStatus) -> String {
    let waiting = container.state.as_ref().and_then(|s| s.waiting.as_ref());
    let ended = [&container.state, &container.last_state];
    let ended = ended.into_iter().flatten().find_map(|s| s.terminated.as_ref());
    let mut words = Vec::new();
    if let Some(waiting) = waiting {
        words.extend(waiting.reason.clone());
        words.extend(waiting.message.clone());
    }
    if let Some(ended) = ended {
        words.push(format!("it ended with {}", ended.exit_code));
        words.extend(ended.message.clone().map(|m| m.trim().to_owned()));
    }
    if words.is_empty() { "it gives no reason".to_owned() } else { words.join(": ") }
}

/// Requests that nobody has signed, or that were refused.
pub fn certificates(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for request in &facts.requests {
        let about = format!("csr/{}", request.name_any());
        let status = request.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let user = request.spec.username.clone().unwrap_or_default();
        if let Some(denied) = conditions.iter().find(|c| c.type_ == "Denied") {
            found.push(Finding::problem(
                "CertificateDenied",
                about,
                denied.message.clone().unwrap_or_default(),
                format!(
                    "{user} asked for what it is not: if that was no mistake of a configuration, look \
                     for who uses its token"
                ),
            ));
            continue;
        }
        let made = request.metadata.creation_timestamp.as_ref();
        let waits = made.map_or(0, |t| facts.now.duration_since(t.0).as_secs());
        if status.certificate.is_none() && waits > REQUEST_SECONDS {
            found.push(Finding::problem(
                "CertificatePending",
                about,
                format!("{user} has waited for its certificate for {}", span(waits)),
                "the operator signs it: see whether it runs, and what it logs of this request",
            ));
        }
    }
    found
}

/// Pods that use our volumes and do not end.
pub fn pods(facts: &Facts) -> Vec<Finding> {
    let ours = |pod: &Pod| {
        let namespace = pod.namespace().unwrap_or_default();
        let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_ref());
        volumes.into_iter().flatten().any(|v| {
            let claim = v.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone());
            let claim = claim
                .or_else(|| v.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name_any(), v.name)));
            facts.persistent_volumes.iter().any(|pv| {
                let to = pv.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
                to.is_some_and(|t| t.namespace.as_ref() == Some(&namespace) && t.name == claim)
            })
        })
    };
    let mut found = Vec::new();
    for pod in facts.users.iter().filter(|p| ours(p)) {
        let Some(asked) = &pod.metadata.deletion_timestamp else { continue };
        // The timestamp is when its grace is over.
        if facts.now.duration_since(asked.0).as_secs() <= END_SECONDS {
            continue;
        }
        let namespace = pod.namespace().unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
        let lost = facts.nodes.iter().find(|n| n.name_any() == node).is_none_or(|n| !is_ready(n));
        let (fault, cause, remedy) = if lost {
            (
                "PodOnLostNode",
                format!("its node {node} is not heard, so nobody confirms that it has ended"),
                format!(
                    "if the node is off, or its volumes were failed over: kubectl delete pod -n {namespace} \
                     {} --force --grace-period=0",
                    pod.name_any()
                ),
            )
        } else {
            (
                "PodDoesNotEnd",
                format!(
                    "it was to end {} ago; its device may be of a replaced generation",
                    age(asked.0, facts.now)
                ),
                format!(
                    "kubectl describe pod -n {namespace} {}; then the csi-node pod of {node}",
                    pod.name_any()
                ),
            )
        };
        found.push(Finding::problem(
            fault,
            format!("pod/{namespace}/{}", pod.name_any()),
            cause,
            remedy,
        ));
    }
    if facts.reports.is_empty() && facts.nodes.iter().any(is_ours) && operator(facts).is_empty() {
        found.push(Finding::warning(
            "NoReports",
            format!("configmap/{NODES_CONFIG_MAP} in {}", facts.namespace),
            "the operator has not said yet how engines are",
            "wait half a minute; if it stays so, see the operator's log",
        ));
    }
    found
}
