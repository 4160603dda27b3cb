//! Faults that are really made, and what the doctor says of each: cause and remedy.
//!
//! ```text
//!   a  sound, then lost             c  no driver       e  its engine crashes
//!   b  sound, then its engine dies  d  no engine       f  no FUSE
//! ```
//!
//! Kubelets are played: the objects are what theirs would be.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use understudy_core::engine::api::{ByteLen, Member};
use understudy_crds::conditions::{ACCEPTED, PROTECTED};

use super::objects::reason;
use super::people::understudy;
use super::stage::{NAMESPACE, Stage, is_possible};

/// How long it may take until all is noticed: engines are reported on every 15 s.
const LIMIT: Duration = Duration::from_mins(2);

/// A fault, what it is about, words of its cause, words of its remedy.
type Expected = (&'static str, &'static str, &'static str, &'static str);

/// What is wrong while the replication runs.
const EARLY: [Expected; 12] = [
    (
        "DriverMissing",
        "node/c",
        "the kubelet does not know the driver",
        "no csi-node pod runs on c",
    ),
    ("EngineMissing", "node/d", "it has no engine pod", "DaemonSet understudy-engine"),
    (
        "EngineDown",
        "node/e",
        "CrashLoopBackOff: back-off 10s",
        "logs engine-e -c engine --previous",
    ),
    ("FuseMissing", "node/f", "/dev/fuse is missing", "modprobe fuse"),
    (
        "LeftoverReplica",
        "node/b",
        "pvc-nobody: a replica of a volume that does not exist",
        "DeleteReplica",
    ),
    ("CertificateDenied", "csr/", "from node a", "who uses its token"),
    ("ClaimNotOurs", "br/shop/foreign", "other.csi.example", "correct the BlockReplication"),
    ("ClaimNotBound", "br/shop/waiting", "first pod", "correct the BlockReplication"),
    ("NodeUnknown", "br/shop/nowhere", "known are a, b", "correct the BlockReplication"),
    ("VolumeInTwo", "br/shop/second", "shop/web", "correct the BlockReplication"),
    ("GroupLost", "rvol/pvc-lost", "no such ReplicationGroup", "from a backup"),
    ("VolumeNotMade", "rvol/pvc-half", "has not been told of it", "events of its claim"),
];

/// What is wrong after the engine of the secondary has died.
const DEGRADED: [Expected; 3] = [
    ("EngineSilent", "node/b", "can't reach its engine", "7460 to 7462"),
    ("Degraded", "br/shop/web", "no checkpoint has completed", "the engine of b"),
    ("FailoverRefused", "br/shop/web", "generation", "kubectl understudy failover shop/web"),
];

/// What is wrong after the primary's node is lost, and the operator with it.
const LATE: [Expected; 3] = [
    ("NodeNotReady", "node/a", "its kubelet is not heard", "fail over"),
    ("PrimaryLost", "br/shop/web", "the primary", "bring it back"),
    ("OperatorDown", "deployment/understudy-operator", "has been silent for", "get pods"),
];

/// Waits until the doctor has named all of these, each at one look at least: a denied request for a
/// certificate is taken away soon.
async fn diagnosed(stage: &Stage, expected: &[Expected]) {
    let began = Instant::now();
    let mut missing = expected.to_vec();
    loop {
        let (sound, text) = understudy(stage, &["doctor"]);
        missing.retain(|e| !says(&text, e));
        if missing.is_empty() {
            assert!(!sound, "its exit status says that nothing is wrong");
            return;
        }
        assert!(began.elapsed() < LIMIT, "not named: {missing:#?} in\n{text}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn says(text: &str, (fault, about, cause, remedy): &Expected) -> bool {
    text.split("\n\n").any(|paragraph| {
        let lines: Vec<_> = paragraph.trim().lines().collect();
        let [head, why, what] = lines.as_slice() else { return false };
        let words: Vec<_> = head.split("  ").collect();
        matches!(words.as_slice(), [_, thing, name] if thing.starts_with(about) && name == fault)
            && why.trim().starts_with("cause:")
            && why.contains(cause)
            && what.trim().starts_with("remedy:")
            && what.contains(remedy)
    })
}

fn kubelet_knows_the_driver(stage: &Stage, node: &str) {
    stage.apply(&json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": { "name": node },
        "spec": { "drivers": [{
            "name": "csi.understudy.dev", "nodeID": node, "topologyKeys": [],
        }]},
    }));
}

