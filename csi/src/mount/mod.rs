//! File systems and mounts of this node.
//!
//! ```text
//!   Node ── Mounts ─┬─ System   system calls, mkfs.ext4, resize2fs
//!                   └─ Fake     a table in memory, for tests
//!     table.rs    /proc/self/mountinfo, parsed; which mounts show a device          pure
//!     options.rs  mount flags of a StorageClass                                     pure
//!     content.rs  what is on a device: nothing, an ext4, something else             pure
//!     format.rs   an ext4 is made whole or not at all
//! ```

mod content;
#[cfg(test)]
pub(crate) mod fake;
mod format;
mod options;
mod system;
mod table;

pub use content::Content;
pub use options::MountOptions;
pub use system::System;
pub use table::{Mount, Table};

use std::path::Path;

use crate::fault::Fault;

/// The number of a block device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DeviceNumber {
    /// Its kind.
    pub major: u32,
    /// Which of the kind.
    pub minor: u32,
}

impl std::fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// What is at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A directory.
    Directory,
    /// A block device.
    Device(DeviceNumber),
    /// Any other file.
    File,
}

/// How full something is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// All of it.
    pub total: u64,
    /// Taken.
    pub used: u64,
    /// What a pod may still take.
    pub available: u64,
}

/// A file system's usage.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FileSystemUsage {
    /// In bytes.
    pub bytes: Usage,
    /// In files.
    pub inodes: Usage,
}

/// Mounts and file systems. Every call may block; none is repeated by itself.
pub trait Mounts: Send + Sync + 'static {
    /// All mounts that this process sees.
    fn table(&self) -> Result<Table, Fault>;

    /// What is at a path.
    fn found(&self, path: &Path) -> Result<Found, Fault>;

    /// What is on a device.
    fn content(&self, device: &Path) -> Result<Content, Fault>;

    /// Makes an ext4 on a blank device: as a whole or, if it fails, not at all.
    fn format(&self, device: &Path) -> Result<(), Fault>;

    /// Mounts the ext4 of a device; the target is made.
    fn mount(&self, device: &Path, target: &Path, options: &MountOptions) -> Result<(), Fault>;

    /// Shows a directory a second time; the target is made.
    fn bind_directory(&self, source: &Path, target: &Path, read_only: bool) -> Result<(), Fault>;

    /// Shows a device node a second time; the target, a file, is made.
    fn bind_device(&self, device: &Path, target: &Path) -> Result<(), Fault>;

    /// Takes the topmost mount away from a target.
    fn unmount(&self, target: &Path) -> Result<(), Fault>;

    /// Removes a target that nothing is mounted on: an empty file or directory, nothing else. Fine if
    /// it is gone.
    fn remove(&self, target: &Path) -> Result<(), Fault>;

    /// How full the file system at a path is.
    fn usage(&self, path: &Path) -> Result<FileSystemUsage, Fault>;

    /// Grows a mounted ext4 to the size of its device; fine if it has it.
    fn grow(&self, device: &Path) -> Result<(), Fault>;
}
