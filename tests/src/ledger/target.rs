//! What a ledger is written to: an NBD export, or a file or block device by its path.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use understudy_core::units::usize_of;

use crate::harness::nbd::Client;
use crate::harness::nbd_address::Export;

/// One volume of a ledger.
pub enum Target {
    /// Over NBD.
    Nbd(Box<Client>),
    /// By path. A write has completed when it is on the device, not when the page cache has it.
    File(File),
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
        let file = File::options().read(true).write(writable).open(Path::new(name));
        Ok(Self::File(file.with_context(|| format!("cannot open {name}"))?))
    }

    /// Refuses a volume on which the places do not fit.
    pub fn must_hold(&self, name: &str, end: u64) -> Result<()> {
        let size = match self {
            Self::Nbd(client) => client.size(),
            // A block device's metadata says 0; there the first write will tell.
            Self::File(file) if file.metadata()?.is_file() => file.metadata()?.len(),
            Self::File(_) => u64::MAX,
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
        }
    }
}
