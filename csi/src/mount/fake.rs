//! Mounts in memory: a table, the contents of devices, and which paths exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    Content, DeviceNumber, FileSystemUsage, Found, Mount, MountOptions, Mounts, Table, Usage,
};
use crate::fault::{Fault, Problem};

#[derive(Debug, Default)]
struct State {
    table: Table,
    contents: BTreeMap<PathBuf, Content>,
    paths: BTreeSet<PathBuf>,
    formatted: usize,
    grown: usize,
}

/// Mounts in memory.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    state: Mutex<State>,
}

/// `/dev/loopN` is 7:N.
pub(crate) fn number(device: &Path) -> Option<DeviceNumber> {
    let minor = device.to_str()?.strip_prefix("/dev/loop")?.parse().ok()?;
    Some(DeviceNumber { major: 7, minor })
}

impl Fake {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put_content(&self, device: &str, content: Content) {
        self.lock().contents.insert(device.into(), content);
    }

    pub(crate) fn targets(&self) -> Vec<String> {
        self.lock().table.0.iter().map(|mount| mount.target.display().to_string()).collect()
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.lock().paths.contains(Path::new(path))
    }

    pub(crate) fn formatted(&self) -> usize {
        self.lock().formatted
    }

    pub(crate) fn grown(&self) -> usize {
        self.lock().grown
    }
}

impl State {
    fn add(&mut self, device: DeviceNumber, target: &Path, read_only: bool, is_node: bool) {
        self.paths.insert(target.to_owned());
        self.table.0.push(Mount {
            device: if is_node { DeviceNumber { major: 0, minor: 5 } } else { device },
            root: "/".into(),
            target: target.to_owned(),
            read_only,
            node: is_node.then_some(device),
        });
    }
}

fn no_device(device: &Path) -> Fault {
    Fault::internal(format!("{} is no device", device.display()))
}

impl Mounts for Fake {
    fn table(&self) -> Result<Table, Fault> {
        Ok(self.lock().table.clone())
    }

    fn found(&self, path: &Path) -> Result<Found, Fault> {
        if let Some(device) = number(path) {
            return Ok(Found::Device(device));
        }
        let state = self.lock();
        if let Some(mount) = state.table.at(path) {
            return Ok(mount.node.map_or(Found::Directory, Found::Device));
        }
        let there = state.paths.contains(path);
        Ok(if there { Found::Directory } else { Found::Nothing })
    }

    fn content(&self, device: &Path) -> Result<Content, Fault> {
        Ok(self.lock().contents.get(device).cloned().unwrap_or(Content::Blank))
    }

    fn format(&self, device: &Path) -> Result<(), Fault> {
        let mut state = self.lock();
        state.formatted += 1;
        state.contents.insert(device.to_owned(), Content::Ext4);
        Ok(())
    }

    fn mount(&self, device: &Path, target: &Path, options: &MountOptions) -> Result<(), Fault> {
        let number = number(device).ok_or_else(|| no_device(device))?;
        let read_only = options.flags.contains(rustix::mount::MountFlags::RDONLY);
        self.lock().add(number, target, read_only, false);
        Ok(())
    }

    fn bind_directory(&self, source: &Path, target: &Path, read_only: bool) -> Result<(), Fault> {
        let mut state = self.lock();
        let device = state.table.at(source).map(|mount| mount.device);
        let device = device.ok_or_else(|| no_device(source))?;
        state.add(device, target, read_only, false);
        Ok(())
    }

    fn bind_device(&self, device: &Path, target: &Path) -> Result<(), Fault> {
        let number = number(device).ok_or_else(|| no_device(device))?;
        self.lock().add(number, target, false, true);
        Ok(())
    }

    fn unmount(&self, target: &Path) -> Result<(), Fault> {
        let mut state = self.lock();
        let last = state.table.0.iter().rposition(|mount| mount.target == target);
        let last = last.ok_or_else(|| {
            Fault::new(Problem::Internal, format!("{} is not mounted", target.display()))
        })?;
        state.table.0.remove(last);
        Ok(())
    }

    fn remove(&self, target: &Path) -> Result<(), Fault> {
        self.lock().paths.remove(target);
        Ok(())
    }

    fn usage(&self, _: &Path) -> Result<FileSystemUsage, Fault> {
        let usage = Usage { total: 100, used: 40, available: 60 };
        Ok(FileSystemUsage { bytes: usage, inodes: usage })
    }

    fn grow(&self, _: &Path) -> Result<(), Fault> {
        self.lock().grown += 1;
        Ok(())
    }
}
