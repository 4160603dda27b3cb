//! Volumes as block devices: a real engine, the attach daemon, its holders, the kernel's loop devices.
//!
//! ```text
//!   fio, mkfs, mount ──► /dev/loopN ──► holder ──► understudyd (killed, restarted, failed over)
//!                                          ▲
//!                        understudy-attachd (killed at every step)
//! ```

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod leaks;
mod life;
mod remote;
mod restarts;
mod stage;
