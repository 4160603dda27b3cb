//! T0: the layers of the architecture hold in the tree as it is.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use understudy_tests::harness::tools::workspace;
use understudy_tests::layers::{Violation, check_core, check_dependant};

/// Every `.rs` file under a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{} holds no source", directory.display());
    found
}

fn report(file: &Path, violations: &[Violation]) -> Vec<String> {
    let name = file.strip_prefix(workspace()).unwrap_or(file).display().to_string();
    let line = |v: &Violation| format!("{name}:{}: {}: {}", v.line, v.path, v.rule);
    violations.iter().map(line).collect()
}

/// The names of the packages that `package` is built from, itself included.
fn built_from(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--package", package])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// The dependencies that a package names itself, as `cargo metadata` knows them.
fn named_by(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--no-deps", "--format-version", "1"])
        .current_dir(workspace())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let own = packages.iter().find(|own| own["name"] == package).unwrap();
    let dependencies = own["dependencies"].as_array().unwrap();
    let names = dependencies.iter().map(|dependency| dependency["name"].as_str().unwrap());
    names.map(str::to_owned).collect()
}

#[test]
fn inside_core_imports_go_downward_only() {
    let root = workspace().join("core/src");
    let found: Vec<String> = sources(&root)
        .iter()
        .flat_map(|file| {
            let source = std::fs::read_to_string(file).unwrap();
            report(file, &check_core(file.strip_prefix(&root).unwrap(), &source))
        })
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn csi_and_operator_see_of_core_only_the_client_and_the_units() {
    let found: Vec<String> = ["csi/src", "operator/src"]
        .iter()
        .flat_map(|package| sources(&workspace().join(package)))
        .flat_map(|file| report(&file, &check_dependant(&std::fs::read_to_string(&file).unwrap())))
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn core_is_built_without_kubernetes() {
    let parts = built_from("understudy-core");
    assert!(parts.contains(&"understudy-core".to_owned()));
    for banned in ["kube", "kube-core", "kube-client", "k8s-openapi", "schemars", "understudy-crds"]
    {
        assert!(!parts.contains(&banned.to_owned()), "understudy-core is built from {banned}");
    }
}

#[test]
fn packages_name_only_what_their_layer_may() {
    for (package, banned) in [
        ("understudy-core", &["kube", "k8s-openapi", "schemars", "understudy-crds"][..]),
        ("understudy-crds", &["understudy-core", "tokio", "tonic", "io-uring", "rustix"]),
        // It mounts, so it may make system calls; the data plane's ring it may not.
        ("understudy-csi", &["understudy-operator", "io-uring"]),
        ("understudy-operator", &["understudy-csi", "io-uring", "rustix"]),
    ] {
        let named = named_by(package);
        for name in banned {
            assert!(!named.contains(&(*name).to_owned()), "{package} must not depend on {name}");
        }
    }
}
