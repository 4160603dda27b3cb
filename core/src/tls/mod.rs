//! Who is who: identities, the certificates that prove them, and the files that hold those.
//!
//! ```text
//!   DIR/ca.crt, tls.crt, tls.key ──load──► Set { identity, roots, key }
//!                  ▲                        │  server(door)        client(door, node)
//!                  │ looked at now and then │        │                    │
//!                 Tls ──current()───────────┘        ▼                    ▼
//!                  (shared by all threads)    rustls::ServerConfig  rustls::ClientConfig
//!
//!   Identity   engine/NODE │ operator │ csi-controller      one URI in the certificate
//!   Door       Link │ Nbd │ Api                             whom it lets in: one table
//! ```
//!
//! TLS 1.3 only, both ends always prove themselves, one authority (or as many as `ca.crt` holds).
//! No session is ever resumed: each connection shows its certificate, so an expired one gets
//! nowhere. What is open stays open; see `docs/security.md`.

mod door;
mod explain;
mod files;
mod identity;
mod keeper;
mod set;
mod verify;

#[cfg(test)]
pub(crate) mod tests;

pub use door::Door;
pub(crate) use explain::Failure;
pub use explain::{Fault, explain};
pub use files::LoadError;
pub use identity::{Identity, NODE_MAX, TRUST_DOMAIN, is_node};
pub use keeper::Tls;
pub use set::Set;
