//! The moments at which a test lets a process die, to see that nothing leaks.
//!
//! With `UNDERSTUDY_DIE_AT=STEP` in its environment a process kills itself, as SIGKILL does, when it
//! reaches that step. Unset, as in production, reaching a step does nothing.

use rustix::process::{Signal, getpid, kill_process};

/// The steps of the daemon in an attach, in order.
pub const ATTACH: &[&str] = &[
    "attach.begun",
    "attach.recorded",
    "attach.session-opened",
    "attach.session-recorded",
    "attach.holder-started",
    "attach.holder-ready",
];

/// The steps of the daemon in a detach, in order.
pub const DETACH: &[&str] = &[
    "detach.begun",
    "detach.released",
    "detach.session-closed",
    "detach.files-removed",
    "detach.forgotten",
];

/// The steps of a holder, in order.
pub const HOLD: &[&str] =
    &["hold.begun", "hold.connected", "hold.mounted", "hold.configured", "hold.released"];

/// Dies here if the environment says so.
pub fn reached(step: &str) {
    if std::env::var_os("UNDERSTUDY_DIE_AT").is_some_and(|at| at == step) {
        // Never fails for a process itself.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}
