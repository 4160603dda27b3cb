//! NodeStageVolume and NodeUnstageVolume.
//!
//! ```text
//!   a device here? ─┬─ no ──────────────────────────────────────────┐
//!                   ├─ good ──────────────────────────────────────┐ ├─► attach ─► device
//!                   └─ replaced ─┬─ used by a pod: refused        │ │
//!                                └─ unused: unmount, detach ──────┼─┘
//!   block: done        mount: blank? ─► an ext4 ─► mounted at staging
//! ```

use std::path::{Path, PathBuf};

use understudy_core::engine::attach::api::{
    Attach as Wanted, Device, DeviceState, EngineAddresses,
};

use super::Node;
use super::number;
use super::serving::{Served, is_replaced};
use crate::attach::Attach;
use crate::fault::{Asked, Fault};
use crate::mount::{Content, Found, MountOptions, Mounts};
use crate::request::{Access, Stage, Unstage};
use crate::volumes::Volumes;

impl<V: Volumes, A: Attach, M: Mounts> Node<V, A, M> {
    pub(super) async fn stage(&self, wanted: &Stage) -> Result<(), Fault> {
        let _guard = self.guards.take(&wanted.volume)?;
        let served = self.serving(&wanted.volume).await?;
        self.stage_served(&served, wanted).await.map(drop)
    }

    /// Stages a volume that is served like this; the caller holds the guard.
    pub(super) async fn stage_served(
        &self,
        served: &Served,
        wanted: &Stage,
    ) -> Result<Device, Fault> {
        let engine = self.engine_of(served).await?;
        let mut device = None;
        if let Some(held) = self.held(&served.volume).await? {
            if is_replaced(&held, served, &engine) {
                self.let_go(&held, served, &wanted.staging).await?;
            } else {
                device = Some(held);
            }
        }
        let mut device = match device {
            Some(device) => device,
            None => self.make_device(served, engine).await?,
        };
        if device.size < served.size {
            // It grew while nobody used it here.
            let resizing = self.attach.resize(&served.volume).await;
            device = resizing.map_err(|e| Fault::attach(Asked::Resize, &e))?;
        }
        if let Access::Mount(options) = &wanted.access {
            let (device, staging) = (device.clone(), wanted.staging.clone());
            let options = options.clone();
            self.on_mounts(move |mounts| mount(mounts, &device, &staging, &options)).await?;
        }
        Ok(device)
    }

    async fn make_device(&self, served: &Served, engine: EngineAddresses) -> Result<Device, Fault> {
        let (volume, generation) = (served.volume.clone(), served.generation);
        let wanted = Wanted { volume, generation, engine, read_only: false };
        let attaching = self.attach.attach(&wanted).await;
        attaching.map_err(|e| Fault::attach(Asked::Attach, &e))
    }

    /// Takes away a replaced device that no pod uses any more.
    async fn let_go(&self, device: &Device, served: &Served, staging: &Path) -> Result<(), Fault> {
        if let Some(target) = self.user_of(device, staging).await? {
            return Err(Fault::wrong_state(format!(
                "volume {} is still used at {} in generation {}, which is over (now {} at node {}): delete the pod that uses it",
                device.volume,
                target.display(),
                device.generation,
                served.generation,
                served.node
            )));
        }
        self.release(device, staging, "it was replaced").await
    }

    /// Unmounts staging and takes the device away.
    async fn release(&self, device: &Device, staging: &Path, reason: &str) -> Result<(), Fault> {
        if device.state == DeviceState::Waiting && reason != UNSTAGED {
            // What it still holds would wait for ever, and the unmount with it.
            let failing = self.attach.fail(&device.volume, device.generation, reason).await;
            failing.map_err(|e| Fault::attach(Asked::Detach, &e))?;
        }
        self.unmount(staging).await?;
        let detaching = self.attach.detach(&device.volume).await;
        detaching.map_err(|e| Fault::attach(Asked::Detach, &e))
    }

    /// Takes away whatever is mounted at staging, a place that is for one volume only.
    async fn unmount(&self, staging: &Path) -> Result<(), Fault> {
        let at = staging.to_owned();
        self.on_mounts(move |mounts| {
            while mounts.table()?.at(&at).is_some() {
                mounts.unmount(&at)?;
            }
            Ok(())
        })
        .await
    }

    /// Where a device is mounted beside staging. One without a node any more is mounted nowhere.
    async fn user_of(&self, device: &Device, staging: &Path) -> Result<Option<PathBuf>, Fault> {
        let (path, at) = (device.path.clone(), staging.to_owned());
        self.on_mounts(move |mounts| {
            let Found::Device(number) = mounts.found(&path)? else { return Ok(None) };
            let table = mounts.table()?;
            Ok(table.users(number, &[&at]).next().map(|mount| mount.target.clone()))
        })
        .await
    }

    pub(super) async fn unstage(&self, wanted: Unstage) -> Result<(), Fault> {
        // No volume of ours: nothing of it is here.
        let Some(volume) = wanted.volume else { return Ok(()) };
        let _guard = self.guards.take(&volume)?;
        let Some(device) = self.held(&volume).await? else {
            // Its device is gone already; what is mounted there hangs in the air.
            return self.unmount(&wanted.staging).await;
        };
        if let Some(target) = self.user_of(&device, &wanted.staging).await? {
            return Err(Fault::wrong_state(format!(
                "volume {volume} is still published at {}: unpublish it first",
                target.display()
            )));
        }
        let reason = if self.is_over(&device).await { "it was replaced" } else { UNSTAGED };
        self.release(&device, &wanted.staging, reason).await
    }

    /// Whether a waiting device waits for an engine that was replaced. If nobody can tell, it is not.
    async fn is_over(&self, device: &Device) -> bool {
        if device.state != DeviceState::Waiting {
            return false;
        }
        let Ok(served) = self.serving(&device.volume).await else { return false };
        let Ok(engine) = self.engine_of(&served).await else { return false };
        is_replaced(device, &served, &engine)
    }
}

/// Why a device goes when nothing is wrong with it.
const UNSTAGED: &str = "it is no longer used here";

/// Mounts the ext4 of a device at staging; makes one if the device is blank.
fn mount<M: Mounts>(
    mounts: &M,
    device: &Device,
    staging: &Path,
    options: &MountOptions,
) -> Result<(), Fault> {
    let number = number(mounts, device)?;
    while let Some(there) = mounts.table()?.at(staging).cloned() {
        if there.device == number {
            return Ok(());
        }
        // Left from an earlier device of this volume; anything else is not ours to take away.
        if there.device.major != number.major {
            return Err(Fault::wrong_state(format!(
                "something else is mounted at {}, where volume {} is to be staged: unmount it",
                staging.display(),
                device.volume
            )));
        }
        mounts.unmount(staging)?;
    }
    match mounts.content(&device.path)? {
        Content::Ext4 => {}
        Content::Blank | Content::Unfinished => mounts.format(&device.path)?,
        Content::Foreign(what) => {
            return Err(Fault::wrong_state(format!(
                "volume {} holds {what}, and no ext4: it is not formatted over; use it with volumeMode Block, or make an ext4 on it yourself",
                device.volume
            )));
        }
    }
    mounts.mount(&device.path, staging, options)
}
