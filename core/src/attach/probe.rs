//! What this node has to make devices with: found out by trying, not by the kernel's version.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;

use rustix::mount::{FsOpenFlags, fsopen};

use super::loop_device::CONTROL;

/// A way to make a device of a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// A file of FUSE, and a loop device over it.
    FuseLoop,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FuseLoop => f.write_str("FUSE and loop"),
        }
    }
}

/// Why there is no way, and the remedy.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this node can't make devices of volumes: {0}")]
pub struct Missing(String);

/// The best way that this node has.
pub fn probe() -> Result<Backend, Missing> {
    character_device("/dev/fuse", "the kernel module fuse (modprobe fuse)")?;
    character_device(CONTROL, "the kernel module loop (modprobe loop)")?;
    let mounting = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC);
    if let Err(e) = mounting {
        return Err(Missing(format!(
            "it may not mount FUSE ({e}): it needs Linux 5.8 or newer, and CAP_SYS_ADMIN (a privileged \
             container)"
        )));
    }
    Ok(Backend::FuseLoop)
}

fn character_device(path: &str, needs: &str) -> Result<(), Missing> {
    let open = || -> io::Result<bool> {
        Ok(File::options()
            .read(true)
            .write(true)
            .open(path)?
            .metadata()?
            .file_type()
            .is_char_device())
    };
    let why = match open() {
        Ok(true) => return Ok(()),
        Ok(false) => "it is no device".to_owned(),
        Err(e) => e.to_string(),
    };
    Err(Missing(format!(
        "{path} can't be opened ({why}): it needs {needs}, root, and in a container the host's /dev"
    )))
}
