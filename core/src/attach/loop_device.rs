//! A loop device of ours: made, recognised, grown, released.
//!
//! ```text
//!   /sys/block/loopN/loop/backing_file: "/understudy-VOLUME-ID"      which device of ours it is
//! ```
//!
//! The name is what tells a device apart when whoever made it is dead: the kernel knows it without
//! asking the file system. (Not so `LOOP_GET_STATUS64`, which fails on a FUSE that has ended.)
//!
//! Traps:
//! - `LOOP_CTL_GET_FREE` reserves nothing: another process may be faster, then `EBUSY`, and again.
//! - No `AUTOCLEAR`: the device must stay, failing, when its holder is dead. Freed, its number could
//!   become another volume's, under the eyes of who has the node bound into a container.
//! - `/dev` may be static (a container's own): a node that is missing is made.
//! - The device is open only during a call. Closing the last descriptor writes dirty pages back; a
//!   holder that is killed while it alone has it open would wait for itself.
//! - `LOOP_CLR_FD` on a device that others have open succeeds and means "later": see [`release`].

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, makedev};

use super::loop_ioctl::{self as ioctl, Info};

/// The kernel's major number of loop devices.
pub(super) const MAJOR: u32 = 7;

/// How often a number that was free is lost to others before it is an error.
const RACES: usize = 100;

/// Who gives out numbers.
pub(super) const CONTROL: &str = "/dev/loop-control";

/// A loop device by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LoopDevice(u32);

/// How a release went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Release {
    /// It is over nothing now.
    Done,
    /// Somebody has it open; it is as it was.
    InUse,
}

/// What it is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    pub(super) block_size: u32,
    pub(super) read_only: bool,
}

impl LoopDevice {
    /// A free device, put over `file`.
    pub(super) fn make(file: BorrowedFd<'_>, shape: Shape) -> io::Result<Self> {
        let named = |what: &str| {
            let what = what.to_owned();
            move |e: io::Error| io::Error::new(e.kind(), format!("{what}: {e}"))
        };
        let control = File::options()
            .read(true)
            .write(true)
            .open(CONTROL)
            .map_err(named("can't open /dev/loop-control"))?;
        let flags = ioctl::DIRECT_IO | if shape.read_only { ioctl::READ_ONLY } else { 0 };
        let info = Info { flags, ..Info::default() };
        for _ in 0..RACES {
            let number = ioctl::get_free(control.as_fd())
                .map_err(named("no free loop device (raise the limit: max_loop)"))?;
            let device = Self(number);
            let open = device.open(shape.read_only).map_err(named("can't open a loop device"))?;
            match ioctl::configure(open.as_fd(), file, shape.block_size, info) {
                Ok(()) => return Ok(device),
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {}
                Err(e) => return Err(named("can't configure a loop device")(e)),
            }
        }
        Err(io::Error::other(format!("{RACES} free loop devices were taken by others: try again")))
    }

    /// The device over the file of `id`, if there is one.
    pub(super) fn find(id: &str) -> io::Result<Option<Self>> {
        Ok(configured()?.into_iter().find(|device| device.is_over(id)))
    }

    /// Whether it is over the file of `id`.
    pub(super) fn is_over(self, id: &str) -> bool {
        self.about("loop/backing_file").is_ok_and(|file| file.contains(id))
    }

    /// What it is over, if anything.
    pub(super) fn info(self) -> Option<Info> {
        ioctl::status(self.open(true).ok()?.as_fd()).ok()
    }

    /// Its node.
    pub(super) fn path(self) -> PathBuf {
        format!("/dev/loop{}", self.0).into()
    }

    /// What the kernel tells about it.
    pub(super) fn about(self, file: &str) -> io::Result<String> {
        std::fs::read_to_string(format!("/sys/block/loop{}/{file}", self.0))
    }

    /// Its number as the kernel packs it.
    pub(super) fn device_number(self) -> u64 {
        makedev(MAJOR, self.0)
    }

    fn open(self, read_only: bool) -> io::Result<File> {
        let path = self.path();
        let open = || File::options().read(true).write(!read_only).open(&path);
        match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                make_node(&path, self.device_number())?;
                open()
            }
            other => other,
        }
    }

    /// Takes the backing file's length anew.
    pub(super) fn grow(self) -> io::Result<()> {
        ioctl::set_capacity(self.open(true)?.as_fd())
    }

    /// Lets go of the file if nobody else has the device open, in one step.
    ///
    /// The kernel counts who has it open: a file system on it, another loop device over it (the
    /// kubelet's), a VM. When we are the only one it takes no new opener from the call on and is free
    /// when we close; otherwise it becomes `AUTOCLEAR`, which we take back while our own descriptor
    /// keeps that from happening.
    pub(super) fn release(self, id: &str) -> io::Result<Release> {
        let open = self.open(true)?;
        // Its number may be somebody else's by now; not later, while we have it open.
        if !self.is_over(id) {
            return Ok(Release::Done);
        }
        match ioctl::clear(open.as_fd()) {
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => return Ok(Release::Done),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => return Ok(Release::InUse),
            other => other?,
        }
        match ioctl::status(open.as_fd()) {
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => Ok(Release::Done),
            // All that may be changed is what is to be: no offset, no flag. Also of a device whose
            // file system does not answer any more.
            Ok(_) | Err(_) => {
                ioctl::set_status(open.as_fd(), &Info::default())?;
                Ok(Release::InUse)
            }
        }
    }
}

/// All loop devices that are over something.
pub(super) fn configured() -> io::Result<Vec<LoopDevice>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/sys/block")? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix("loop")?.parse().ok());
        if let Some(number) = number
            && entry.path().join("loop").is_dir()
        {
            found.push(LoopDevice(number));
        }
    }
    Ok(found)
}

fn make_node(path: &Path, device: u64) -> io::Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::mknodat(rustix::fs::CWD, path, FileType::BlockDevice, mode, device) {
        Ok(()) => Ok(()),
        // The kernel's own node came meanwhile.
        Err(e) if e == rustix::io::Errno::EXIST => Ok(()),
        Err(e) => {
            let text = format!("{} is missing and can't be made: {e}", path.display());
            Err(io::Error::new(e.kind(), text))
        }
    }
}

/// Opens a file of a directory that is no more than a descriptor.
pub(super) fn open_at(directory: BorrowedFd<'_>, name: &str, flags: OFlags) -> io::Result<File> {
    Ok(rustix::fs::openat(directory, name, flags | OFlags::CLOEXEC, Mode::empty())?.into())
}
