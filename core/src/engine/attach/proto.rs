//! What `build.rs` generates from `proto/attach.proto`; the file to read is that one.
#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code keeps its generator's style"
)]

tonic::include_proto!("understudy.attach.v1");
