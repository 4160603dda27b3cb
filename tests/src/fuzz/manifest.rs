//! The standalone operator's manifests, from any text.
//!
//! ```text
//!   script:  which file(1): 0 nodes.yaml, else manifests │ text
//! ```
//!
//! Holds: documents or an error, of bounded size whatever the text refers to; names are names; a
//! BlockReplication that is read is written and read back the same; what is wanted of all is either
//! a group's or refused.

use std::collections::BTreeMap;

use serde_json::Value;
use understudy_operator::standalone::files::Document;
use understudy_operator::standalone::manifest::{Manifests, NODES_FILE};
use understudy_operator::standalone::yaml::{SIZE_MAX, VALUE_COST};
use understudy_operator::wanted::wanted;

use super::input::{Input, Script};

/// What a value costs at most of what a text may stand for.
fn cost(value: &Value) -> usize {
    VALUE_COST
        + match value {
            Value::Array(items) => items.iter().map(cost).sum(),
            Value::Object(fields) => fields.iter().map(|(k, v)| k.len() + cost(v)).sum(),
            Value::String(text) => text.len(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

fn documents(bytes: &[u8]) -> Result<Vec<Document>, String> {
    let mut input = Input(bytes);
    let file = if input.u8() == 0 { NODES_FILE } else { "a.yaml" };
    let text = String::from_utf8_lossy(input.rest());
    Document::read(file, &text)
}

/// The target.
pub fn manifest(bytes: &[u8]) {
    let documents = match documents(bytes) {
        Ok(documents) => documents,
        Err(why) => return assert!(!why.is_empty()),
    };
    let size: usize = documents.iter().map(|d| cost(&d.value)).sum();
    // A number that is a key becomes text.
    assert!(size <= 2 * SIZE_MAX, "{} bytes became {size}", bytes.len());
    let manifests = Manifests::read(&documents);
    let objects = manifests.objects(&BTreeMap::new());
    assert!(objects.len() + manifests.problems.len() <= documents.len());
    for (name, object) in &manifests.replications {
        for part in [&name.namespace, &name.name] {
            assert!(!part.is_empty() && !part.contains('/'), "{name} becomes a file's name");
        }
        let Ok(object) = object else { continue };
        let value = serde_json::to_value(object).unwrap();
        let again = Manifests::read(&[Document { file: "b.yaml".to_owned(), value }]);
        assert_eq!(again.problems, []);
        assert_eq!(again.replications.get(name), Some(&Ok(object.clone())), "{name}");
    }
    let wanted = wanted(&objects, &manifests, &[]);
    assert_eq!(wanted.groups.len() + wanted.refused.len(), objects.len());
}

pub(super) fn reaches(bytes: &[u8]) -> bool {
    let Ok(documents) = documents(bytes) else { return false };
    let manifests = Manifests::read(&documents);
    manifests.problems.is_empty()
        && (!manifests.nodes.is_empty() || !manifests.replications.is_empty())
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let nodes = "nodes:\n- {name: node-a, engine: 'unix:/run/a', link: 'tcp:127.0.0.1:7000'}\n\
                 - {name: node-b, engine: 'tcp:127.0.0.1:7001'}\n";
    let claims = "apiVersion: understudy.dev/v1alpha1\nkind: BlockReplication\n\
                  metadata: {name: web, namespace: shop}\nspec:\n  source:\n    \
                  persistentVolumeClaims: [&a {name: web-root}, {name: web-data}]\n  \
                  primary: {node: node-a}\n  secondary: {node: node-b}\n  \
                  checkpoint: {interval: 1s, undoLimit: 64Mi}\n---\napiVersion: v1\n\
                  kind: PersistentVolumeClaim\nmetadata: {name: web-root, namespace: shop}\n\
                  spec: {resources: {requests: {storage: 64Mi}}}\n";
    let machine = "apiVersion: understudy.dev/v1alpha1\nkind: BlockReplication\n\
                   metadata: {name: db}\nspec: {source: {virtualMachine: {name: db}}, \
                   mode: Checkpointed, checkpoint: {maxDelay: 2s, window: 16Mi}}\n---\n\
                   apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {name: db}\n\
                   spec: {template: {spec: {volumes: [{name: t, persistentVolumeClaim: \
                   {claimName: t}}]}}}\n";
    let text = |file, text: &str| Script::default().u8(file).raw(text.as_bytes()).0;
    vec![("nodes", text(0, nodes)), ("claims", text(1, claims)), ("machine", text(1, machine))]
}
