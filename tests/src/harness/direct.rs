//! A block device past the page cache: what is read is what the device has now, and a write has completed
//! when the device says so.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use understudy_core::units::usize_of;

/// What direct I/O wants its memory and its places to be a multiple of.
pub const ALIGNMENT: usize = 4096;

/// An open device.
#[derive(Debug)]
pub struct Direct(File);

/// A buffer, and where in it the aligned part begins.
fn aligned(len: usize) -> (Vec<u8>, usize) {
    let buffer = vec![0_u8; len + ALIGNMENT];
    let start = buffer.as_ptr().align_offset(ALIGNMENT);
    (buffer, start)
}

impl Direct {
    /// Opens one; `writable` only where it is to be written to.
    pub fn open(path: &Path, writable: bool) -> io::Result<Self> {
        let direct = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
        let file = File::options().read(true).write(writable).custom_flags(direct).open(path)?;
        Ok(Self(file))
    }

    /// Reads.
    pub fn read(&self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        let len = usize_of(len);
        let (mut buffer, start) = aligned(len);
        self.0.read_exact_at(&mut buffer[start..start + len], at)?;
        Ok(buffer[start..start + len].to_vec())
    }

    /// Writes.
    pub fn write(&self, at: u64, data: &[u8]) -> io::Result<()> {
        let (mut buffer, start) = aligned(data.len());
        buffer[start..start + data.len()].copy_from_slice(data);
        self.0.write_all_at(&buffer[start..start + data.len()], at)
    }

    /// Makes durable what was written.
    pub fn flush(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    /// Gives the space back; it reads as zeroes.
    pub fn discard(&self, at: u64, len: u64) -> io::Result<()> {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.0, how, at, len)?)
    }
}
