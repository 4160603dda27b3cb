//! A device whose holder is dead: killed, or the machine was started anew.
//!
//! ```text
//!   no loop device of its name        nothing is left in the kernel
//!   one, and nobody has it open       released
//!   one, in use                       stays: it fails every request, and its number stays taken
//! ```

use std::io;
use std::path::PathBuf;

use super::loop_device::{LoopDevice, Release};

/// What was left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cleared {
    /// Nothing is.
    Nothing,
    /// Its device, which somebody has open.
    InUse(PathBuf),
}

/// The device that is left of `id`, if there is one, and its length in bytes.
pub fn find(id: &str) -> io::Result<Option<(PathBuf, u64)>> {
    Ok(LoopDevice::find(id)?.map(|device| {
        let sectors =
            device.about("size").ok().and_then(|s| s.trim().parse().ok()).unwrap_or(0_u64);
        (device.path(), sectors * 512)
    }))
}

/// Removes what is left of `id`, unless it is in use.
pub fn clear(id: &str) -> io::Result<Cleared> {
    let Some(device) = LoopDevice::find(id)? else { return Ok(Cleared::Nothing) };
    Ok(match device.release(id)? {
        Release::Done => Cleared::Nothing,
        Release::InUse => Cleared::InUse(device.path()),
    })
}
