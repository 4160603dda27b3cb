//! What is accepted and what is refused, with its message: the same schema and CEL rules that an
//! API server applies.

use serde_json::{Value, json};
use understudy_crds::strict::read;
use understudy_crds::{BlockReplication, ReplicatedVolume, ReplicationGroup};

fn replication(spec: &Value) -> Result<BlockReplication, String> {
    let object = json!({
        "apiVersion": "understudy.dev/v1alpha1",
        "kind": "BlockReplication",
        "metadata": { "name": "web", "namespace": "shop" },
        "spec": spec,
    });
    read(&object).map_err(|problems| problems.join("\n"))
}

fn with(change: impl Fn(&mut Value)) -> Result<BlockReplication, String> {
    let mut spec = json!({
        "source": { "persistentVolumeClaims": [{ "name": "root" }, { "name": "data" }] },
        "secondary": { "node": "node-b" },
    });
    change(&mut spec);
    replication(&spec)
}

#[test]
fn the_least_manifest_is_accepted_and_gets_the_defaults() {
    let object = with(|_| {}).unwrap();
    let policy = &object.spec.checkpoint;
    assert_eq!(policy.interval.to_string(), "1s");
    assert_eq!(policy.undo_limit.bytes(), 256 << 20);
    assert_eq!(policy.window.bytes(), 8 << 20);
    assert_eq!(policy.max_delay.to_string(), "5s");
}

#[test]
fn everything_that_can_be_asked_for_is_accepted_together() {
    with(|s| {
        s["mode"] = json!("Synchronous");
        s["state"] = json!("Stopped");
        s["primary"] = json!({ "node": "node-a" });
        s["checkpoint"] = json!({
            "interval": "0s", "trigger": "before the update", "undoLimit": "1Gi",
            "window": "16Mi", "maxDelay": "200ms",
        });
        s["failover"] = json!({
            "policy": "Manual",
            "trigger": { "generation": "1-00c0ffee00c0ffee", "target": "node-b" },
        });
    })
    .unwrap();
}

