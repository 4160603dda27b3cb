//! Requests become types here, purely; all INVALID_ARGUMENT is born here.
//!
//! ```text
//!   proto ──► create.rs      name, sizes, capabilities, parameters, wishes of placement
//!         ├─► capability.rs  block or mount; who may write
//!         ├─► sizes.rs       at least, at most ─► a size that volumes can have
//!         └─► node.rs        volume, paths, capability
//! ```
//!
//! What has been parsed can be carried out; whether the state allows it is the services' matter.

mod capability;
mod create;
mod node;
mod sizes;

pub use capability::{Access, Capability, capabilities};
pub use create::{Create, PARAMETERS, Wish, check_parameters, wishes};
pub use node::{Expand, Publish, Stage, Stats, Unpublish, Unstage};
pub use sizes::{DEFAULT_SIZE, MIB, Sizes};

use understudy_core::engine::api::VolumeId;

use crate::call::shown;
use crate::fault::Fault;

/// A volume id that a caller must give; `None` for one that no volume of this driver can have.
pub fn volume_id(text: &str) -> Result<Option<VolumeId>, Fault> {
    if text.is_empty() {
        return Err(Fault::invalid("volume_id is missing"));
    }
    Ok(if is_handle(text) { text.parse().ok() } else { None })
}

/// A volume id of a volume that must exist.
pub fn known_volume_id(text: &str) -> Result<VolumeId, Fault> {
    volume_id(text)?.ok_or_else(|| no_volume(text))
}

/// There is no such volume.
pub fn no_volume(text: impl std::fmt::Display) -> Fault {
    let text = format!("there is no volume {}", shown(&text.to_string()));
    Fault::new(crate::fault::Problem::NotFound, text)
}

/// Whether a text can be the handle of a volume: a DNS label, so that it names Kubernetes objects,
/// files and, having no dot, never a group of a `BlockReplication`.
pub fn is_handle(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.len() <= 63
        && !text.is_empty()
        && text.chars().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}
