//! Our NBD against everybody else's: real clients against our server, our client against real
//! servers, over real sockets.
//!
//! ```text
//!   tools     qemu-img, qemu-io, nbdinfo, nbdcopy, fio ──► our server: memory, file, direct file
//!   servers   our client ──► qemu-nbd, nbdkit with delays, errors, block sizes, no chunks
//!   crowd     a thousand connections, garbage, clients that stall
//! ```
//!
//! What this machine lacks is named in one line. Under `CI=true` that fails, elsewhere it is a
//! visible skip.

#![allow(clippy::unwrap_used, reason = "a test that can't go on may say so by panicking")]

mod command;
mod crowd;
mod server;
mod servers;
mod tools;
