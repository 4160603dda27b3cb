//! Mount options of a StorageClass: flags that the kernel knows, the rest for ext4.

use rustix::mount::MountFlags;

use crate::fault::Fault;

/// The flags that may stand among the options; all others are ext4's.
const FLAGS: [(&str, MountFlags); 10] = [
    ("ro", MountFlags::RDONLY),
    ("nosuid", MountFlags::NOSUID),
    ("nodev", MountFlags::NODEV),
    ("noexec", MountFlags::NOEXEC),
    ("sync", MountFlags::SYNCHRONOUS),
    ("dirsync", MountFlags::DIRSYNC),
    ("noatime", MountFlags::NOATIME),
    ("nodiratime", MountFlags::NODIRATIME),
    ("relatime", MountFlags::RELATIME),
    ("strictatime", MountFlags::STRICTATIME),
];

/// Options that say what is so anyway, or speak to `mount` and not to the kernel.
const WITHOUT_EFFECT: [&str; 9] =
    ["", "rw", "defaults", "suid", "dev", "exec", "async", "auto", "_netdev"];

/// How to mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountOptions {
    /// The kernel's flags.
    pub flags: MountFlags,
    /// ext4's own options.
    pub data: Vec<String>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self { flags: MountFlags::empty(), data: Vec::new() }
    }
}

impl MountOptions {
    /// Parses options as they stand behind `mount -o`. They may be secret: a refusal does not repeat
    /// them.
    pub fn parse(options: &[String]) -> Result<Self, Fault> {
        let mut parsed = Self::default();
        for option in options.iter().flat_map(|option| option.split(',')) {
            if option.contains('\0') {
                return Err(Fault::invalid("a mount option holds a NUL"));
            }
            if let Some((_, flag)) = FLAGS.iter().find(|(name, _)| *name == option) {
                parsed.flags |= *flag;
            } else if ["bind", "rbind", "remount", "move"].contains(&option) {
                return Err(Fault::invalid(format!(
                    "the mount option {option} is no property of a file system: remove it"
                )));
            } else if !WITHOUT_EFFECT.contains(&option) {
                parsed.data.push(option.to_owned());
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<MountOptions, Fault> {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        MountOptions::parse(&options)
    }

    #[test]
    fn flags_go_to_the_kernel_and_the_rest_to_ext4() {
        let parsed = parse(&["noatime,nodev", "errors=remount-ro", "rw", "", "discard"]).unwrap();
        assert_eq!(parsed.flags, MountFlags::NOATIME | MountFlags::NODEV);
        assert_eq!(parsed.data, ["errors=remount-ro", "discard"]);
        assert_eq!(parse(&[]).unwrap(), MountOptions::default());
    }

    #[test]
    fn options_that_would_mount_something_else_are_refused() {
        for option in ["bind", "remount", "a\0b"] {
            assert!(parse(&[option]).is_err(), "{option:?}");
        }
    }
}
