//! An ext4 is made whole or not at all.
//!
//! ```text
//!   mkfs.ext4 ─► a file in memory, as long as the device, mostly holes
//!   device:  1 mark, sync ─► 2 everything but the first block ─► 3 sync ─► 4 first block, sync
//! ```
//!
//! Killed anywhere before 4, the device bears the mark and is made anew; afterwards it is an ext4.
//! mkfs.ext4 on the device itself, killed in between, leaves something that is neither blank nor an
//! ext4: nobody could tell it from a user's data.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, SeekFrom, ftruncate, memfd_create, seek};

use super::content::MARK;
use crate::fault::{Fault, Problem};

/// The block size of the file system, and the unit of the first write: holds the superblock.
const BLOCK: usize = 4096;

/// How much is copied at once, in bytes.
const PIECE: usize = 1 << 20;

/// Makes an ext4 on a device of `len` bytes.
pub(super) fn make(device: &File, len: u64) -> Result<(), Fault> {
    let image = image(len)?;
    let failed = |e: io::Error| {
        Fault::new(
            Problem::Unavailable,
            format!("the new ext4 can't be written to the device: {e}"),
        )
    };
    device.write_all_at(MARK, 0).map_err(failed)?;
    device.sync_data().map_err(failed)?;
    let mut piece = vec![0; PIECE];
    let mut at = u64::try_from(BLOCK).unwrap_or(0);
    while let Some((start, end)) = next_data(&image, at, len).map_err(failed)? {
        at = start;
        while at < end {
            let take = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            let Some(part) = piece.get_mut(..take) else { break };
            image.read_exact_at(part, at).map_err(failed)?;
            device.write_all_at(part, at).map_err(failed)?;
            at += u64::try_from(take).unwrap_or(0);
        }
    }
    device.sync_data().map_err(failed)?;
    let mut first = vec![0; BLOCK];
    image.read_exact_at(&mut first, 0).map_err(failed)?;
    device.write_all_at(&first, 0).map_err(failed)?;
    device.sync_data().map_err(failed)
}

/// The next range that holds data, from `at` on.
fn next_data(image: &File, at: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= len {
        return Ok(None);
    }
    let start = match seek(image, SeekFrom::Data(at)) {
        Ok(start) => start,
        // No data behind it.
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let end = seek(image, SeekFrom::Hole(start))?;
    Ok(Some((start, end.min(len))))
}

/// A new ext4 in a file in memory.
fn image(len: u64) -> Result<File, Fault> {
    let failed = |e: io::Error| Fault::internal(format!("no memory for a new ext4: {e}"));
    let image = memfd_create("ext4", MemfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    ftruncate(&image, len).map_err(|e| failed(e.into()))?;
    let image = File::from(image);
    // Our own name for it: the program need not inherit the file.
    let path = format!("/proc/{}/fd/{}", std::process::id(), image.as_raw_fd());
    // The block size is said, for mkfs.ext4 would take smaller ones for small devices, which a device
    // with sectors of 4 KiB can't have. Zeroes are not written again: the device is blank.
    let arguments = [
        "-q",
        "-F",
        "-b",
        "4096",
        "-m",
        "0",
        "-E",
        "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
    ];
    run("mkfs.ext4", arguments.into_iter().chain([path.as_str()]))?;
    Ok(image)
}

/// Runs a program of e2fsprogs; what it prints is the error.
pub(super) fn run<'a>(
    program: &str,
    arguments: impl IntoIterator<Item = &'a str>,
) -> Result<(), Fault> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).env("LC_ALL", "C");
    let output = command
        .output()
        .map_err(|e| Fault::internal(format!("{program} can't be run ({e}): install e2fsprogs")))?;
    if output.status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&output.stderr);
    let text = format!("{program} failed ({}): {}", output.status, printed.trim());
    Err(Fault::internal(text))
}

#[cfg(test)]
mod tests {
    use super::super::content::{Content, LOOK, content};
    use super::*;

    fn look(file: &File, len: u64) -> Content {
        let (mut first, mut last) = (vec![0; LOOK], vec![0; LOOK]);
        file.read_exact_at(&mut first, 0).unwrap();
        file.read_exact_at(&mut last, len - LOOK as u64).unwrap();
        content(&first, &last)
    }

    fn device(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file
    }

    #[test]
    fn what_is_made_is_a_sound_ext4_of_the_whole_device() {
        for len in [1 << 20, 64 << 20, 3 << 30] {
            let file = device(len);
            assert_eq!(look(&file, len), Content::Blank);
            make(&file, len).unwrap();
            assert_eq!(look(&file, len), Content::Ext4);
            let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
            run("e2fsck", ["-f", "-n", path.as_str()]).unwrap();
            // Blocks of 4096 in the superblock: the whole device.
            let mut blocks = [0; 4];
            file.read_exact_at(&mut blocks, 1024 + 4).unwrap();
            assert_eq!(u64::from(u32::from_le_bytes(blocks)) * 4096, len);
        }
    }

    #[test]
    fn a_device_on_which_the_making_broke_off_is_made_anew() {
        let len = 64 << 20;
        let file = device(len);
        file.write_all_at(MARK, 0).unwrap();
        file.write_all_at(&[7; 9000], 40_000).unwrap();
        assert_eq!(look(&file, len), Content::Unfinished);
        make(&file, len).unwrap();
        assert_eq!(look(&file, len), Content::Ext4);
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let text = run("mkfs.ext4", ["-q", "/nonexistent/device"]).unwrap_err().to_string();
        assert!(
            text.contains("mkfs.ext4 failed") && text.contains("/nonexistent/device"),
            "{text}"
        );
        let text = run("no-such-program-of-ours", []).unwrap_err().to_string();
        assert!(text.contains("install e2fsprogs"), "{text}");
    }
}
