//! What a manifest may say and what not, with the words of the refusal: asked of the reader of
//! manifests in this crate's own tests, and of a real API server in the tests of the whole.

#![allow(dead_code, reason = "each test that includes this file uses a part of it")]

use serde_json::{Value, json};

/// One change of a good spec that makes it wrong.
pub(crate) struct Refusal {
    /// The change.
    pub(crate) change: fn(&mut Value),
    /// What the reader of manifests says to it.
    pub(crate) reader: &'static str,
    /// What an API server says to it. A CEL rule has its own message, the same in both.
    pub(crate) server: &'static str,
}

/// A BlockReplication's least spec.
pub(crate) fn replication() -> Value {
    json!({
        "source": { "persistentVolumeClaims": [{ "name": "root" }, { "name": "data" }] },
        "secondary": { "node": "node-b" },
    })
}

/// Specs of a BlockReplication that are accepted.
pub(crate) fn accepted() -> Vec<Value> {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut spec = replication();
        change(&mut spec);
        spec
    };
    vec![
        replication(),
        with(&|s| {
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
        }),
        with(&|s| s["source"] = json!({ "virtualMachine": { "name": "vm" } })),
        with(&|s| s["checkpoint"] = json!({ "interval": "10ms", "maxDelay": "10ms" })),
        with(&|s| s["checkpoint"] = json!({ "interval": "24h", "maxDelay": "60s" })),
        with(&|s| {
            s["checkpoint"] = json!({ "whenUndoFull": "DropCheckpoint", "activeLimit": "1Mi" });
            s["resync"] = json!({ "floor": "64Ki", "ceiling": "64Ki" });
        }),
        with(&|s| s["checkpoint"] = json!({ "window": "64Ki", "undoLimit": "1Mi" })),
    ]
}

