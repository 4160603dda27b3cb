//! What `build.rs` generates from `proto/`; the files to read are those.
#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code keeps its generator's style"
)]

/// The Container Storage Interface.
pub mod csi {
    tonic::include_proto!("csi.v1");
}

/// The kubelet's registration of plugins.
pub mod registration {
    tonic::include_proto!("pluginregistration");
}