/// One change that is wrong, and what the refusal must say.
type Refusal = (fn(&mut Value), &'static str);

#[test]
fn what_is_wrong_is_named_with_its_remedy() {
    let table: [Refusal; 22] = [
        (|s| s["source"] = json!({}), "exactly one of virtualMachine and persistentVolumeClaims"),
        (
            |s| s["source"]["virtualMachine"] = json!({ "name": "vm" }),
            "exactly one of virtualMachine",
        ),
        (
            |s| s["source"]["persistentVolumeClaims"] = json!([]),
            "source.persistentVolumeClaims: empty",
        ),
        (
            |s| s["source"]["persistentVolumeClaims"] = json!([{ "name": "a" }, { "name": "a" }]),
            "name \"a\" is listed twice",
        ),
        (
            |s| s["source"]["persistentVolumeClaims"] = json!(["root"]),
            "found string, expected object",
        ),
        (
            |s| s["primary"] = json!({ "node": "node-b" }),
            "must differ: a copy on the same node dies with it",
        ),
        (
            |s| s["checkpoint"] = json!({ "intervall": "1s" }),
            "spec.checkpoint: no such field 'intervall'; did you mean interval?",
        ),
        (|s| s["colour"] = json!("red"), "spec: no such field 'colour'; known are"),
        (
            |s| s["checkpoint"] = json!({ "interval": 1 }),
            "spec.checkpoint.interval: found number, expected string; put it in quotes",
        ),
        (
            |s| s["checkpoint"] = json!({ "interval": "1" }),
            "spec.checkpoint.interval: '1' does not match",
        ),
        (
            |s| s["checkpoint"] = json!({ "interval": "5ms" }),
            "0s (only on demand) or between 10ms and 24h",
        ),
        (
            |s| s["checkpoint"] = json!({ "interval": "25h" }),
            "0s (only on demand) or between 10ms and 24h",
        ),
        (
            |s| s["checkpoint"] = json!({ "maxDelay": "61s" }),
            "maxDelay must be between 1ms and 60s",
        ),
        (|s| s["checkpoint"] = json!({ "maxDelay": "0s" }), "maxDelay must be between 1ms and 60s"),
        (|s| s["checkpoint"] = json!({ "window": "4Ki" }), "window must be at least 64Ki"),
        (
            |s| s["checkpoint"] = json!({ "undoLimit": "1Mi" }),
            "undoLimit must be at least spec.checkpoint.window",
        ),
        (|s| s["checkpoint"] = json!({ "undoLimit": "1.5Gi" }), "does not match"),
        (
            |s| s["mode"] = json!("synchronous"),
            "'synchronous' is not one of Checkpointed, Synchronous",
        ),
        (|s| s["failover"] = json!({ "policy": "Automatic" }), "'Automatic' is not one of Manual"),
        (
            |s| s["failover"] = json!({ "trigger": { "generation": "1", "target": "node-b" } }),
            "spec.failover.trigger.generation: '1' does not match",
        ),
        (
            |s| s["failover"] = json!({ "trigger": { "target": "node-b" } }),
            "spec.failover.trigger.generation: missing",
        ),
        (
            |s| s["secondary"] = json!({ "node": "../b" }),
            "spec.secondary.node: '../b' does not match",
        ),
    ];
    for (change, message) in table {
        let refusal = with(change).unwrap_err();
        assert!(refusal.contains(message), "wanted {message:?} in:\n{refusal}");
    }
}

#[test]
fn names_and_unknown_fields_beside_the_spec_are_refused_too() {
    let mut object =
        json!({ "kind": "BlockReplication", "metadata": { "name": "A/b" }, "spce": {} });
    let problems = read::<BlockReplication>(&object).unwrap_err().join("\n");
    assert!(problems.contains("metadata.name: 'A/b' is no name"), "{problems}");
    assert!(problems.contains("no such field 'spce'; did you mean spec?"), "{problems}");
    assert!(problems.contains("spec: missing"), "{problems}");
    object["metadata"] = Value::Null;
    assert!(read::<BlockReplication>(&object).unwrap_err()[0].contains("metadata: missing"));
}

#[test]
fn a_volume_has_a_size() {
    let volume = |spec: Value| {
        read::<ReplicatedVolume>(&json!({ "metadata": { "name": "pvc-1" }, "spec": spec }))
    };
    volume(json!({ "sizeBytes": 1_048_576, "node": "node-a" })).unwrap();
    assert!(volume(json!({ "sizeBytes": 0 })).is_err());
    assert!(volume(json!({ "sizeBytes": "1Mi" })).is_err());
}

#[test]
fn a_group_never_goes_back_to_an_older_generation() {
    let spec = |generation: &str, node: &str| {
        json!({
            "owner": { "namespace": "shop", "name": "web" },
            "generation": generation,
            "members": [{ "volume": "root", "sizeBytes": 4096 }],
            "primary": { "node": node, "pool": "00" },
        })
    };
    let change = |old: Value, new: Value| {
        let schema = understudy_crds::strict::schema_of::<ReplicationGroup>();
        let object = |spec| json!({ "metadata": { "name": "shop.web" }, "spec": spec });
        kube_cel::Validator::new().validate(&schema, &object(new), Some(&object(old))).is_ok()
    };
    let (first, second) = ("1-00000000000000aa", "3-00000000000000bb");
    assert!(change(spec(first, "a"), spec(second, "b")));
    assert!(change(spec(first, "a"), spec(first, "a")));
    assert!(!change(spec(second, "b"), spec(first, "b")), "older");
    assert!(!change(spec(first, "a"), spec("1-00000000000000bb", "a")), "same number, other id");
    assert!(!change(spec(first, "a"), spec(first, "b")), "another primary in one generation");
}
