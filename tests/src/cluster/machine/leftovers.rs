//! Removes everything that a cluster may have left on this machine, in whatever state it ended.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::network::{BRIDGE, PREFIX, ip};
use super::{Place, loops, settings};

/// How long the kernel may take to end a pid namespace.
const PATIENCE: Duration = Duration::from_secs(20);

/// Takes all of it away. The processes are gone already: they died with their keeper.
pub fn clean(place: &Place) -> Result<()> {
    wait_for_processes(place)?;
    loops::detach(&loops::orphans()?);
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) {
            ip(&format!("netns del {name}"))?;
        }
    }
    // A namespace without a name lives on as long as the kernel has any use for it, and its link with it.
    for entry in std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // It may go by itself meanwhile.
        if name.starts_with(PREFIX)
            && ip(&format!("link del {name}")).is_err()
            && entry.path().exists()
        {
            bail!("the link {name} of an earlier cluster can't be removed");
        }
    }
    if Path::new("/sys/class/net").join(BRIDGE).exists() {
        ip(&format!("link del {BRIDGE}"))?;
    }
    // Beside version 1 there may be an empty hierarchy of version 2, which container engines use too.
    let unified = Path::new("/sys/fs/cgroup/unified").to_owned();
    for hierarchy in hierarchies().into_iter().chain([unified]) {
        for entry in std::fs::read_dir(&hierarchy).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                remove_cgroup(&entry.path());
            }
        }
    }
    settings::put_back(&place.root().join("settings.json"))?;
    match std::fs::remove_dir_all(place.root()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            bail!("cannot remove {}: {error}", place.root().display())
        }
        _ => Ok(()),
    }
}

/// Waits until no process has its working files below the cluster's directory.
fn wait_for_processes(place: &Place) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let left = processes(place);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!("processes of the cluster in {} are left: {left:?}", place.root().display());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The processes whose command line names the cluster's directory, other than commands about it.
fn processes(place: &Place) -> Vec<u32> {
    let root = format!("{}/", place.root().display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let program = line.split(' ').next().unwrap_or_default();
        let is_part =
            ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"]
                .iter()
                .chain(&["containerd", "kube-proxy", "unshare"])
                .any(|part| program.ends_with(part));
        if is_part && line.contains(&root) {
            found.push(pid);
        }
    }
    found
}

/// Where cgroups are: every hierarchy of version 1, or the one of version 2.
pub(super) fn hierarchies() -> Vec<std::path::PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| {
        entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.file_name() != "unified"
    });
    directories.map(|entry| entry.path()).collect()
}

/// Removes a cgroup with all below it. One that still holds a process stays.
pub(super) fn remove_cgroup(path: &Path) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _kept = std::fs::remove_dir(path);
}
