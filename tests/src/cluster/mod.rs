//! Kubernetes for tests: a bench (API server and store), and a whole cluster on one machine.
//!
//! ```text
//!   programs   the Go programs, built once by scripts/tools.sh
//!   scratch    directories that vanish even when their owner was killed
//!   pki        certificates and kubeconfigs
//!   kubectl    what people type
//!   control_plane   etcd + kube-apiserver
//!   api        the bench: both, with our CRDs, for T3
//!   image      container images, made here
//!   strangers  what a port says to someone without a certificate
//!   machine    a whole cluster: the control plane and nodes in namespaces, for T5
//! ```

pub mod api;
pub mod control_plane;
pub mod image;
pub mod kubectl;
pub mod machine;
pub mod pki;
pub mod programs;
pub mod scratch;
pub mod strangers;

pub use api::Bench;
pub use kubectl::Kubectl;
