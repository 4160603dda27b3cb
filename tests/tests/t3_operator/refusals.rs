//! What can't be done is said in conditions and events; certificates go to their owners only.

use serde_json::json;
use understudy_crds::conditions::{ACCEPTED, PROTECTED};

use super::objects::{message, reason};
use super::stage::{Stage, is_possible};

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_replicated_is_named_with_the_remedy() {
    if !is_possible("refusals") {
        return;
    }
    let stage = Stage::start(&["a", "b"]).await;
    stage.claim("root", "a", 4 << 20).await;
    stage.bind("foreign", "other.csi.example", "x", 4 << 20);
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "name": "waiting", "namespace": "shop" },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "understudy",
            "resources": { "requests": { "storage": "4Mi" } },
        },
    }));
    let table = [
        ("absent", json!(["nothing"]), json!({}), "SourceNotFound", "create it"),
        ("foreign", json!(["foreign"]), json!({}), "NotOurs", "other.csi.example"),
        ("waiting", json!(["waiting"]), json!({}), "ClaimNotBound", "first pod"),
        (
            "node",
            json!(["root"]),
            json!({ "secondary": { "node": "z" } }),
            "UnknownNode",
            "known are a, b",
        ),
        (
            "vm",
            json!(null),
            json!({ "source": { "virtualMachine": { "name": "x" } } }),
            "SourceNotFound",
            "KubeVirt",
        ),
    ];
    for (name, claims, more, expected, words) in table {
        let names: Vec<_> =
            claims.as_array().into_iter().flatten().filter_map(|c| c.as_str()).collect();
        stage.replicate(name, &names, &more);
        let object = stage.until(name, expected, |o| reason(o, ACCEPTED) == expected).await;
        let said = message(&object, ACCEPTED);
        assert!(said.contains(words), "wanted {words:?} in {said}");
        let mut events = Vec::new();
        for _ in 0..50 {
            events = stage.events(name).await;
            if events.iter().any(|e| e == expected) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(events.iter().filter(|e| *e == expected).count(), 1, "{name}: {events:?}");
        // What never began ends at once.
        stage.kubectl.run(["delete", "br", "-n", "shop", name, "--wait=false"]).unwrap();
        stage.until_gone(name).await;
    }

    // A claim in two: whoever has it keeps it, the other is told.
    stage.replicate("one", &["root"], &json!({}));
    stage.until("one", "running", |o| reason(o, PROTECTED) == "Running").await;
    stage.replicate("two", &["root"], &json!({}));
    let object =
        stage.until("two", "the conflict", |o| reason(o, ACCEPTED) == "SourceConflict").await;
    assert!(message(&object, ACCEPTED).contains("shop/one"));
    let object = stage.replication("one").await.unwrap();
    assert_eq!(reason(&object, ACCEPTED), "Accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_gets_the_certificate_of_its_own_node_only() {
    if !is_possible("certificates") {
        return;
    }
    let stage = Stage::start(&["a", "b"]).await;
    let stolen = stage.path("stolen");
    let words = stage.certificate("a", "b", &stolen).unwrap_err();
    assert!(words.contains("denied") && words.contains("from node a"), "{words}");
    assert!(!stolen.join("tls.crt").exists());
    stage.certificate("a", "a", &stolen).unwrap();
    assert!(stolen.join("tls.key").exists());
    let secret =
        stage.kubectl.run(["get", "secret", "understudy-ca", "-n", "understudy", "-o", "name"]);
    assert_eq!(secret.unwrap().trim(), "secret/understudy-ca");
}
