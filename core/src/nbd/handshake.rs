//! Option negotiation, of both sides, without any I/O: bytes in, bytes and a next step out.
//!
//! ```text
//!   server   greeting ─► flags ─► option, option, … ─► Transmit(session) | End(why)
//!                             └─► STARTTLS, before all else, where TLS is demanded
//!   client   greeting ─► [STARTTLS ─►] STRUCTURED_REPLY ─► SET_META_CONTEXT ─► GO ─► Ready(negotiated)
//!                                                                └─► EXPORT_NAME, if GO is unknown
//! ```

mod client;
mod server;

pub use client::{Client, Listing, Negotiated, Step};
pub use server::{Answer, BeforeTls, Next, OPTIONS_MAX, Server, Session};

#[cfg(test)]
mod tests;
