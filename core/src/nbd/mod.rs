//! Network block device: how tools, guests and real QEMUs reach a volume, and how we reach theirs.
//!
//! ```text
//!   client                                        server
//!     │ ◄── "NBDMAGIC" "IHAVEOPT" flags(2) ──────── │   handshake, fixed newstyle
//!     │ ─── flags(4) ─────────────────────────────► │   (10 s for all of it, 64 options)
//!     │ ─── "IHAVEOPT" option(4) length(4) data ──► │
//!     │ ◄── magic(8) option(4) type(4) len(4) data  │   ... until OPT_GO is acknowledged
//!     │                                             │
//!     │ ─── request: 28 bytes (+ data of a write) ► │   transmission: any number in flight,
//!     │ ◄── simple reply: 16 bytes (+ data) ─────── │   replies in any order, matched by cookie
//!     │ ◄── chunk: 20 bytes + content, … ────────── │   (structured, if negotiated)
//!
//!   wire        every message as bytes: pure, total, bounded
//!   handshake   option negotiation of both sides: pure, no I/O
//!   catalog     what a server has to offer
//!   errno       disk errors in the protocol's numbers, and back
//!   server      one connection: reader, tasks, outbox
//!   client      a disk whose bytes are a server's
//! ```
//!
//! The protocol is the one of <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>.
//! TLS begins by `STARTTLS`; the stream itself is the runtime's. What we leave out: oldstyle, resize, extended headers, `CACHE`,
//! `FAST_ZERO`, metadata contexts other than `base:allocation`.

mod catalog;
mod errno;
pub mod handshake;
pub mod wire;

pub mod client;
pub mod server;

#[cfg(test)]
mod test_disk;
#[cfg(test)]
mod test_stream;

pub use catalog::{BlockSizes, Catalog, Export, ExportInfo, Refusal, RefusalKind, Revocation};
pub use client::Client;
pub use server::serve;