/// The engine's pod of a node, with one container in a state of its own.
fn engine_pod(stage: &Stage, node: &str, container: &str, state: &Value) {
    let name = format!("engine-{node}");
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": NAMESPACE,
            "labels": { "app.kubernetes.io/component": "engine" },
        },
        "spec": {
            "serviceAccountName": "understudy-engine", "nodeName": node,
            "containers": [{ "name": "engine", "image": "none" }],
        },
    }));
    let ready = state.get("running").is_some();
    let status = json!({ "status": { "phase": "Running", "containerStatuses": [{
        "name": container, "image": "none", "imageID": "", "ready": ready, "state": state,
        "restartCount": if ready { 0 } else { 3 },
    }]}});
    let patch = status.to_string();
    let words = ["patch", "pod", &name, "-n", NAMESPACE, "--subresource=status", "-p", &patch];
    stage.kubectl.run(words).unwrap();
}

async fn bare_node(stage: &Stage, name: &str) {
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "labels": { "csi.understudy.dev/installation": "test" } },
    }));
    // Nobody answers there.
    stage.set_node(name, "127.1.1.1", true).await;
}

async fn break_the_installation(stage: &Stage) {
    let running = json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } });
    for node in ["a", "b"] {
        engine_pod(stage, node, "engine", &running);
        kubelet_knows_the_driver(stage, node);
    }
    for node in ["c", "d", "e", "f"] {
        bare_node(stage, node).await;
    }
    engine_pod(stage, "c", "engine", &running);
    for node in ["d", "e", "f"] {
        kubelet_knows_the_driver(stage, node);
    }
    let crashing =
        json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } });
    engine_pod(stage, "e", "engine", &crashing);
    let ended = json!({ "terminated": { "exitCode": 1, "message": "/dev/fuse is missing" } });
    engine_pod(stage, "f", "attach", &ended);
    let stolen = stage.path("stolen");
    assert!(stage.certificate("a", "b", &stolen).is_err());

    let member = Member { volume: "pvc-nobody".parse().unwrap(), size: ByteLen(1 << 20) };
    stage.engine_client("b").await.unwrap().create_replica(&member).await.unwrap();
    for (name, spec) in [
        ("pvc-lost", json!({ "sizeBytes": 1 << 20, "group": "shop.gone" })),
        ("pvc-half", json!({ "sizeBytes": 1 << 20, "node": "a" })),
    ] {
        stage.apply(&json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "ReplicatedVolume",
            "metadata": { "name": name }, "spec": spec,
        }));
    }
}

async fn ask_for_what_can_not_be(stage: &Stage) {
    stage.bind("foreign", "other.csi.example", "x", 4 << 20);
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "name": "waiting", "namespace": "shop" },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "understudy",
            "resources": { "requests": { "storage": "4Mi" } },
        },
    }));
    stage.claim("free", "a", 4 << 20).await;
    stage.replicate("foreign", &["foreign"], &json!({}));
    stage.replicate("waiting", &["waiting"], &json!({}));
    stage.replicate("nowhere", &["free"], &json!({ "secondary": { "node": "z" } }));
    stage.until("nowhere", "refused", |o| reason(o, ACCEPTED) == "UnknownNode").await;
    stage.replicate("second", &["root"], &json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_names_cause_and_remedy_of_what_is_wrong() {
    if !is_possible("kubectl understudy doctor") {
        return;
    }
    let mut stage = Stage::start(&["a", "b"]).await;
    stage.claim("root", "a", 4 << 20).await;
    stage.replicate("web", &["root"], &json!({ "secondary": { "node": "b" } }));
    stage.until("web", "running", |o| reason(o, PROTECTED) == "Running").await;
    break_the_installation(&stage).await;
    ask_for_what_can_not_be(&stage).await;
    diagnosed(&stage, &EARLY).await;

    stage.kill_engine("b");
    let order = json!({ "generation": "1-00000000000000aa", "target": "b" });
    stage.patch("web", json!({ "spec": { "failover": { "trigger": order } } })).await;
    diagnosed(&stage, &DEGRADED).await;

    stage.lose("a").await;
    stage.until("web", "lost", |o| reason(o, PROTECTED) == "PrimaryUnreachable").await;
    // Long ago.
    stage.operators.clear();
    let patch = json!({ "spec": { "renewTime": "2026-01-01T00:00:00.000000Z" } }).to_string();
    let words = ["patch", "lease", "understudy-operator", "-n", NAMESPACE, "--type=merge", "-p"];
    stage.kubectl.run(words.into_iter().chain([patch.as_str()])).unwrap();
    diagnosed(&stage, &LATE).await;

    let all = EARLY.iter().chain(&DEGRADED).chain(&LATE);
    let faults: std::collections::BTreeSet<_> = all.map(|expected| expected.0).collect();
    println!("{} faults: {faults:?}", faults.len());
    // The document tells of each.
    let workspace = understudy_tests::harness::tools::workspace();
    let document = std::fs::read_to_string(workspace.join("docs/operator.md")).unwrap();
    for fault in faults {
        assert!(document.contains(&format!("`{fault}`")), "docs/operator.md: {fault}");
    }
}
