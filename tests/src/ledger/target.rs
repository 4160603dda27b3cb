//! What a ledger is written to: an NBD export, or a file or block device by its path.

use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use understudy_core::units::usize_of;

use crate::harness::nbd::Client;
use crate::harness::nbd_address::Export;

/// One volume of a ledger.
pub enum Target {
    /// Over NBD.
    Nbd(Box<Client>),
    /// A file. A write has completed when it is on the disk, not when the page cache has it.
    File(File),
    /// A block device, past the page cache: what is read is what the device has now.
    Device(File),
}

/// What direct I/O wants its memory and its places to be a multiple of.
const ALIGNMENT: usize = 4096;

/// A buffer, and where in it the aligned part begins.
fn aligned(len: usize) -> (Vec<u8>, usize) {
    let buffer = vec![0_u8; len + ALIGNMENT];
    let start = buffer.as_ptr().align_offset(ALIGNMENT);
    (buffer, start)
}

impl Target {
    /// Opens `nbd+unix:…`, `nbd:…` or a path; `writable` only where it is to be written to.
    pub fn open(name: &str, writable: bool) -> Result<Self> {
        if name.starts_with("nbd") && name.contains("://") {
            let export: Export = name.parse()?;
            let client = Client::connect(&export);
            let client = client.with_context(|| format!("cannot connect to {name}"))?;
            return Ok(Self::Nbd(Box::new(client)));
        }
        let path = Path::new(name);
        let cannot = || format!("cannot open {name}");
        let is_device = std::fs::metadata(path).with_context(cannot)?.file_type().is_block_device();
        let mut options = File::options();
        options.read(true).write(writable);
        if is_device {
            options.custom_flags(i32::try_from(rustix::fs::OFlags::DIRECT.bits())?);
        }
        let file = options.open(path).with_context(cannot)?;
        Ok(if is_device { Self::Device(file) } else { Self::File(file) })
    }

    /// Refuses a volume on which the places do not fit.
    pub fn must_hold(&self, name: &str, end: u64) -> Result<()> {
        let size = match self {
            Self::Nbd(client) => client.size(),
            Self::File(file) => file.metadata()?.len(),
            // A block device's metadata says 0; there the first read or write will tell.
            Self::Device(_) => u64::MAX,
        };
        if size < end {
            bail!("{name}: {size} bytes long, but the ledger needs {end}; take fewer slots");
        }
        Ok(())
    }

    /// Writes, and returns when the volume says that it has completed.
    pub fn write(&mut self, offset: u64, data: &[u8], durably: bool) -> Result<()> {
        match self {
            Self::Nbd(client) if durably => Ok(client.write_durably(offset, data)?),
            Self::Nbd(client) => Ok(client.write(offset, data)?),
            Self::File(file) => {
                file.write_all_at(data, offset)?;
                Ok(file.sync_data()?)
            }
            Self::Device(file) => {
                let (mut buffer, start) = aligned(data.len());
                buffer[start..start + data.len()].copy_from_slice(data);
                file.write_all_at(&buffer[start..start + data.len()], offset)?;
                Ok(file.sync_data()?)
            }
        }
    }

    /// Reads.
    pub fn read(&mut self, offset: u64, len: u64) -> Result<Vec<u8>> {
        match self {
            Self::Nbd(client) => Ok(client.read(offset, len)?),
            Self::File(file) => {
                let mut bytes = vec![0; usize_of(len)];
                file.read_exact_at(&mut bytes, offset)?;
                Ok(bytes)
            }
            Self::Device(file) => {
                let len = usize_of(len);
                let (mut buffer, start) = aligned(len);
                file.read_exact_at(&mut buffer[start..start + len], offset)?;
                Ok(buffer[start..start + len].to_vec())
            }
        }
    }
}
