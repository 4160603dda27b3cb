//! Loop devices. They belong to the kernel and not to a node, so a node that loses power leaves them
//! behind, and a real one would not.
//!
//! ```text
//!   kubelet's lock on a block volume:  /dev/loop8 ─► /dev/loop7      (backing file: a device node)
//!   the volume's device:               /dev/loop7 ─► /understudy-…, the one file of a FUSE mount
//! ```

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Result;

use rustix::fs::{major, minor};

use super::network::run;

/// How the backing file of a volume's device begins: it lies at the root of its own FUSE mount.
const OURS: &str = "/understudy-";

/// A loop device that is attached to something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoopDevice {
    /// `/dev/loopN`.
    pub device: String,
    /// The inode of its backing file.
    pub inode: u64,
    /// `major:minor` of the file system that holds the backing file.
    pub file_system: String,
    /// Its backing file, as far as it still has a name.
    pub file: String,
}

/// Every loop device that is attached.
pub fn loop_devices() -> Result<Vec<LoopDevice>> {
    let columns = "NAME,BACK-INO,BACK-MAJ:MIN,BACK-FILE";
    Ok(parse(&run("losetup", &format!("--list --noheadings --raw --output {columns}"))?))
}

fn parse(text: &str) -> Vec<LoopDevice> {
    let device = |line: &str| {
        let mut words = line.splitn(4, ' ');
        Some(LoopDevice {
            device: words.next()?.to_owned(),
            inode: words.next()?.parse().ok()?,
            file_system: words.next()?.to_owned(),
            file: words.next().unwrap_or_default().to_owned(),
        })
    };
    text.lines().filter_map(device).collect()
}

/// The file systems of our files in FUSE that the processes of a cgroup hold, as `major:minor`. They
/// are mounted nowhere, so only descriptors lead to them.
pub(super) fn held_in(cgroup: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let inside = format!("/{cgroup}/");
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let groups = std::fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        if !groups.contains(&inside) {
            continue;
        }
        for link in std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let name = std::fs::read_link(link.path()).unwrap_or_default();
            if !name.to_string_lossy().starts_with(OURS) {
                continue;
            }
            if let Ok(file) = std::fs::metadata(link.path()) {
                let (major, minor) = (major(file.dev()), minor(file.dev()));
                found.insert(format!("{major}:{minor}"));
            }
        }
    }
    found
}

/// The devices over these file systems, and those stacked on them: the topmost first.
pub(super) fn over(file_systems: &BTreeSet<String>) -> Result<Vec<LoopDevice>> {
    let all = loop_devices()?;
    let mut found: Vec<LoopDevice> =
        all.iter().filter(|one| file_systems.contains(&one.file_system)).cloned().collect();
    let mut below = 0;
    while below < found.len() {
        let node = std::fs::metadata(&found[below].device).map(|m| m.ino()).unwrap_or_default();
        let stacked = all.iter().filter(|one| one.inode == node && !found.contains(one));
        let stacked: Vec<LoopDevice> =
            stacked.filter(|one| is_device_node(&one.file)).cloned().collect();
        found.extend(stacked);
        below += 1;
    }
    found.reverse();
    Ok(found)
}

/// Whether a backing file is a device node: its name says so, or is gone with its mount.
fn is_device_node(file: &str) -> bool {
    file.contains("/volumeDevices/") || file.starts_with("/dev/") || file == "/" || file.is_empty()
}

/// Devices whose holder died with its node: their file is named by us, or was the kubelet's over one
/// of ours.
pub(super) fn orphans(root: &Path) -> Result<Vec<LoopDevice>> {
    let root = root.display().to_string();
    let ours = |one: &&LoopDevice| one.file.starts_with(OURS) || one.file.starts_with(&root);
    let file_systems: BTreeSet<String> =
        loop_devices()?.iter().filter(ours).map(|one| one.file_system.clone()).collect();
    over(&file_systems)
}

/// Takes them apart; one that is gone already is no error.
pub(super) fn detach(devices: &[LoopDevice]) {
    for one in devices {
        let _gone = run("losetup", &format!("--detach {}", one.device));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_losetup_is_read_with_and_without_a_name() {
        let found = parse("/dev/loop0 12 0:45 /understudy-pvc-1\n/dev/loop1 7 0:6 /\n");
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].file_system, "0:45");
        assert!(!is_device_node(&found[0].file) && is_device_node(&found[1].file));
    }
}
