//! T3: the CRDs on a real API server.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use kube::api::{PostParams, Request};
use serde_json::{Value, json};
use understudy_crds::generate::definitions;
use understudy_tests::cluster::{Bench, programs};
use understudy_tests::harness::process::Child;
use understudy_tests::harness::tools;

#[path = "../../crds/tests/cases/mod.rs"]
mod cases;

const REPLICATIONS: &str = "/apis/understudy.dev/v1alpha1/namespaces/default/blockreplications";
const GROUPS: &str = "/apis/understudy.dev/v1alpha1/replicationgroups";
const VOLUMES: &str = "/apis/understudy.dev/v1alpha1/replicatedvolumes";

/// Creates or replaces an object as kubectl does, unknown fields refused; `Err` is the refusal.
async fn send(
    client: &kube::Client,
    url: &str,
    object: &Value,
    dry: bool,
) -> Result<Value, String> {
    let body = serde_json::to_vec(object).unwrap();
    let name = object["metadata"]["name"].as_str().unwrap();
    let replaces = object["metadata"].get("resourceVersion").is_some();
    let request = Request::new(url);
    let mut request = if replaces {
        request.replace(name, &PostParams::default(), body).unwrap()
    } else {
        request.create(&PostParams::default(), body).unwrap()
    };
    let path = request.uri().path().to_owned();
    let dry = if dry { "&dryRun=All" } else { "" };
    *request.uri_mut() = format!("{path}?fieldValidation=Strict{dry}").parse().unwrap();
    client.request::<Value>(request).await.map_err(|error| match error {
        kube::Error::Api(status) => status.message,
        other => panic!("{other}"),
    })
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": kind,
        "metadata": { "name": name }, "spec": spec,
    })
}

