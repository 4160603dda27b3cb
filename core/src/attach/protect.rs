//! What keeps a process in the path of I/O from waiting for itself, or from being the one that ends.
//!
//! A holder that allocates memory can make the kernel write dirty pages back, to its own device, and
//! wait for it: for itself. So its threads are *I/O flushers* (their allocations do no I/O), its memory
//! is locked, and the kernel's killer for lack of memory looks elsewhere first.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::configure_io_flusher_behavior;
use tracing::warn;

/// Protects the calling process. Called before there are other threads: they inherit it.
///
/// Where rights are missing it goes on without, with one warning.
pub(super) fn protect() {
    let mut missing = Vec::new();
    if let Err(e) = configure_io_flusher_behavior(true) {
        missing.push(format!("PR_SET_IO_FLUSHER ({e}; needs CAP_SYS_RESOURCE)"));
    }
    if let Err(e) = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE) {
        missing.push(format!("mlockall ({e}; needs CAP_IPC_LOCK)"));
    }
    if let Err(e) = std::fs::write("/proc/self/oom_score_adj", "-999") {
        missing.push(format!("oom_score_adj -999 ({e}; needs CAP_SYS_RESOURCE)"));
    }
    if !missing.is_empty() {
        warn!(
            "this device is less safe when memory is short; not to be had here: {}",
            missing.join(", ")
        );
    }
}

/// Leaves the daemon's session, so that what ends a terminal or a service does not end the device.
pub(super) fn stand_alone() {
    // Fails only for who leads a session already.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"understudy-hold");
    super::loop_ioctl::ignore_sigterm();
}
