//! A whole cluster on one machine, without a container engine.
//!
//! ```text
//!   this machine's namespaces                 a node: its own network, mounts, pids and host name
//!   ┌──────────────────────────────┐          ┌───────────────────────────────────┐
//!   │ etcd, kube-apiserver,        │   veth   │ pid 1: node.sh                    │
//!   │ controller-manager, scheduler├──bridge──┤   containerd ─ pods               │
//!   │ keeper (this program)        │          │   kubelet, kube-proxy             │
//!   └──────────────────────────────┘          └───────────────────────────────────┘
//! ```
//!
//! Power loss is SIGKILL of a node's pid 1: the kernel ends everything in its pid namespace at once.
//! A partition is its veth pair set down. The disk of a node is a directory here and stays.
//!
//! The *keeper* is the one process that all others are children of and die with. It takes orders on
//! a Unix socket, and ends the cluster when it is told to, or when its owner is gone. What even the
//! keeper's own death leaves (bridge, cgroups, loop devices, kernel settings) the next `up` removes.

mod commands;
mod keeper;
mod leftovers;
mod loops;
mod network;
mod node;
mod settings;

use std::path::{Path, PathBuf};

pub use commands::{Client, up};
pub use keeper::{Options, run};
pub use leftovers::clean;
pub use loops::{LoopDevice, loop_devices};

/// Where a cluster keeps everything; one cluster per machine.
#[derive(Clone, Debug)]
pub struct Place(PathBuf);

impl Default for Place {
    /// `UNDERSTUDY_CLUSTER`, or a fixed directory: the next `up` must find what the last one left.
    fn default() -> Self {
        let named = std::env::var_os("UNDERSTUDY_CLUSTER").map(PathBuf::from);
        Self(named.unwrap_or_else(|| std::env::temp_dir().join("understudy-cluster")))
    }
}

impl Place {
    /// Its root.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The orders' socket.
    pub fn socket(&self) -> PathBuf {
        self.0.join("keeper.sock")
    }

    /// The images that every node has. They outlive the cluster.
    pub fn images(&self) -> PathBuf {
        self.0.with_extension("images")
    }

    /// What belongs to one node.
    pub fn node(&self, name: &str) -> PathBuf {
        self.0.join("nodes").join(name)
    }

    /// An administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("pki/admin.kubeconfig")
    }

    /// Every request of a service account, a line each.
    pub fn audit_log(&self) -> PathBuf {
        self.0.join("audit.log")
    }
}

/// The name of the node with this number, from 0.
pub fn node_name(index: u8) -> String {
    format!("node-{}", char::from(b'a' + index))
}