/// The messages of all CEL rules below a schema.
fn rules(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "x-kubernetes-validations" {
                    let messages = value.as_array().unwrap().iter().map(|rule| &rule["message"]);
                    found.extend(messages.map(|m| m.as_str().unwrap().to_owned()));
                }
                rules(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| rules(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_rule_accepts_the_right_and_refuses_the_wrong_with_its_message() {
    if !programs::require("CEL rules on an API server", &programs::T3[..3]) {
        return;
    }
    let bench = Bench::shared().unwrap();
    let client = bench.client().await.unwrap();
    let mut refusals = Vec::new();

    for spec in cases::accepted() {
        let object = object("BlockReplication", "web", &spec);
        send(&client, REPLICATIONS, &object, true).await.unwrap();
    }
    for cases::Refusal { change, server, .. } in cases::REFUSALS {
        let mut spec = cases::replication();
        change(&mut spec);
        let object = object("BlockReplication", "web", &spec);
        let refusal = send(&client, REPLICATIONS, &object, true).await.unwrap_err();
        assert!(refusal.contains(server), "wanted {server:?} in:\n{refusal}");
        refusals.push(refusal);
    }

    let mut same = cases::group("1-00000000000000aa", "a");
    same["secondary"] = json!({ "node": "a", "pool": "01" });
    let same = object("ReplicationGroup", "shop.same", &same);
    refusals.push(send(&client, GROUPS, &same, true).await.unwrap_err());
    for (index, cases::Change { old, new, refusal }) in cases::CHANGES.iter().enumerate() {
        let name = format!("shop.web{index}");
        let old = object("ReplicationGroup", &name, &cases::group(old.0, old.1));
        let mut stored = send(&client, GROUPS, &old, false).await.unwrap();
        stored["spec"] = cases::group(new.0, new.1);
        let found = send(&client, GROUPS, &stored, true).await;
        match refusal {
            None => assert!(found.is_ok(), "change {index}: {found:?}"),
            Some(words) => {
                let found = found.unwrap_err();
                assert!(found.contains(words), "wanted {words:?} in:\n{found}");
                refusals.push(found);
            }
        }
    }

    let volume = |spec| object("ReplicatedVolume", "pvc-1", &spec);
    let good = volume(json!({ "sizeBytes": 1_048_576, "node": "a" }));
    send(&client, VOLUMES, &good, true).await.unwrap();
    for size in [json!(0), json!(1000), json!("1Mi")] {
        let bad = volume(json!({ "sizeBytes": size }));
        let refusal = send(&client, VOLUMES, &bad, true).await.unwrap_err();
        assert!(refusal.contains("spec.sizeBytes"), "{refusal}");
    }

    let mut known = BTreeSet::new();
    rules(&serde_json::to_value(definitions()).unwrap(), &mut known);
    assert!(known.len() > 5, "the rules were not found");
    for message in known {
        assert!(
            refusals.iter().any(|refusal| refusal.contains(&message)),
            "nothing was refused by the rule that says {message:?}: add a case to crds/tests/cases"
        );
    }
}

#[tokio::test]
async fn a_running_replication_may_be_given_more_claims_and_its_group_more_members() {
    if !programs::require("a source that grows", &programs::T3[..3]) {
        return;
    }
    let bench = Bench::shared().unwrap();
    let client = bench.client().await.unwrap();
    let object = object("BlockReplication", "grows", &cases::replication());
    let mut stored = send(&client, REPLICATIONS, &object, false).await.unwrap();
    let claims = stored["spec"]["source"]["persistentVolumeClaims"].as_array_mut().unwrap();
    claims.push(json!({ "name": "extra" }));
    send(&client, REPLICATIONS, &stored, true).await.unwrap();

    let group = cases::group("1-00000000000000aa", "a");
    let group = self::object("ReplicationGroup", "shop.grows", &group);
    let stored = send(&client, GROUPS, &group, false).await.unwrap();
    let with = |joining: &str, left: &str| {
        let mut object = stored.clone();
        let member = json!({ "volume": "extra", "sizeBytes": 4096, "joining": joining });
        object["spec"]["members"].as_array_mut().unwrap().push(member);
        object["spec"]["leftBehind"] = json!([{ "volume": "other", "node": left }]);
        object
    };
    send(&client, GROUPS, &with("1-00000000000000aa", "b"), true).await.unwrap();
    for (joining, left, words) in [
        ("yes", "b", "members[1].joining in body should match"),
        ("1-00000000000000aa", "../b", "leftBehind[0].node in body should match"),
    ] {
        let refusal = send(&client, GROUPS, &with(joining, left), true).await.unwrap_err();
        assert!(refusal.contains(words), "wanted {words:?} in:\n{refusal}");
    }
}

/// The paths of all objects below a schema, as `kubectl explain` takes them.
fn levels(path: &str, schema: &Value, found: &mut Vec<String>) {
    let schema = if schema["type"] == "array" { &schema["items"] } else { schema };
    let Some(fields) = schema["properties"].as_object() else { return };
    found.push(path.to_owned());
    for (name, schema) in fields {
        levels(&format!("{path}.{name}"), schema, found);
    }
}

/// What is missing in the words of `kubectl explain`.
fn silence(text: &str) -> Option<String> {
    if text.contains("<no description>") || text.contains("<empty>") {
        return Some("no description".to_owned());
    }
    let (_, fields) = text.split_once("FIELDS:")?;
    // The values of an enumeration stand between a field and its words.
    let is_text = |line: &&str| !line.trim().is_empty() && !line.starts_with("  enum:");
    let mut lines = fields.lines().filter(is_text).peekable();
    while let Some(line) = lines.next() {
        let is_field = line.starts_with("  ") && !line.starts_with("   ");
        let is_explained = lines.peek().is_some_and(|next| next.starts_with("    "));
        if is_field && !is_explained {
            return Some(format!("no word on {}", line.trim()));
        }
    }
    None
}

#[test]
fn kubectl_explain_has_words_at_every_level() {
    if !programs::require("kubectl explain", &programs::T3[..3]) {
        return;
    }
    let bench = Bench::shared().unwrap();
    let kubectl = bench.kubectl().unwrap();
    let mut paths = Vec::new();
    for crd in definitions() {
        let schema = crd.spec.versions[0].schema.clone().and_then(|s| s.open_api_v3_schema);
        levels(&crd.spec.names.plural, &serde_json::to_value(schema).unwrap(), &mut paths);
    }
    assert!(paths.len() > 10, "{paths:?}");
    let mut silent = Vec::new();
    for path in &paths {
        let text = kubectl.run(["explain", path]).unwrap();
        silent.extend(silence(&text).map(|what| format!("{path}: {what}")));
    }
    assert!(silent.is_empty(), "\n{}", silent.join("\n"));
}

#[test]
fn a_killed_bench_leaves_no_process_and_the_next_one_removes_its_directory() {
    if !programs::require("a killed bench", &programs::T3[..3]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let program = tools::own("understudy-tests").unwrap();
    let mut owner =
        Child::start("bench", &program, ["cluster", "bench"], directory.path()).unwrap();
    let said = owner
        .wait_until("the bench was ready", Duration::from_mins(3), || {
            let output = std::fs::read_to_string(directory.path().join("bench.log")).ok()?;
            let line = output.lines().find_map(|line| line.strip_prefix("export KUBECONFIG="))?;
            Some(line.to_owned())
        })
        .unwrap();
    let left = Path::new(&said).parent().unwrap().parent().unwrap().to_owned();
    assert!(left.is_dir());
    let children = children(owner.pid());
    assert_eq!(children.len(), 2, "etcd and the API server: {children:?}");
    owner.kill();
    let end = Instant::now() + Duration::from_secs(20);
    while children.iter().any(|pid| runs(*pid)) {
        assert!(Instant::now() < end, "{children:?} outlive the bench that was killed");
        std::thread::sleep(Duration::from_millis(20));
    }
    let _next = understudy_tests::cluster::scratch::Scratch::new("api").unwrap();
    assert!(!left.exists(), "{} was left", left.display());
}

/// The processes that `pid` has started.
fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
    }
    found
}

/// Whether a process runs; one that waits to be reaped does not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn the_check_of_explain_can_fail() {
    let good = "DESCRIPTION:\n    Words.\nFIELDS:\n  node\t<string>\n    Its node.\n";
    assert_eq!(silence(good), None);
    assert!(silence("FIELDS:\n  node\t<string>\n  pool\t<string>\n    Its pool.\n").is_some());
    assert!(silence("DESCRIPTION:\n    <empty>\n").is_some());
}
