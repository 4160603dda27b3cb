//! Reads a manifest as an API server would, where none does: against the CRD's own schema and rules.
//!
//! ```text
//!   value ─► shape: names, types, patterns, bounds ─► defaults ─► CEL rules ─► T
//! ```
//!
//! One thing is stricter here: an unknown field is refused by its name. An API server drops it
//! silently unless asked (`kubectl --validate=strict`, the default for kubectl, warns).

use kube::CustomResourceExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Most problems that are listed for one object.
const PROBLEMS_MAX: usize = 20;

/// The fields of `metadata` that objects come with.
const METADATA: [&str; 11] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "generation",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "finalizers",
    "managedFields",
];

/// Turns a manifest into its type, or lists everything that is wrong with it.
pub fn read<T>(value: &Value) -> Result<T, Vec<String>>
where
    T: CustomResourceExt + DeserializeOwned + Serialize,
{
    let schema = schema_of::<T>();
    let mut problems = Vec::new();
    metadata(value.get("metadata"), &mut problems);
    shape("", &schema, value, &mut problems);
    if !problems.is_empty() {
        problems.truncate(PROBLEMS_MAX);
        return Err(problems);
    }
    let object: T = serde_json::from_value(value.clone()).map_err(|e| vec![e.to_string()])?;
    // The typed object carries the defaults, so the rules see what the API server's would see.
    let whole = serde_json::to_value(&object).map_err(|e| vec![e.to_string()])?;
    kube_cel::Validator::new().validate(&schema, &whole, None).map_err(|errors| {
        errors.into_vec().into_iter().map(|e| e.message).take(PROBLEMS_MAX).collect::<Vec<_>>()
    })?;
    Ok(object)
}

/// The OpenAPI schema of a kind's served version.
pub fn schema_of<T: CustomResourceExt>() -> Value {
    let crd = T::crd();
    let schema = crd.spec.versions.into_iter().next().and_then(|v| v.schema);
    let schema = schema.and_then(|s| s.open_api_v3_schema);
    schema.and_then(|s| serde_json::to_value(s).ok()).unwrap_or_default()
}

fn metadata(value: Option<&Value>, problems: &mut Vec<String>) {
    let Some(Value::Object(fields)) = value else {
        problems.push("metadata: missing; write metadata.name".to_owned());
        return;
    };
    for name in fields.keys().filter(|name| !METADATA.contains(&name.as_str())) {
        problems.push(unknown("metadata", name, METADATA.iter().copied()));
    }
    for (name, required) in [("name", true), ("namespace", false)] {
        match fields.get(name) {
            Some(Value::String(text)) if is_dns_name(text) => {}
            None if !required => {}
            None => problems.push(format!("metadata.{name}: missing")),
            Some(Value::String(text)) => problems.push(format!(
                "metadata.{name}: '{}' is no name: use a-z 0-9 - . and begin and end with a letter or digit",
                text.escape_debug()
            )),
            Some(other) => problems.push(mistyped(&format!("metadata.{name}"), "string", other)),
        }
    }
}

/// Whether Kubernetes takes it as an object's name.
pub fn is_dns_name(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    text.len() <= 253
        && text.chars().all(inner)
        && edge(text.chars().next())
        && edge(text.chars().last())
}

/// Holds a value against its schema and names every difference by its path.
fn shape(path: &str, schema: &Value, value: &Value, problems: &mut Vec<String>) {
    if value.is_null() && schema.get("nullable") == Some(&Value::Bool(true)) {
        return;
    }
    let wanted = schema.get("type").and_then(Value::as_str).unwrap_or("object");
    match (wanted, value) {
        ("object", Value::Object(fields)) => object(path, schema, fields, problems),
        ("array", Value::Array(items)) => array(path, schema, items, problems),
        ("string", Value::String(text)) => string(path, schema, text, problems),
        ("integer", Value::Number(n)) if n.is_i64() || n.is_u64() => {
            let least = schema.get("minimum").and_then(Value::as_f64);
            if let (Some(least), Some(n)) = (least, n.as_f64())
                && n < least
            {
                problems.push(format!("{path}: {n} is too small; at least {least}"));
            }
        }
        ("boolean", Value::Bool(_)) | ("number", Value::Number(_)) => {}
        (wanted, other) => problems.push(mistyped(path, wanted, other)),
    }
}

