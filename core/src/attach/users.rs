//! Who has a device open, in words, as far as this process can see it.
//!
//! For the message only: whether somebody has it open is the kernel's word (`loop_device`).

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::loop_device::configured;

/// The most that are named.
const NAMED: usize = 5;

/// Mounts of the device, loop devices over it, and processes that have it open.
pub fn users_of(device: &Path) -> Vec<String> {
    let Ok(number) = std::fs::metadata(device).map(|m| m.rdev()) else { return Vec::new() };
    let mut users = mounts(number);
    users.extend(loops(number));
    users.extend(processes(number));
    users.truncate(NAMED);
    users
}

fn mounts(number: u64) -> Vec<String> {
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let wanted = format!("{major}:{minor}");
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            (words.nth(2)? == wanted).then(|| words.nth(1).map(|at| format!("mounted at {at}")))?
        })
        .collect()
}

fn loops(number: u64) -> Vec<String> {
    configured()
        .unwrap_or_default()
        .into_iter()
        // One of ours lies over no device, and asking a holder that is stopped would hang.
        .filter(|over| over.about("loop/backing_file").is_ok_and(|f| !f.contains("/understudy-")))
        .filter(|over| over.info().is_some_and(|info| info.rdevice == number))
        .map(|over| format!("{} lies over it", over.path().display()))
        .collect()
}

fn processes(number: u64) -> Vec<String> {
    let has_it_open = |process: &Path| {
        std::fs::read_dir(process.join("fd")).is_ok_and(|files| {
            files.flatten().any(|file| {
                std::fs::metadata(file.path())
                    .is_ok_and(|m| m.rdev() == number && m.mode() & libc::S_IFMT == libc::S_IFBLK)
            })
        })
    };
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    all.flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            has_it_open(&entry.path()).then(|| {
                let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                format!("open in process {pid} ({})", name.trim())
            })
        })
        .collect()
}
