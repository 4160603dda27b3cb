//! The back end for kernels with neither ublk nor NBD: a loop device over a file of FUSE.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::OFlags;

use super::device::{Device, Plan};
use super::fuse::{self, Length, OneFile};
use super::loop_device::{LoopDevice, Release, Shape, open_at};
use super::request::Requests;
use super::steps;

/// A loop device over our one file.
pub(super) struct FuseLoop {
    id: String,
    device: LoopDevice,
    length: Length,
    /// The file, without the right to read it: closing such a descriptor asks nobody.
    file: File,
}

impl FuseLoop {
    /// Makes both.
    pub(super) fn make(plan: &Plan, requests: Requests) -> io::Result<Self> {
        let (length, name) =
            (Length::new(plan.size), format!("understudy-{}-{}", plan.name, plan.id));
        let root = fuse::serve(OneFile {
            name: name.clone(),
            length: length.clone(),
            requests,
            read_only: plan.read_only,
        })?;
        steps::reached("hold.mounted");
        let file = open_at(root.as_fd(), &name, OFlags::PATH)?;
        let access = if plan.read_only { OFlags::RDONLY } else { OFlags::RDWR };
        // The loop device holds it from now on.
        let backing = open_at(root.as_fd(), &name, access)?;
        let shape = Shape { block_size: plan.block_size, read_only: plan.read_only };
        let device = LoopDevice::make(backing.as_fd(), shape)?;
        steps::reached("hold.configured");
        // Kernels say no by ignoring the flag. It would work, with everything cached twice.
        if device.about("loop/dio").is_ok_and(|dio| dio.trim() != "1") {
            tracing::warn!("{} does no direct I/O here", device.path().display());
        }
        Ok(Self { id: plan.id.clone(), device, length, file })
    }
}

impl Device for FuseLoop {
    fn path(&self) -> PathBuf {
        self.device.path()
    }

    fn size(&self) -> u64 {
        self.length.get()
    }

    fn is_there(&self) -> bool {
        self.device.is_over(&self.id)
    }

    fn grow(&mut self, size: u64) -> io::Result<()> {
        self.length.set(size.max(self.length.get()));
        // The loop device takes the length that the inode has in memory: have it asked for.
        self.file.metadata()?;
        self.device.grow()
    }

    fn release(&mut self) -> io::Result<Release> {
        self.device.release(&self.id)
    }
}
