//! What a ledger is written to: an NBD export, or a file or block device by its path.

use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use understudy_core::units::usize_of;

use crate::harness::direct::Direct;
use crate::harness::nbd::Client;
use crate::harness::nbd_address::Export;

/// One volume of a ledger.
pub enum Target {
    /// Over NBD.
    Nbd(Box<Client>),
    /// A file. A write has completed when it is on the disk, not when the page cache has it.
    File(File),
    /// A block device, past the page cache: what is read is what the device has now.
    Device(Direct),
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
        if is_device {
            return Ok(Self::Device(Direct::open(path, writable).with_context(cannot)?));
        }
        let file = File::options().read(true).write(writable).open(path);
        Ok(Self::File(file.with_context(cannot)?))
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
            Self::Device(device) => {
                device.write(offset, data)?;
                Ok(device.flush()?)
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
            Self::Device(device) => Ok(device.read(offset, len)?),
        }
    }
}
