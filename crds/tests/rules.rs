//! What is accepted and what is refused, with its message: the same schema and CEL rules that an
//! API server applies.

use serde_json::{Value, json};
use understudy_crds::strict::read;
use understudy_crds::{BlockReplication, ReplicatedVolume, ReplicationGroup};

mod cases;

fn replication(spec: &Value) -> Result<BlockReplication, String> {
    let object = json!({
        "apiVersion": "understudy.dev/v1alpha1",
        "kind": "BlockReplication",
        "metadata": { "name": "web", "namespace": "shop" },
        "spec": spec,
    });
    read(&object).map_err(|problems| problems.join("\n"))
}

#[test]
fn the_least_manifest_is_accepted_and_gets_the_defaults() {
    let object = replication(&cases::replication()).unwrap();
    let policy = &object.spec.checkpoint;
    assert_eq!(policy.interval.to_string(), "1s");
    assert_eq!(policy.undo_limit.bytes(), 256 << 20);
    assert_eq!(policy.window.bytes(), 8 << 20);
    assert_eq!(policy.max_delay.to_string(), "5s");
}

#[test]
fn everything_that_can_be_asked_for_is_accepted() {
    for spec in cases::accepted() {
        replication(&spec).unwrap();
    }
}

#[test]
fn what_is_wrong_is_named_with_its_remedy() {
    for cases::Refusal { change, reader, .. } in cases::REFUSALS {
        let mut spec = cases::replication();
        change(&mut spec);
        let refusal = replication(&spec).unwrap_err();
        assert!(refusal.contains(reader), "wanted {reader:?} in:\n{refusal}");
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
    let schema = understudy_crds::strict::schema_of::<ReplicationGroup>();
    let object = |(generation, node)| json!({ "metadata": { "name": "shop.web" }, "spec": cases::group(generation, node) });
    for cases::Change { old, new, refusal } in cases::CHANGES {
        let validator = kube_cel::Validator::new();
        let found = validator.validate(&schema, &object(*new), Some(&object(*old)));
        let found = found.map_err(|errors| {
            errors.into_vec().into_iter().map(|e| e.message).collect::<Vec<_>>().join("\n")
        });
        match refusal {
            None => assert_eq!(found, Ok(()), "{old:?} to {new:?}"),
            Some(words) => assert!(found.unwrap_err().contains(words), "{old:?} to {new:?}"),
        }
    }
}
