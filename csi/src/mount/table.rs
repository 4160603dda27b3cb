//! The kernel's list of mounts.
//!
//! ```text
//!   /proc/self/mountinfo:
//!   36 35 7:0 / /var/lib/kubelet/…/globalmount rw,noatime shared:1 - ext4 /dev/loop0 rw,errors=…
//!         │   │  target, octal escapes          options           │  type
//!         │   └ what of the file system is shown there            └ a lone dash ends optional fields
//!         └ the device
//!   40 23 0:5 /loop0 /var/lib/kubelet/…/publish/pvc-1/uid rw - devtmpfs devtmpfs rw      a device node
//! ```

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::DeviceNumber;

/// One mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// The device of the file system.
    pub device: DeviceNumber,
    /// What of the file system is shown.
    pub root: PathBuf,
    /// Where.
    pub target: PathBuf,
    /// It can't be written through this mount.
    pub read_only: bool,
    /// If it is a single device node that is shown: which device that is.
    pub node: Option<DeviceNumber>,
}

impl Mount {
    /// Whether it shows this device: its file system or its node.
    pub fn shows(&self, device: DeviceNumber) -> bool {
        self.device == device || self.node == Some(device)
    }
}

/// All mounts, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table(pub Vec<Mount>);

impl Table {
    /// Parses `mountinfo`; lines that are none are left out. `node` is asked for what may be a device
    /// node that is shown alone.
    pub fn parse(text: &[u8], node: impl Fn(&Path) -> Option<DeviceNumber>) -> Self {
        let lines = text.split(|byte| *byte == b'\n').filter_map(mount);
        Self(
            lines
                .map(|mount| {
                    // Only files are shown under a root that is not a directory; asking for each and
                    // every target could hang at a dead network mount.
                    let looks_like_node = mount.root.file_name().is_some_and(looks_like_block);
                    let node = if looks_like_node { node(&mount.target) } else { None };
                    Mount { node, ..mount }
                })
                .collect(),
        )
    }

    /// What one sees at a target: the mount that was made last.
    pub fn at(&self, target: &Path) -> Option<&Mount> {
        self.0.iter().rev().find(|mount| mount.target == target)
    }

    /// The mounts that show a device.
    pub fn of(&self, device: DeviceNumber) -> impl Iterator<Item = &Mount> {
        self.0.iter().filter(move |mount| mount.shows(device))
    }

    /// The mounts that show a device elsewhere than at one of these.
    pub fn users<'a>(
        &'a self,
        device: DeviceNumber,
        but: &'a [&'a Path],
    ) -> impl Iterator<Item = &'a Mount> {
        self.of(device).filter(move |mount| !but.contains(&mount.target.as_path()))
    }

    /// Where a device is published beside these, the kubelet's own mounts of it left out.
    pub fn publications<'a>(
        &'a self,
        device: DeviceNumber,
        but: &'a [&'a Path],
    ) -> impl Iterator<Item = &'a Mount> {
        self.users(device, but).filter(|mount| !is_kubelets(&mount.target))
    }
}

/// What the kubelet makes itself of what we have published: a map of block devices for each pod, and
/// parts of directories.
fn is_kubelets(target: &Path) -> bool {
    let parts: Vec<_> = target.iter().collect();
    parts.contains(&std::ffi::OsStr::new("volume-subpaths"))
        || parts.windows(4).any(|w| w[0] == "volumeDevices" && w[2] == "dev")
        || parts.windows(2).any(|w| w[0] == "volumeDevices" && w[1] == "kubernetes.io~csi")
}

fn looks_like_block(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    ["loop", "ublkb", "nbd"].iter().any(|kind| name.starts_with(kind))
}

fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.nth(2)?;
    let (root, target, options) = (fields.next()?, fields.next()?, fields.next()?);
    let (major, minor) = std::str::from_utf8(device).ok()?.split_once(':')?;
    Some(Mount {
        device: DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? },
        root: unescape(root),
        target: unescape(target),
        read_only: options.split(|byte| *byte == b',').any(|option| option == b"ro"),
        node: None,
    })
}

/// Blanks, tabs, line ends and backslashes stand as a backslash and three octal digits.
fn unescape(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *first == b'\\').and_then(octal);
        if let Some(byte) = octal {
            out.push(byte);
            rest = tail.get(3..).unwrap_or_default();
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

fn octal(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(text, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOP: DeviceNumber = DeviceNumber { major: 7, minor: 3 };
    const STAGING: &str =
        "/var/lib/kubelet/plugins/kubernetes.io/csi/csi.understudy.dev/ab/globalmount";

    fn table(text: &str) -> Table {
        Table::parse(text.as_bytes(), |_| Some(LOOP))
    }

    fn example() -> Table {
        table(&format!(
            "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
             31 22 7:3 / {STAGING} rw,noatime shared:9 master:2 - ext4 /dev/loop3 rw\n\
             32 22 7:3 / /var/lib/kubelet/pods/u1/volumes/kubernetes.io~csi/pvc-1/mount ro - ext4 /dev/loop3 rw\n\
             33 22 7:3 /sub /var/lib/kubelet/pods/u1/volume-subpaths/pvc-1/c/0 rw - ext4 /dev/loop3 rw\n\
             34 22 7:4 / /other rw - ext4 /dev/loop4 rw\n"
        ))
    }

    #[test]
    fn the_mounts_of_a_device_are_found_with_their_options() {
        let table = example();
        assert_eq!(table.of(LOOP).count(), 3);
        assert!(!table.at(Path::new(STAGING)).unwrap().read_only);
        assert_eq!(table.at(Path::new("/nowhere")), None);
        let staging = [Path::new(STAGING)];
        let publications: Vec<_> = table.publications(LOOP, &staging).collect();
        assert_eq!(publications.len(), 1);
        assert!(publications[0].read_only);
        assert_eq!(table.users(LOOP, &staging).count(), 2);
    }

    #[test]
    fn a_device_node_that_is_shown_alone_counts_as_its_device() {
        let publish = "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/publish/pvc-1/u1";
        let mapped = "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/pvc-1/dev/u1";
        let table = table(&format!(
            "40 23 0:5 /loop3 {publish} rw - devtmpfs devtmpfs rw\n\
             41 23 0:5 /loop3 {mapped} rw - devtmpfs devtmpfs rw\n\
             42 23 0:5 / /dev rw - devtmpfs devtmpfs rw\n"
        ));
        assert_eq!(table.of(LOOP).count(), 2);
        let publications: Vec<_> = table.publications(LOOP, &[]).collect();
        assert_eq!(publications.len(), 1, "the kubelet's own map is none");
        assert_eq!(publications[0].target, Path::new(publish));
    }

    #[test]
    fn the_last_mount_at_a_target_is_what_one_sees() {
        let table = table("1 0 7:1 / /t rw - ext4 a rw\n2 1 7:2 / /t ro - ext4 b rw\n");
        assert_eq!(table.at(Path::new("/t")).unwrap().device.minor, 2);
    }

    #[test]
    fn blanks_in_paths_are_read_as_the_kernel_writes_them() {
        let table = table("1 0 7:1 / /a\\040b\\134c rw - ext4 a rw\n");
        assert!(table.at(Path::new("/a b\\c")).is_some());
    }

    #[test]
    fn lines_that_are_none_are_left_out() {
        assert_eq!(table("\nnonsense\n1 2 x:y / /t rw - a b c\n1 2 7:1 /\n"), Table::default());
    }
}
