//! Generates the messages, clients and servers of the engine API and the attach API from `proto/`,
//! with a protobuf compiler in Rust: no `protoc` is needed to build.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    for file in ["engine.proto", "attach.proto"] {
        println!("cargo:rerun-if-changed=proto/{file}");
        let descriptors = protox::compile([file], ["proto"])?;
        tonic_prost_build::configure().compile_fds(descriptors)?;
    }
    Ok(())
}
