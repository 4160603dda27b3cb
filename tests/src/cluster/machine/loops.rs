//! Loop devices. They belong to the kernel and not to a node, so a node that loses power leaves them
//! behind, and a real one would not.
//!
//! ```text
//!   kubelet's lock on a block volume:  /dev/loop8 ─► /dev/loop7      (backing file: a device node)
//!   the volume's device:               /dev/loop7 ─► /understudy-…, the one file of a FUSE mount
//! ```
//!
//! A volume's file has a name of its own for each device. Once its holder is dead, the name is all
//! that the kernel still tells of it.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;

use super::network::run;

/// How the backing file of a volume's device begins: it lies at the root of its own FUSE mount.
const OURS: &str = "/understudy-";

/// A loop device that is attached to something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoopDevice {
    /// `/dev/loopN`.
    pub device: String,
    /// The inode of its backing file, as long as that can be asked.
    pub inode: Option<u64>,
    /// Its backing file.
    pub file: String,
}

/// Every loop device that is attached.
pub fn loop_devices() -> Result<Vec<LoopDevice>> {
    Ok(parse(&run("losetup", "--list --noheadings --raw --output NAME,BACK-INO,BACK-FILE")?))
}

fn parse(text: &str) -> Vec<LoopDevice> {
    let device = |line: &str| {
        let mut words = line.splitn(3, ' ');
        Some(LoopDevice {
            device: words.next()?.to_owned(),
            inode: words.next()?.parse().ok(),
            file: words.next().unwrap_or_default().trim().to_owned(),
        })
    };
    text.lines().filter_map(device).collect()
}

/// The volumes' files that processes hold: those of a cgroup, or of all.
pub(super) fn held(cgroup: Option<&str>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(name) = cgroup {
            let groups = std::fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
            if !groups.contains(&format!("/{name}/")) {
                continue;
            }
        }
        for link in std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let file = std::fs::read_link(link.path()).unwrap_or_default();
            let file = file.to_string_lossy();
            if file.starts_with(OURS) {
                found.insert(file.into_owned());
            }
        }
    }
    found
}

/// The devices over these files, and those stacked on them: the topmost first.
pub(super) fn over(files: &BTreeSet<String>) -> Result<Vec<LoopDevice>> {
    let all = loop_devices()?;
    let mut found: Vec<LoopDevice> =
        all.iter().filter(|one| files.contains(&one.file)).cloned().collect();
    let mut below = 0;
    while below < found.len() {
        let node = std::fs::metadata(&found[below].device).map(|m| m.ino()).ok();
        let stacked = all.iter().filter(|one| {
            node.is_some() && one.inode == node && is_device_node(&one.file) && !found.contains(one)
        });
        let stacked: Vec<LoopDevice> = stacked.cloned().collect();
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

/// Devices over a volume's file that nobody holds any more, and those stacked on them.
pub(super) fn orphans() -> Result<Vec<LoopDevice>> {
    let held = held(None);
    let ours = |one: &&LoopDevice| one.file.starts_with(OURS) && !held.contains(&one.file);
    let files: BTreeSet<String> =
        loop_devices()?.iter().filter(ours).map(|one| one.file.clone()).collect();
    over(&files)
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
    fn the_list_of_losetup_is_read_with_and_without_an_inode() {
        let found = parse("/dev/loop0  /understudy-pvc-1-ab\n/dev/loop1 96 /\n");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].inode, found[0].file.as_str()), (None, "/understudy-pvc-1-ab"));
        assert_eq!((found[1].inode, found[1].file.as_str()), (Some(96), "/"));
        assert!(!is_device_node(&found[0].file) && is_device_node(&found[1].file));
    }
}
