//! Mounts by system calls; file systems by e2fsprogs.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags, StatVfs, StatVfsMountFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use super::content::{Content, LOOK, content};
use super::{DeviceNumber, FileSystemUsage, Found, MountOptions, Mounts, Table, Usage, format};
use crate::fault::{Fault, Problem};

/// Where the kernel lists the mounts of this process.
const TABLE: &str = "/proc/self/mountinfo";

/// The file system that is mounted.
const EXT4: &str = "ext4";

/// This node, as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

fn failed(what: &str, path: &Path, error: impl Into<io::Error>) -> Fault {
    let error = error.into();
    let problem = match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        // A failing or vanished device, and something that is just being used: try again.
        Some(rustix::io::Errno::IO | rustix::io::Errno::BUSY | rustix::io::Errno::NXIO) => {
            Problem::Unavailable
        }
        _ => Problem::Internal,
    };
    Fault::new(problem, format!("can't {what} {}: {error}", path.display()))
}

fn device_number(number: u64) -> DeviceNumber {
    DeviceNumber { major: rustix::fs::major(number), minor: rustix::fs::minor(number) }
}

fn make_directory(path: &Path) -> Result<(), Fault> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o750).create(path);
    made.map_err(|e| failed("make the directory", path, e))
}

fn length(file: &File, path: &Path) -> Result<u64, Fault> {
    rustix::fs::seek(file, rustix::fs::SeekFrom::End(0))
        .map_err(|e| failed("read the size of", path, e))
}

fn look(file: &File, path: &Path) -> Result<Content, Fault> {
    let len = length(file, path)?;
    let piece = usize::try_from(len).unwrap_or(LOOK).min(LOOK);
    let (mut first, mut last) = (vec![0; piece], vec![0; piece]);
    let behind = u64::try_from(piece).unwrap_or(0);
    file.read_exact_at(&mut first, 0).map_err(|e| failed("read", path, e))?;
    file.read_exact_at(&mut last, len - behind).map_err(|e| failed("read", path, e))?;
    Ok(content(&first, &last))
}

fn flags_of(stat: &StatVfs) -> MountFlags {
    [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ]
    .into_iter()
    .filter(|(set, _)| stat.f_flag.contains(*set))
    .fold(MountFlags::empty(), |flags, (_, flag)| flags | flag)
}

impl Mounts for System {
    fn table(&self) -> Result<Table, Fault> {
        let table = Path::new(TABLE);
        let text = std::fs::read(table).map_err(|e| failed("read", table, e))?;
        Ok(Table::parse(&text, |target| {
            let metadata = std::fs::symlink_metadata(target).ok()?;
            metadata.file_type().is_block_device().then(|| device_number(metadata.rdev()))
        }))
    }

