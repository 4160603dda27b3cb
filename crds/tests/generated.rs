//! The CRDs as they are committed, and what people read in them.

use serde_json::Value;
use understudy_crds::generate::{FOLDERS, definitions, files};

#[test]
fn the_committed_yaml_is_what_crdgen_writes() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for folder in FOLDERS {
        for (name, text) in files().unwrap() {
            let path = root.join(folder).join(&name);
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == text,
                "{folder}/{name} is stale; run: cargo run -p understudy-crds --bin crdgen"
            );
        }
    }
}

#[test]
fn every_field_of_every_kind_is_explained() {
    let mut silent = Vec::new();
    for crd in definitions() {
        let kind = crd.spec.names.kind.clone();
        for version in crd.spec.versions {
            let schema = version.schema.and_then(|s| s.open_api_v3_schema).unwrap();
            walk(&kind, &serde_json::to_value(schema).unwrap(), &mut silent);
            for column in version.additional_printer_columns.into_iter().flatten() {
                if column.name != "Age" && column.description.is_none() {
                    silent.push(format!("{kind} column {}", column.name));
                }
            }
        }
    }
    assert!(silent.is_empty(), "without a description: {silent:#?}");
}

fn walk(path: &str, schema: &Value, silent: &mut Vec<String>) {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    // A sentence: names that only repeat themselves explain nothing.
    if text.len() < 8 || !text.trim_end().ends_with(['.', ')']) {
        silent.push(format!("{path}: {text:?}"));
    }
    for (name, below) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        walk(&format!("{path}.{name}"), below, silent);
    }
    // The items of a list are explained with the list; their fields are not.
    let items = schema.pointer("/items/properties").and_then(Value::as_object);
    for (name, below) in items.into_iter().flatten() {
        walk(&format!("{path}[].{name}"), below, silent);
    }
}

#[test]
fn no_value_of_an_enumeration_reads_as_a_boolean_in_yaml() {
    let text: String = files().unwrap().into_iter().map(|(_, text)| text).collect();
    for line in text.lines().map(str::trim) {
        let value = line.trim_start_matches("- ").to_lowercase();
        assert!(!["yes", "no", "on", "off", "y", "n"].contains(&value.as_str()), "{line}");
    }
}

#[test]
fn schemas_are_structural_and_their_rules_compile() {
    for crd in definitions() {
        for version in crd.spec.versions {
            let schema = version.schema.and_then(|s| s.open_api_v3_schema).unwrap();
            let schema = serde_json::to_value(schema).unwrap();
            structural(&crd.spec.names.kind, &schema);
            let compiled = kube_cel::compile_schema(&schema);
            assert!(!compiled.has_errors(), "{:?}", compiled.compilation_errors());
        }
    }
}

/// What the API server demands of every node: a type, no references, no union outside the five
/// junctors, and `additionalProperties` never beside `properties`.
fn structural(path: &str, schema: &Value) {
    let Value::Object(fields) = schema else { panic!("{path} is no object: {schema}") };
    assert!(
        fields.contains_key("type") || fields.contains_key("x-kubernetes-int-or-string"),
        "{path} has no type: {schema}"
    );
    for forbidden in ["$ref", "oneOf", "anyOf", "allOf", "not", "const", "definitions", "$schema"] {
        assert!(!fields.contains_key(forbidden), "{path} has {forbidden}");
    }
    assert!(!(fields.contains_key("properties") && fields.contains_key("additionalProperties")));
    for (name, below) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        structural(&format!("{path}.{name}"), below);
    }
    if let Some(items) = schema.get("items") {
        structural(&format!("{path}[]"), items);
    }
}
