//! The CSI driver of Understudy: CSI calls become engine calls, devices and objects.
//!
//! ```text
//!   provisioner, resizer ── CSI ──► Controller ──► ReplicatedVolume objects
//!                                       └────────► engines (TLS): replicas
//!   kubelet ── CSI ──► Node ──► attach daemon (Unix socket): devices
//!      ▲                 └────► mounts
//!      └── registration ─┘
//!
//!   request   proto ─► types, purely           fault   every failure and its gRPC code, in tables
//!   volume    objects ─► types, purely         guard   one operation a volume
//!   call      a call runs to its end, and is logged once
//! ```
//!
//! The services keep no state of their own: what is half done stands in the objects, the engines, the
//! attach daemon's list and the kernel's table of mounts, and the same call again finishes it.

#![forbid(unsafe_code)]

pub mod attach;
pub mod call;
pub mod controller;
pub mod engines;
pub mod fault;
pub mod guard;
pub mod identity;
pub mod mount;
pub mod node;
pub mod placement;
pub mod proto;
pub mod registration;
pub mod request;
pub mod server;
pub mod volume;
pub mod volumes;

/// The driver's name, in every `StorageClass` and `PersistentVolume`. It can never change: a volume
/// names its driver for life.
pub const DRIVER_NAME: &str = "csi.understudy.dev";

/// The topology key of a single node: tells `CreateVolume` which node the scheduler chose, so that
/// the first replica is born there. No volume is bound to it: a volume whose replica has moved must
/// stay schedulable elsewhere.
pub const TOPOLOGY_NODE: &str = "csi.understudy.dev/node";

/// The topology key of all nodes that run this driver: what volumes are bound to. It stays true
/// through every failover, as each such node can reach every replica.
pub const TOPOLOGY_INSTALLATION: &str = "csi.understudy.dev/installation";

#[cfg(test)]
mod tests {
    use super::{DRIVER_NAME, TOPOLOGY_INSTALLATION, TOPOLOGY_NODE};

    /// What the CSI specification allows as a part of a name: 1 to 63 characters, alphanumeric at
    /// both ends, `-`, `_` and `.` between.
    fn is_name(text: &str) -> bool {
        let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        text.len() <= 63
            && is_end(text.chars().next())
            && is_end(text.chars().last())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    }

    #[test]
    fn the_driver_and_its_topology_keys_are_names_that_csi_allows() {
        assert!(is_name(DRIVER_NAME));
        for key in [TOPOLOGY_NODE, TOPOLOGY_INSTALLATION] {
            let parts = key.split_once('/');
            assert!(
                parts.is_some_and(|(prefix, name)| prefix == DRIVER_NAME && is_name(name)),
                "{key}"
            );
        }
        assert!(!is_name("") && !is_name("csi.understudy.dev.") && !is_name("a/b"));
    }
}