fn object(path: &str, schema: &Value, fields: &Map<String, Value>, problems: &mut Vec<String>) {
    let Some(known) = schema.get("properties").and_then(Value::as_object) else { return };
    for (name, value) in fields {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match known.get(name) {
            Some(schema) => shape(&below, schema, value, problems),
            // Every kind has these three, whatever its schema says.
            None if path.is_empty()
                && ["apiVersion", "kind", "metadata"].contains(&name.as_str()) => {}
            None => {
                let place = if path.is_empty() { "the object" } else { path };
                problems.push(unknown(place, name, known.keys().map(String::as_str)));
            }
        }
    }
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            problems
                .push(format!("{path}{}{name}: missing", if path.is_empty() { "" } else { "." }));
        }
    }
}

fn array(path: &str, schema: &Value, items: &[Value], problems: &mut Vec<String>) {
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
    if bound("minItems").is_some_and(|least| count < least) {
        problems.push(format!("{path}: empty; list at least one"));
    }
    if let Some(most) = bound("maxItems").filter(|most| count > *most) {
        problems.push(format!("{path}: {count} are too many; at most {most}"));
    }
    let item_schema = schema.get("items").unwrap_or(&Value::Null);
    for (index, item) in items.iter().enumerate() {
        shape(&format!("{path}[{index}]"), item_schema, item, problems);
    }
    let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
    for key in keys.into_iter().flatten().filter_map(Value::as_str) {
        let mut seen = std::collections::BTreeSet::new();
        for value in items.iter().filter_map(|item| item.get(key)) {
            if !seen.insert(value.to_string()) {
                problems.push(format!("{path}: {key} {value} is listed twice"));
            }
        }
    }
}

fn string(path: &str, schema: &Value, text: &str, problems: &mut Vec<String>) {
    let shown = || text.escape_debug().take(80).collect::<String>();
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.iter().any(|v| v.as_str() == Some(text))
    {
        let list: Vec<_> = allowed.iter().filter_map(Value::as_str).collect();
        problems.push(format!("{path}: '{}' is not one of {}", shown(), list.join(", ")));
    }
    let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    if bound("minLength").is_some_and(|least| length < least) {
        problems.push(format!("{path}: empty"));
    }
    if let Some(most) = bound("maxLength").filter(|most| length > *most) {
        problems.push(format!("{path}: {length} characters are too many; at most {most}"));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && !regex::Regex::new(pattern).is_ok_and(|r| r.is_match(text))
    {
        problems.push(format!("{path}: '{}' does not match {pattern}", shown()));
    }
}

fn mistyped(path: &str, wanted: &str, value: &Value) -> String {
    let found = match value {
        Value::Null => "nothing",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    let hint = if wanted == "string" && !value.is_object() { "; put it in quotes" } else { "" };
    format!("{path}: found {found}, expected {wanted}{hint}")
}

fn unknown<'a>(path: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.collect();
    let near = known.iter().find(|k| k.eq_ignore_ascii_case(name) || within_two_edits(k, name));
    let remedy = match near {
        Some(near) => format!("did you mean {near}?"),
        None => format!("known are {}", known.join(", ")),
    };
    format!(
        "{path}: no such field '{}'; {remedy}",
        name.escape_debug().take(80).collect::<String>()
    )
}

/// Whether two short names differ by at most two insertions, deletions or substitutions.
fn within_two_edits(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len().abs_diff(right.len()) > 2 || left.len() > 64 {
        return false;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().is_some_and(|edits| *edits <= 2)
}
