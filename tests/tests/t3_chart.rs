//! T3: the Helm chart: what it renders, what it refuses, and that a real API server takes it.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::Command;

use understudy_tests::cluster::{Bench, programs};
use understudy_tests::harness::tools::workspace;

/// The namespace and the release of the documents.
const NAMESPACE: &str = "understudy";

fn chart() -> PathBuf {
    workspace().join("charts/understudy")
}

/// Runs helm; `Err` is what it said.
fn helm(words: &[&str]) -> Result<String, String> {
    let output = Command::new(programs::find("helm").unwrap()).args(words).output().unwrap();
    let [out, err] =
        [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
    if output.status.success() { Ok(out) } else { Err(format!("{out}{err}")) }
}

fn render(more: &[&str]) -> Result<String, String> {
    let chart = chart();
    let mut words =
        vec!["template", "understudy", chart.to_str().unwrap(), "--namespace", NAMESPACE];
    // Without a cluster helm would take a version that its build names.
    words.extend(["--kube-version", "1.36.0"]);
    words.extend(more);
    helm(&words)
}

#[test]
fn helm_finds_nothing_to_complain_about() {
    if !programs::require("helm lint", &["helm"]) {
        return;
    }
    helm(&["lint", "--strict", chart().to_str().unwrap()]).unwrap();
}

/// `UPDATE_GOLDEN=1` writes the files anew; then look at the difference.
#[test]
fn the_chart_renders_what_is_committed() {
    if !programs::require("the chart's golden files", &["helm"]) {
        return;
    }
    let all = workspace().join("tests/charts/all.values.yaml");
    for (name, more) in [("defaults", &[][..]), ("all", &["--values", all.to_str().unwrap()][..])] {
        let rendered = render(more).unwrap();
        let golden = workspace().join(format!("tests/charts/{name}.golden.yaml"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &rendered).unwrap();
        }
        let committed = std::fs::read_to_string(&golden).unwrap_or_default();
        assert!(
            committed == rendered,
            "{} is stale; run with UPDATE_GOLDEN=1 and look at the difference",
            golden.display()
        );
    }
}

#[test]
fn values_that_mean_nothing_are_refused_by_name() {
    if !programs::require("the chart's schema", &["helm"]) {
        return;
    }
    for (set, word) in [
        ("colour=red", "colour"),
        ("engine.shard=2", "shard"),
        ("engine.shards=-1", "shards"),
        ("ports.api=0", "api"),
        ("ports.link=none", "link"),
        ("pool=var/lib/understudy", "pool"),
        ("kubelet.directory=/var/lib/kubelet/", "directory"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("storageClass.reclaimPolicy=Recycle", "reclaimPolicy"),
        ("storageClass.name=Under_study", "name"),
        ("operator.replicas=0", "replicas"),
        ("installation=", "installation"),
        ("metrics.enabled=perhaps", "enabled"),
        ("metrics.port=1", "port"),
    ] {
        let refusal = render(&["--set", set]).expect_err(set);
        assert!(refusal.contains(word), "{set}: wanted {word:?} in:\n{refusal}");
    }
}

#[test]
fn an_api_server_takes_every_object_as_it_stands() {
    if !programs::require("the chart on an API server", &programs::T3) {
        return;
    }
    let bench = Bench::shared().unwrap();
    let kubectl = bench.kubectl().unwrap();
    kubectl.run(["create", "namespace", NAMESPACE]).unwrap();
    let rendered = render(&[]).unwrap();
    let words = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"];
    let taken = kubectl.run_with(&rendered, words).unwrap();
    let objects = rendered.matches("\nkind: ").count();
    assert_eq!(taken.lines().count(), objects, "{taken}");
    assert!(objects > 15, "{objects}");
}

#[test]
fn the_examples_apply_as_they_stand() {
    if !programs::require("the examples on an API server", &programs::T3) {
        return;
    }
    let bench = Bench::shared().unwrap();
    let kubectl = bench.kubectl().unwrap();
    // What a cluster has by itself: an account for pods, and KubeVirt's type where that is installed.
    kubectl.run(["create", "serviceaccount", "default", "--namespace", "default"]).unwrap();
    let virtual_machines = workspace().join("tests/cluster/virtualmachines.yaml");
    kubectl.run(["apply", "-f", virtual_machines.to_str().unwrap()]).unwrap();
    let words = ["wait", "--for=condition=Established", "crd/virtualmachines.kubevirt.io"];
    kubectl.run(words).unwrap();
    let folder = workspace().join("examples/cluster");
    let mut applied = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let file = path.to_str().unwrap();
            // The namespace is in one of the files, and they come in any order.
            let _there = kubectl.run(["create", "namespace", "shop"]);
            kubectl.run(["apply", "--server-side", "--force-conflicts", "-f", file]).unwrap();
            applied += 1;
        }
    }
    assert!(applied >= 4, "{applied}");
}

#[test]
fn nothing_of_ours_may_do_everything() {
    if !programs::require("the chart's roles", &["helm"]) {
        return;
    }
    let rendered = render(&[]).unwrap();
    for wild in ["\"*\"", "'*'", "- *\n", "cluster-admin"] {
        assert!(!rendered.contains(wild), "a rule says {wild}");
    }
}
