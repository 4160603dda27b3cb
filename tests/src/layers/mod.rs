//! Who may import what, and the check of it.
//!
//! ```text
//!   core:   engine → attach → nbd → replication → {overlay, link} → disk → runtime → tls → units
//!           what stands side by side in braces does not know each other
//!   csi, operator   see of core:  engine::{client, api, proto}, engine::attach::{client, api, proto},
//!                                 tls, units, runtime::Address
//! ```

mod paths;

pub use paths::{Named, named_in};

use std::path::Path;

/// Each layer of core and what it may import.
const LAYERS: &[(&str, &[&str])] = &[
    ("units", &[]),
    // Deliberate bugs, false in what people run: known wherever one is.
    ("bug", &[]),
    ("tls", &["units"]),
    ("runtime", &["tls", "units"]),
    ("disk", &["bug", "runtime", "units"]),
    ("overlay", &["bug", "disk", "runtime", "units"]),
    ("link", &["disk", "runtime", "units"]),
    ("replication", &["bug", "overlay", "link", "disk", "runtime", "units"]),
    ("nbd", &["replication", "overlay", "link", "disk", "runtime", "tls", "units"]),
    // A device is a client of an engine, whichever node that is on.
    ("attach", &["nbd", "disk", "runtime", "tls", "units"]),
    (
        "engine",
        &["attach", "nbd", "replication", "overlay", "link", "disk", "runtime", "tls", "units"],
    ),
    // The simulator stands in for what lies under replication and drives what lies above it.
    ("sim", &["nbd", "replication", "overlay", "link", "disk", "runtime", "units"]),
];

/// The layers that reach the world through `disk::Host` only.
const HOST_ONLY: &[&str] = &["overlay", "link", "replication"];

/// What those layers must not name, and why.
const WORLD: &[(&[&str], &str)] = &[
    (&["std", "time", "Instant"], "time comes from Host"),
    (&["std", "time", "SystemTime"], "time comes from Host"),
    (&["std", "time", "self"], "time comes from Host"),
    (&["std", "thread"], "a group lives on one thread"),
    (&["std", "fs"], "files come from Host"),
    (&["std", "net"], "streams come from Host"),
    (&["std", "os", "unix", "net"], "streams come from Host"),
    (&["std", "process"], "nothing here starts processes"),
    (&["std", "collections", "HashMap"], "its order is random; take BTreeMap"),
    (&["std", "collections", "HashSet"], "its order is random; take BTreeSet"),
    (&["io_uring"], "the ring belongs to runtime"),
    (&["rustix"], "system calls belong to runtime and disk"),
];

/// Crates of the control plane: in `engine` and the daemon's main file only.
const CONTROL_PLANE: &[&str] = &[
    "tokio",
    "tokio_stream",
    "tonic",
    "tonic_prost",
    "tonic_health",
    "prost",
    "hyper_util",
    "tower",
];

/// What csi and operator may see of core.
const SEEN_OF_CORE: &[&[&str]] = &[
    &["engine", "client"],
    &["engine", "api"],
    &["engine", "proto"],
    &["engine", "attach", "client"],
    &["engine", "attach", "api"],
    &["engine", "attach", "proto"],
    &["tls"],
    &["units"],
    &["runtime", "Address"],
];

/// One breach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The line, from 1.
    pub line: usize,
    /// The path named there.
    pub path: String,
    /// The rule.
    pub rule: String,
}

fn begins(words: &[String], prefix: &[&str]) -> bool {
    words.len() >= prefix.len() && words.iter().zip(prefix).all(|(word, wanted)| word == wanted)
}

/// Checks one source file of core. `file` is its path under `core/src`.
pub fn check_core(file: &Path, source: &str) -> Vec<Violation> {
    let parts: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let layer = parts.first().map_or("", String::as_str);
    if ["lib", "main", "bin"].contains(&layer) {
        return Vec::new();
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
        let rule =
            format!("{layer} is no layer; name it in the table of layers, with what it imports");
        return vec![Violation { line: 1, path: layer.to_owned(), rule }];
    };
    // How many times `super` leads from this file to the crate's root.
    let depth = parts.len() - usize::from(parts.last().is_some_and(|part| part == "mod"));
    let is_test_file = parts.iter().any(|part| part == "tests" || part.ends_with("_tests"));
    let mut violations = Vec::new();
    for Named { line, words, in_test } in named_in(source) {
        let in_test = in_test || is_test_file;
        let mut report = |rule: String| {
            violations.push(Violation { line, path: words.join("::"), rule });
        };
        let climbs = words.iter().take_while(|word| *word == "super").count();
        let target = match words.first().map(String::as_str) {
            Some("crate") => words.get(1),
            Some("super") if climbs >= depth => words.get(climbs),
            _ => None,
        };
        if let Some(target) = target
            && LAYERS.iter().any(|(name, _)| name == target)
            && target != layer
            && !allowed.contains(&target.as_str())
            && !(in_test && target == "sim")
        {
            report(format!("{layer} must not import {target}"));
        }
        let first = words.first().map_or("", String::as_str);
        if CONTROL_PLANE.contains(&first) && layer != "engine" {
            report(format!("{first} belongs to engine alone"));
        }
        if HOST_ONLY.contains(&layer) && !in_test {
            for (_, why) in WORLD.iter().filter(|(path, _)| begins(&words, path)) {
                report(format!("not in {layer}: {why}"));
            }
        }
    }
    violations
}

/// Checks one source file of csi or operator.
pub fn check_dependant(source: &str) -> Vec<Violation> {
    named_in(source)
        .into_iter()
        .filter(|named| named.words.first().is_some_and(|first| first == "understudy_core"))
        .filter(|named| !SEEN_OF_CORE.iter().any(|seen| begins(&named.words[1..], seen)))
        .map(|Named { line, words, .. }| Violation {
            line,
            path: words.join("::"),
            rule: "only engine::{client, api, proto}, the same three of engine::attach, tls, \
                   units and runtime::Address of core are to be seen from here"
                .to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
