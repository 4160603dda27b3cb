//! The Go programs of the cluster: where `scripts/tools.sh` keeps them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

use crate::harness::tools::{skip, workspace};

/// What the tests on an API server alone need.
pub const T3: [&str; 5] = ["etcd", "kube-apiserver", "kubectl", "csi-sanity", "helm"];

/// What a whole cluster needs beside that.
pub const CLUSTER: [&str; 6] = [
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "csi-provisioner",
    "csi-resizer",
];

/// The directory of the programs, whether they are built or not.
pub fn directory() -> Result<PathBuf> {
    static DIRECTORY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = DIRECTORY.get_or_init(|| ask_script().map_err(|error| format!("{error:#}")));
    found.clone().map_err(|error| anyhow!(error))
}

/// The script names the directory after the pinned versions, so it is the one to ask.
fn ask_script() -> Result<PathBuf> {
    let script = workspace().join("scripts/tools.sh");
    let output = Command::new(&script).arg("--directory").output();
    let output = output.with_context(|| format!("cannot run {}", script.display()))?;
    if !output.status.success() {
        bail!("{}: {}", script.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// Where this program is; the error is one line that names the remedy.
pub fn find(program: &str) -> Result<PathBuf> {
    let path = directory()?.join(program);
    if path.is_file() {
        return Ok(path);
    }
    let tier = if T3.contains(&program) { "t3" } else { "e2e" };
    Err(anyhow!(
        "{program} is missing: run scripts/tools.sh {tier} (it needs Go and its module proxy)"
    ))
}

/// Whether all of these are there; if not, says that `test` is skipped and why.
///
/// # Panics
/// Under `CI=true`, when one is missing.
pub fn require(test: &str, programs: &[&str]) -> bool {
    for program in programs {
        if let Err(error) = find(program) {
            skip(test, &error.to_string());
            return false;
        }
    }
    true
}