    fn found(&self, path: &Path) -> Result<Found, Fault> {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(Found::Directory),
            Ok(metadata) if metadata.file_type().is_block_device() => {
                Ok(Found::Device(device_number(metadata.rdev())))
            }
            Ok(_) => Ok(Found::File),
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                Ok(Found::Nothing)
            }
            Err(e) => Err(failed("look at", path, e)),
        }
    }

    fn content(&self, device: &Path) -> Result<Content, Fault> {
        let file = File::open(device).map_err(|e| failed("open", device, e))?;
        look(&file, device)
    }

    fn format(&self, device: &Path) -> Result<(), Fault> {
        // Exclusive: the kernel refuses it while the device is mounted.
        let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
        let opened = rustix::fs::open(device, flags, Mode::empty());
        let file = File::from(opened.map_err(|e| failed("open", device, e))?);
        match look(&file, device)? {
            Content::Blank | Content::Unfinished => {}
            Content::Ext4 => return Ok(()),
            Content::Foreign(what) => {
                let text = format!("{} holds {what}: it is not formatted", device.display());
                return Err(Fault::wrong_state(text));
            }
        }
        format::make(&file, length(&file, device)?)
    }

    fn mount(&self, device: &Path, target: &Path, options: &MountOptions) -> Result<(), Fault> {
        make_directory(target)?;
        let data = CString::new(options.data.join(","))
            .map_err(|_| Fault::invalid("a mount option holds a NUL"))?;
        rustix::mount::mount(device, target, EXT4, options.flags, Some(data.as_c_str())).map_err(
            |e| match e {
                rustix::io::Errno::INVAL => Fault::wrong_state(format!(
                    "the kernel refuses to mount the ext4 of {} at {}: look at the StorageClass's mountOptions, and at the kernel's log for damage",
                    device.display(),
                    target.display()
                )),
                rustix::io::Errno::NODEV => Fault::wrong_state(
                    "the kernel of this node has no ext4: load its module".to_owned(),
                ),
                other => failed("mount the ext4 at", target, other),
            },
        )
    }

    fn bind_directory(&self, source: &Path, target: &Path, read_only: bool) -> Result<(), Fault> {
        make_directory(target)?;
        rustix::mount::mount_bind(source, target).map_err(|e| failed("bind to", target, e))?;
        if !read_only {
            return Ok(());
        }
        // The kernel takes the flags of a bind mount in a second step, and all of them.
        let remounted = rustix::fs::statvfs(source).and_then(|stat| {
            let flags = flags_of(&stat) | MountFlags::BIND | MountFlags::RDONLY;
            rustix::mount::mount_remount(target, flags, "")
        });
        remounted.map_err(|e| {
            // A target that can be written must not stay.
            let _busy = rustix::mount::unmount(target, UnmountFlags::DETACH);
            failed("make read-only", target, e)
        })
    }

    fn bind_device(&self, device: &Path, target: &Path) -> Result<(), Fault> {
        if let Some(parent) = target.parent() {
            make_directory(parent)?;
        }
        let created = OpenOptions::new().create(true).append(true).mode(0o640).open(target);
        created.map_err(|e| failed("make the file", target, e))?;
        rustix::mount::mount_bind(device, target).map_err(|e| failed("bind to", target, e))
    }

    fn unmount(&self, target: &Path) -> Result<(), Fault> {
        rustix::mount::unmount(target, UnmountFlags::NOFOLLOW)
            .map_err(|e| failed("unmount", target, e))
    }

    fn remove(&self, target: &Path) -> Result<(), Fault> {
        let metadata = match std::fs::symlink_metadata(target) {
            Ok(metadata) => metadata,
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                return Ok(());
            }
            Err(e) => return Err(failed("look at", target, e)),
        };
        if metadata.is_dir() {
            // Fails unless it is empty: what somebody has put there is not ours.
            return std::fs::remove_dir(target).map_err(|e| failed("remove", target, e));
        }
        if metadata.is_file() && metadata.len() == 0 {
            return std::fs::remove_file(target).map_err(|e| failed("remove", target, e));
        }
        Err(Fault::wrong_state(format!(
            "{} is not what this driver put there: move it away",
            target.display()
        )))
    }

    fn usage(&self, path: &Path) -> Result<FileSystemUsage, Fault> {
        let stat = rustix::fs::statvfs(path).map_err(|e| failed("look at", path, e))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(FileSystemUsage {
            bytes: Usage {
                total: bytes(stat.f_blocks),
                used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
                available: bytes(stat.f_bavail),
            },
            inodes: Usage {
                total: stat.f_files,
                used: stat.f_files.saturating_sub(stat.f_ffree),
                available: stat.f_favail,
            },
        })
    }

    fn grow(&self, device: &Path) -> Result<(), Fault> {
        let grown = format::run("resize2fs", [device.to_string_lossy().as_ref()]);
        grown.map_err(|fault| {
            if !fault.message.contains("Permission denied") {
                return fault;
            }
            Fault::wrong_state(format!(
                "{fault}: the kernel lets only CAP_SYS_RESOURCE grow a mounted ext4; the node plugin needs it (a privileged container has it, unless the whole machine was denied it)"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_empty_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        System.remove(&path("nothing")).unwrap();
        std::fs::write(path("empty"), "").unwrap();
        System.remove(&path("empty")).unwrap();
        assert_eq!(System.found(&path("empty")).unwrap(), Found::Nothing);
        std::fs::write(path("full"), "x").unwrap();
        assert_eq!(System.remove(&path("full")).unwrap_err().problem, Problem::WrongState);
        std::fs::create_dir(path("folder")).unwrap();
        std::fs::write(path("folder/file"), "x").unwrap();
        assert!(System.remove(&path("folder")).is_err());
        assert!(path("folder/file").exists());
        std::fs::remove_file(path("folder/file")).unwrap();
        System.remove(&path("folder")).unwrap();
        assert_eq!(System.found(&path("folder")).unwrap(), Found::Nothing);
        assert_eq!(System.found(&path("full/x")).unwrap(), Found::Nothing);
    }

    #[test]
    fn the_kernels_own_table_is_read() {
        let table = System.table().unwrap();
        assert!(table.at(Path::new("/")).is_some() && table.at(Path::new("/proc")).is_some());
    }

    #[test]
    fn a_file_with_data_is_never_formatted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let file = File::create(&path).unwrap();
        file.set_len(8 << 20).unwrap();
        file.write_all_at(b"precious", 0).unwrap();
        assert_eq!(System.format(&path).unwrap_err().problem, Problem::WrongState);
        let mut kept = [0; 8];
        File::open(&path).unwrap().read_exact_at(&mut kept, 0).unwrap();
        assert_eq!(&kept, b"precious");
    }

    #[test]
    fn a_file_system_says_how_full_it_is() {
        let usage = System.usage(Path::new("/")).unwrap();
        assert!(usage.bytes.total >= usage.bytes.used && usage.bytes.total > 0);
    }
}
