//! T0: what the tree must look like, whatever it does.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use understudy_tests::harness::tools::workspace;

/// A file longer than this holds more than one idea.
const LINES_MAX: usize = 400;

/// Every file of the tree with this extension; what is built or fetched is left out.
fn files(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![workspace()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", ".git", ".cache"].contains(&name.as_str()) {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no .{extension} file: the walk is broken");
    found
}

fn name(path: &Path) -> String {
    path.strip_prefix(workspace()).unwrap_or(path).display().to_string()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The words behind each `marker` in `text`, up to a character that no name has.
fn behind<'a>(text: &'a str, marker: &str) -> impl Iterator<Item = &'a str> {
    let is_end = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    text.split(marker).skip(1).map(move |rest| rest.split(is_end).next().unwrap_or_default())
}

/// The targets of relative links in a Markdown text.
fn relative_links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for part in text.split("](").skip(1) {
        let target = part.split([')', '#', ' ']).next().unwrap_or_default();
        if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
            links.push(target.to_owned());
        }
    }
    links
}

#[test]
fn no_source_file_is_longer_than_one_idea() {
    let long: Vec<String> = files("rs")
        .iter()
        .map(|path| (name(path), read(path).lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(name, lines)| format!("{name}: {lines} lines, {LINES_MAX} is the most; split it"))
        .collect();
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

#[test]
fn nothing_is_left_for_later_and_no_test_is_ignored() {
    // Put together here, or this file would find itself.
    let unwanted = [["to", "do!("], ["unimple", "mented!("], ["d", "bg!("], ["#[ig", "nore"]];
    let unwanted = unwanted.map(|halves| halves.concat());
    let mut found = Vec::new();
    for path in files("rs") {
        for (index, line) in read(&path).lines().enumerate() {
            if unwanted.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {}", name(&path), index + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_test_file_is_listed_and_named_after_its_tier() {
    let listed = read(&workspace().join("tests/Cargo.toml"));
    let listed: BTreeSet<&str> = listed
        .lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .collect();
    for entry in std::fs::read_dir(workspace().join("tests/tests")).unwrap() {
        let path = entry.unwrap().path();
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        if !is_source && !path.join("main.rs").exists() {
            continue;
        }
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(listed.contains(stem.as_str()), "{stem} stands in no [[test]] of tests/Cargo.toml");
        let has_tier = ["layering", "hygiene"].contains(&stem.as_str())
            || ["t1_", "t2_", "t3_", "t4_", "t5_"].iter().any(|tier| stem.starts_with(tier));
        assert!(has_tier, "{stem}: no tier runs it; name it t1_…, t2_…");
    }
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for path in files("md") {
        for link in relative_links(&read(&path)) {
            if !path.parent().unwrap().join(&link).exists() {
                broken.push(format!("{}: {link}", name(&path)));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn commands_in_the_documents_exist() {
    let makefile = read(&workspace().join("Makefile"));
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', '.', '#']))
        .filter_map(|line| line.split_once(':').map(|(target, _)| target))
        .collect();
    for path in files("md") {
        let text = read(&path);
        for target in behind(&text, "`make ").chain(behind(&text, "\nmake ")) {
            assert!(targets.contains(target), "{}: there is no `make {target}`", name(&path));
        }
    }
}

#[test]
fn what_is_advertised_in_the_makefile_can_be_run() {
    let makefile = read(&workspace().join("Makefile"));
    for script in behind(&makefile, "scripts/") {
        let path = workspace().join("scripts").join(format!("{script}.sh"));
        assert!(path.is_file(), "Makefile calls {}, which does not exist", name(&path));
    }
    for script in files("sh").into_iter().chain([workspace().join(".ci/run")]) {
        let mode = std::fs::metadata(&script).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{} is not executable", name(&script));
    }
}

#[test]
fn the_chart_carries_the_generated_types() {
    let generated = workspace().join("crds/yaml");
    let chart = workspace().join("charts/understudy/crds");
    if !generated.is_dir() {
        return;
    }
    for entry in std::fs::read_dir(generated).unwrap() {
        let path = entry.unwrap().path();
        let copy = chart.join(path.file_name().unwrap());
        let found = std::fs::read_to_string(&copy).unwrap_or_default();
        assert_eq!(found, read(&path), "{} differs from {}: run crdgen", name(&copy), name(&path));
    }
}

/// The names of tests that a text quotes, and the scenarios that it names.
fn cited(text: &str) -> (Vec<&str>, Vec<&str>) {
    let is_test = |word: &&str| {
        word.len() >= 20 && word.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    };
    (text.split('`').filter(is_test).collect(), behind(text, "scenario `").collect())
}

#[test]
fn what_the_guide_to_recovery_says_is_shown_by_tests_that_exist() {
    let guide = read(&workspace().join("docs/recovery.md"));
    let (tests, scenarios) = cited(&guide);
    assert!(tests.len() > 20 && scenarios.len() > 3, "the guide cites next to nothing");
    let sources: String = files("rs").iter().map(|path| read(path)).collect();
    for test in tests {
        assert!(sources.contains(&format!("fn {test}(")), "there is no test {test}");
    }
    let suite = read(&workspace().join("tests/src/e2e/mod.rs"));
    for scenario in scenarios {
        assert!(suite.contains(&format!("(\"{scenario}\",")), "there is no scenario {scenario}");
    }
}

#[test]
fn what_people_run_is_built_without_deliberate_bugs() {
    // They need the simulator's feature and debug assertions; understudyd refuses them in release.
    let images = read(&workspace().join("images/Dockerfile"));
    let builds: Vec<&str> = images.lines().filter(|line| line.contains("cargo build")).collect();
    assert!(!builds.is_empty(), "images/Dockerfile builds nothing");
    for build in builds {
        assert!(
            build.contains("--release") && build.contains("--exclude understudy-tests"),
            "{build}"
        );
    }
    let manifest = read(&workspace().join("Cargo.toml"));
    assert!(!manifest.contains("debug-assertions"), "release builds keep debug assertions off");
    let core = read(&workspace().join("core/Cargo.toml"));
    assert!(!core.contains("default = "), "core has no feature that is on by itself");
    let daemon = read(&workspace().join("core/src/bin/understudyd.rs"));
    assert!(
        daemon.contains("assert!(cfg!(debug_assertions) || !understudy_core::bug::IS_POSSIBLE)")
    );
}

#[test]
fn the_checks_of_this_file_can_fail() {
    assert_eq!(
        cited("scenario `no-such` and `a_test_that_is_cited_here`, `short_one`"),
        (vec!["a_test_that_is_cited_here"], vec!["no-such"])
    );
    let text =
        "see [a](docs/a.md#part) and [b](https://x.y/z) and `make nothing-such` twice\nmake t9";
    assert_eq!(relative_links(text), ["docs/a.md"]);
    assert_eq!(behind(text, "`make ").collect::<Vec<_>>(), ["nothing-such"]);
    assert_eq!(behind(text, "\nmake ").collect::<Vec<_>>(), ["t9"]);
}
