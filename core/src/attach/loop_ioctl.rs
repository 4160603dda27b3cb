//! The kernel's calls for loop devices, and the one for signals: every `unsafe` of attach.
//!
//! ```text
//!   struct loop_config (304 bytes)               struct loop_info64 (232 bytes)
//!     0  fd           u32   the backing file       0  device, inode, rdevice  u64 × 3
//!     4  block_size   u32   logical               24  offset, sizelimit       u64 × 2
//!     8  info         loop_info64                 40  number                  u32
//!   240  reserved     u64 × 8                     44  encrypt_type, key_size  u32 × 2
//!                                                 52  flags                   u32
//!                                                 56  file_name               64 bytes
//!                                                120  crypt_name, key, init   64 + 32 + 16 bytes
//! ```
#![allow(unsafe_code, reason = "ioctls have no safe form; see each SAFETY line")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const LOOP_CLR_FD: libc::c_ulong = 0x4c01;
const LOOP_SET_STATUS64: libc::c_ulong = 0x4c04;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4c05;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4c07;
const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;

/// Writes are refused.
pub(super) const READ_ONLY: u32 = 1;
/// Requests go past the page cache.
pub(super) const DIRECT_IO: u32 = 16;

/// How many bytes a name has.
const NAME_LEN: usize = 64;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Info {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Of a backing file that is a device itself: which one.
    pub(super) rdevice: u64,
    pub(super) offset: u64,
    pub(super) size_limit: u64,
    pub(super) number: u32,
    pub(super) encrypt_type: u32,
    pub(super) encrypt_key_size: u32,
    pub(super) flags: u32,
    /// Free text of who configured it.
    pub(super) name: [u8; NAME_LEN],
    pub(super) crypt_name: [u8; NAME_LEN],
    pub(super) encrypt_key: [u8; 32],
    pub(super) init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Info>() == 232 && size_of::<Config>() == 304);

impl Default for Info {
    fn default() -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            name: [0; NAME_LEN],
            crypt_name: [0; NAME_LEN],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

fn done(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A call whose argument is no pointer.
fn plain(fd: BorrowedFd<'_>, request: libc::c_ulong) -> io::Result<libc::c_int> {
    // SAFETY: none of the requests passed here reads or writes memory of ours; the argument 0 is
    // ignored by the kernel. The descriptor is open as long as it is borrowed.
    done(unsafe { libc::ioctl(fd.as_raw_fd(), request as _, 0) })
}

/// The number of a device that was free a moment ago; `control` is `/dev/loop-control`.
pub(super) fn get_free(control: BorrowedFd<'_>) -> io::Result<u32> {
    plain(control, LOOP_CTL_GET_FREE).map(|n| u32::try_from(n).unwrap_or_default())
}

/// Puts the device over `file`. `EBUSY`: somebody else was faster.
pub(super) fn configure(
    device: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    block_size: u32,
    info: Info,
) -> io::Result<()> {
    let fd = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
    let config = Config { fd, block_size, info, reserved: [0; 8] };
    // SAFETY: the kernel reads `size_of::<Config>()` bytes from the pointer, which is what it points
    // to, during the call only; both descriptors are open during it.
    done(unsafe {
        libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, std::ptr::from_ref(&config))
    })
    .map(drop)
}

/// What the device is over. `ENXIO`: nothing.
pub(super) fn status(device: BorrowedFd<'_>) -> io::Result<Info> {
    let mut info = Info::default();
    // SAFETY: the kernel writes `size_of::<Info>()` bytes to the pointer, which is what it points to,
    // during the call only; every bit pattern is a valid `Info`.
    done(unsafe {
        libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, std::ptr::from_mut(&mut info))
    })?;
    Ok(info)
}

/// Sets what may be changed: a flag that is not given is taken back (`AUTOCLEAR`), unless it can't be.
/// Waits for requests under way.
pub(super) fn set_status(device: BorrowedFd<'_>, info: &Info) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<Info>()` bytes from the pointer, which is what it points to,
    // during the call only.
    done(unsafe {
        libc::ioctl(device.as_raw_fd(), LOOP_SET_STATUS64 as _, std::ptr::from_ref(info))
    })
    .map(drop)
}

/// Lets go of the file: now if the caller alone has the device open, else it becomes `AUTOCLEAR`.
pub(super) fn clear(device: BorrowedFd<'_>) -> io::Result<()> {
    plain(device, LOOP_CLR_FD).map(drop)
}

/// Takes the file's length anew.
pub(super) fn set_capacity(device: BorrowedFd<'_>) -> io::Result<()> {
    plain(device, LOOP_SET_CAPACITY).map(drop)
}

/// SIGTERM, which a machine that shuts down sends to everybody, does not end a device that may be
/// mounted yet.
pub(super) fn ignore_sigterm() {
    // SAFETY: SIG_IGN runs no code of ours, so nothing can be interrupted where it must not be.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
    }
}
