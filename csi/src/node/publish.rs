//! NodePublishVolume and NodeUnpublishVolume.
//!
//! ```text
//!   staged here? ─ replaced meanwhile, and unused ─► staged anew (the kubelet does not ask for it
//!        │                                           where it has staged the volume before)
//!        ▼
//!   block: device node ══ bind ══► target, a file       mount: staging ══ bind ══► target, a directory
//! ```

use understudy_core::engine::attach::api::Device;

use super::serving::is_replaced;
use super::{Node, number};
use crate::attach::Attach;
use crate::fault::{Fault, Problem};
use crate::mount::Mounts;
use crate::request::{Access, Publish, Stage, Unpublish};
use crate::volumes::Volumes;

impl<V: Volumes, A: Attach, M: Mounts> Node<V, A, M> {
    pub(super) async fn publish(&self, wanted: Publish) -> Result<(), Fault> {
        let _guard = self.guards.take(&wanted.volume)?;
        let mut device = self.held(&wanted.volume).await?.ok_or_else(|| not_staged(&wanted))?;
        let served = self.serving(&wanted.volume).await?;
        if is_replaced(&device, &served, &self.engine_of(&served).await?) {
            let stage = Stage {
                volume: wanted.volume.clone(),
                staging: wanted.staging.clone(),
                access: wanted.capability.access.clone(),
            };
            device = self.stage_served(&served, &stage).await?;
        }
        self.on_mounts(move |mounts| publish(mounts, &device, &wanted)).await
    }

    pub(super) async fn unpublish(&self, wanted: Unpublish) -> Result<(), Fault> {
        self.on_mounts(move |mounts| {
            while mounts.table()?.at(&wanted.target).is_some() {
                mounts.unmount(&wanted.target)?;
            }
            mounts.remove(&wanted.target)
        })
        .await
    }
}

fn not_staged(wanted: &Publish) -> Fault {
    Fault::wrong_state(format!(
        "volume {} is not staged at {}: stage it first",
        wanted.volume,
        wanted.staging.display()
    ))
}

fn publish<M: Mounts>(mounts: &M, device: &Device, wanted: &Publish) -> Result<(), Fault> {
    let number = number(mounts, device)?;
    let mut table = mounts.table()?;
    let is_mount = matches!(wanted.capability.access, Access::Mount(_));
    if is_mount && !table.at(&wanted.staging).is_some_and(|mount| mount.device == number) {
        return Err(not_staged(wanted));
    }
    let (staging, target) = (wanted.staging.as_path(), wanted.target.as_path());
    if wanted.capability.single_writer
        && let Some(other) = table.publications(number, &[staging, target]).next()
    {
        return Err(Fault::wrong_state(format!(
            "volume {} is for one pod only, and published at {} already: delete that pod first",
            wanted.volume,
            other.target.display()
        )));
    }
    while let Some(there) = table.at(target) {
        if there.shows(number) {
            if there.node.is_none() == is_mount && there.read_only == wanted.read_only {
                return Ok(());
            }
            return Err(Fault::new(
                Problem::Exists,
                format!(
                    "volume {} is published at {} otherwise: unpublish it first",
                    wanted.volume,
                    target.display()
                ),
            ));
        }
        // Left from an earlier device of this volume; anything else is not ours to take away.
        if there.device.major != number.major && there.node.is_none() {
            return Err(Fault::wrong_state(format!(
                "something else is mounted at {}, where volume {} is to be published: unmount it",
                target.display(),
                wanted.volume
            )));
        }
        mounts.unmount(target)?;
        table = mounts.table()?;
    }
    if is_mount {
        mounts.bind_directory(staging, target, wanted.read_only)
    } else {
        mounts.bind_device(&device.path, target)
    }
}
