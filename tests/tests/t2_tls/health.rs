//! `understudyd health`, as a probe runs it.

use std::process::Command;

use understudy_tests::harness::tools;

use super::{issued, pair};

fn health(arguments: &[&str]) -> (bool, String) {
    let out = Command::new(tools::own("understudyd").unwrap())
        .arg("health")
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    (out.status.success(), text)
}

#[test]
fn a_probe_hears_in_one_line_whether_an_engine_serves() {
    let directory = tempfile::tempdir().unwrap();
    let mut pair = pair(directory.path(), &[]);
    let (dir, _) = issued(pair.authority().unwrap(), "engine/a");
    let local = pair.primary.api().to_string();
    let remote = pair.primary.secure_api().unwrap().to_string();
    let dir = dir.path().to_str().unwrap();
    let (ok, text) = health(&["--api", &local]);
    assert!(ok && text.contains("serves"), "{text}");
    let (ok, text) = health(&["--api", &remote, "--tls", dir]);
    assert!(ok && text.contains("serves"), "{text}");
    let (ok, text) = health(&["--api", &remote]);
    assert!(!ok && text.contains("--tls"), "{text}");
    pair.primary.kill();
    for arguments in [&["--api", local.as_str()][..], &["--api", &remote, "--tls", dir]] {
        let (ok, text) = health(arguments);
        assert!(!ok && text.contains("is understudyd running there?"), "{text}");
    }
}