/// Each wrong change of a BlockReplication.
pub(crate) const REFUSALS: &[Refusal] = &[
    rule(|s| s["source"] = json!({}), "exactly one of virtualMachine and persistentVolumeClaims"),
    rule(
        |s| s["source"]["virtualMachine"] = json!({ "name": "vm" }),
        "exactly one of virtualMachine",
    ),
    rule(
        |s| s["primary"] = json!({ "node": "node-b" }),
        "must differ: a copy on the same node dies with it",
    ),
    rule(
        |s| s["checkpoint"] = json!({ "interval": "5ms" }),
        "0s (only on demand) or between 10ms and 24h",
    ),
    rule(
        |s| s["checkpoint"] = json!({ "interval": "25h" }),
        "0s (only on demand) or between 10ms and 24h",
    ),
    rule(
        |s| s["checkpoint"] = json!({ "maxDelay": "61s" }),
        "maxDelay must be between 10ms and 60s",
    ),
    rule(
        |s| s["checkpoint"] = json!({ "maxDelay": "0s" }),
        "maxDelay must be between 10ms and 60s",
    ),
    rule(|s| s["checkpoint"] = json!({ "window": "4Ki" }), "window must be between 64Ki"),
    rule(
        |s| s["checkpoint"] = json!({ "undoLimit": "1Mi" }),
        "undoLimit must be at least spec.checkpoint.window",
    ),
    rule(
        |s| s["checkpoint"] = json!({ "window": "2Gi", "undoLimit": "4Gi" }),
        "window must be between 64Ki",
    ),
    rule(
        |s| s["checkpoint"] = json!({ "undoLimit": "2Ti" }),
        "undoLimit must be between 1Mi and 1Ti",
    ),
    rule(
        |s| s["checkpoint"] = json!({ "activeLimit": "4Ki" }),
        "activeLimit must be between 1Mi and 1Ti",
    ),
    rule(|s| s["resync"] = json!({ "floor": "1Ki" }), "floor must be between 64Ki and 1Ti"),
    rule(
        |s| s["resync"] = json!({ "floor": "8Mi", "ceiling": "4Mi" }),
        "ceiling must be at least spec.resync.floor",
    ),
    Refusal {
        change: |s| s["source"]["persistentVolumeClaims"] = json!([]),
        reader: "source.persistentVolumeClaims: empty",
        server: "spec.source.persistentVolumeClaims in body should have at least 1 items",
    },
    Refusal {
        change: |s| {
            s["source"]["persistentVolumeClaims"] = json!([{ "name": "a" }, { "name": "a" }]);
        },
        reader: "name \"a\" is listed twice",
        server: "Duplicate value",
    },
    Refusal {
        change: |s| s["source"]["persistentVolumeClaims"] = json!(["root"]),
        reader: "found string, expected object",
        server: "must be of type object",
    },
    Refusal {
        change: |s| s["checkpoint"] = json!({ "intervall": "1s" }),
        reader: "spec.checkpoint: no such field 'intervall'; did you mean interval?",
        server: "unknown field \"spec.checkpoint.intervall\"",
    },
    Refusal {
        change: |s| s["colour"] = json!("red"),
        reader: "spec: no such field 'colour'; known are",
        server: "unknown field \"spec.colour\"",
    },
    Refusal {
        change: |s| s["checkpoint"] = json!({ "interval": 1 }),
        reader: "spec.checkpoint.interval: found number, expected string; put it in quotes",
        server: "spec.checkpoint.interval in body must be of type string",
    },
    Refusal {
        change: |s| s["checkpoint"] = json!({ "interval": "1" }),
        reader: "spec.checkpoint.interval: '1' does not match",
        server: "spec.checkpoint.interval in body should match",
    },
    Refusal {
        change: |s| s["checkpoint"] = json!({ "undoLimit": "1.5Gi" }),
        reader: "does not match",
        server: "spec.checkpoint.undoLimit in body should match",
    },
    Refusal {
        change: |s| s["mode"] = json!("synchronous"),
        reader: "'synchronous' is not one of Checkpointed, Synchronous",
        server: "supported values: \"Checkpointed\", \"Synchronous\"",
    },
    Refusal {
        change: |s| s["failover"] = json!({ "policy": "Automatic" }),
        reader: "'Automatic' is not one of Manual",
        server: "supported values: \"Manual\"",
    },
    Refusal {
        change: |s| {
            s["failover"] = json!({ "trigger": { "generation": "1", "target": "node-b" } });
        },
        reader: "spec.failover.trigger.generation: '1' does not match",
        server: "spec.failover.trigger.generation in body should match",
    },
    Refusal {
        change: |s| s["failover"] = json!({ "trigger": { "target": "node-b" } }),
        reader: "spec.failover.trigger.generation: missing",
        server: "spec.failover.trigger.generation: Required value",
    },
    Refusal {
        change: |s| s["secondary"] = json!({ "node": "../b" }),
        reader: "spec.secondary.node: '../b' does not match",
        server: "spec.secondary.node in body should match",
    },
];

/// A refusal by a CEL rule.
const fn rule(change: fn(&mut Value), message: &'static str) -> Refusal {
    Refusal { change, reader: message, server: message }
}

/// A ReplicationGroup's spec.
pub(crate) fn group(generation: &str, node: &str) -> Value {
    json!({
        "owner": { "namespace": "shop", "name": "web" },
        "generation": generation,
        "members": [{ "volume": "root", "sizeBytes": 4096 }],
        "primary": { "node": node, "pool": "00" },
    })
}

/// A change of a group object.
pub(crate) struct Change {
    /// From this generation on this node.
    pub(crate) old: (&'static str, &'static str),
    /// To that one.
    pub(crate) new: (&'static str, &'static str),
    /// The refusal's words; `None`: it is accepted.
    pub(crate) refusal: Option<&'static str>,
}

/// Changes of a group object, right and wrong.
pub(crate) const CHANGES: &[Change] = &[
    Change { old: (FIRST, "a"), new: (SECOND, "b"), refusal: None },
    Change { old: (FIRST, "a"), new: (SECOND, "a"), refusal: None },
    Change { old: (FIRST, "a"), new: (FIRST, "a"), refusal: None },
    Change { old: (SECOND, "b"), new: (FIRST, "b"), refusal: Some("never goes back") },
    Change {
        old: (SECOND, "a"),
        new: ("3-00000000000000cc", "a"),
        refusal: Some("another id needs a greater number"),
    },
    Change {
        old: (FIRST, "a"),
        new: (FIRST, "b"),
        refusal: Some("another primary needs another spec.generation"),
    },
];
const FIRST: &str = "1-00000000000000aa";
const SECOND: &str = "3-00000000000000bb";
