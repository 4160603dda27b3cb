//! The node service over objects, devices and mounts in memory.

mod fence;
mod publish;
mod stage;
mod stats;
mod world;

use crate::fault::{Fault, Problem};
use crate::mount::{Content, MountOptions};
use crate::request::{Access, Capability, Publish, Stage, Unpublish, Unstage};
use understudy_core::engine::api::VolumeId;
use understudy_core::engine::attach::api::DeviceState;
use world::World;

const STAGING: &str = "/kubelet/staging/vol-a";
const TARGET: &str = "/kubelet/pods/u1/vol-a";

fn handle(text: &str) -> VolumeId {
    text.parse().unwrap()
}

fn mount() -> Access {
    Access::Mount(MountOptions::default())
}

impl World {
    async fn stage(&self, access: Access) -> Result<(), Fault> {
        let stage = Stage { volume: handle("vol-a"), staging: STAGING.into(), access };
        self.node().stage(&stage).await
    }

    async fn unstage(&self) -> Result<(), Fault> {
        let unstage = Unstage { volume: Some(handle("vol-a")), staging: STAGING.into() };
        self.node().unstage(unstage).await
    }

    async fn publish(&self, access: Access, target: &str) -> Result<(), Fault> {
        self.publish_as(access, target, false, false).await
    }

    async fn publish_as(
        &self,
        access: Access,
        target: &str,
        single_writer: bool,
        read_only: bool,
    ) -> Result<(), Fault> {
        let publish = Publish {
            volume: handle("vol-a"),
            staging: STAGING.into(),
            target: target.into(),
            capability: Capability { access, single_writer },
            read_only,
        };
        self.node().publish(publish).await
    }

    async fn unpublish(&self, target: &str) -> Result<(), Fault> {
        self.node().unpublish(Unpublish { target: target.into() }).await
    }
}
