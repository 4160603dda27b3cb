//! What turns requests into a block device. Today one back end; ublk and the kernel's NBD come beside it.
//!
//! ```text
//!   probe ──► Backend ── make(Plan) ──► dyn Device      path, grow, release
//! ```

use std::io;
use std::path::PathBuf;

use super::fuse_loop::FuseLoop;
use super::loop_device::Release;
use super::probe::Backend;
use super::request::Requests;

/// What a device is to be.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Which device of ours it is; found again by it when its holder is dead.
    pub(super) id: String,
    /// What people see where the kernel shows a name.
    pub(super) name: String,
    /// Its length in bytes.
    pub(super) size: u64,
    /// Its logical block.
    pub(super) block_size: u32,
    /// Whether it can't be written.
    pub(super) read_only: bool,
}

/// A block device that asks [`Requests`].
pub(super) trait Device: Send {
    /// Its node.
    fn path(&self) -> PathBuf;

    /// Its length in bytes.
    fn size(&self) -> u64;

    /// Whether the node is this device still: root can take it away from us.
    fn is_there(&self) -> bool;

    /// Makes it `size` bytes long, which is not shorter than it is.
    fn grow(&mut self, size: u64) -> io::Result<()>;

    /// Removes it if nobody has it open.
    fn release(&mut self) -> io::Result<Release>;
}

/// Makes a device.
pub(super) fn make(
    backend: Backend,
    plan: &Plan,
    requests: Requests,
) -> io::Result<Box<dyn Device>> {
    match backend {
        Backend::FuseLoop => Ok(Box::new(FuseLoop::make(plan, requests)?)),
    }
}
