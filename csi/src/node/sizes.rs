//! NodeGetVolumeStats and NodeExpandVolume.

use understudy_core::engine::attach::api::{Device, DeviceState};

use super::{Node, number};
use crate::attach::Attach;
use crate::fault::{Asked, Fault, Problem};
use crate::mount::{Found, Mounts, Usage};
use crate::proto::csi;
use crate::request::{Expand, Stats, no_volume};
use crate::volume::signed;
use crate::volumes::Volumes;

fn usage(unit: csi::volume_usage::Unit, usage: Usage) -> csi::VolumeUsage {
    csi::VolumeUsage {
        available: signed(usage.available),
        total: signed(usage.total),
        used: signed(usage.used),
        unit: unit.into(),
    }
}

fn not_there(volume: &impl std::fmt::Display, path: &std::path::Path) -> Fault {
    let path = crate::call::shown(&path.to_string_lossy());
    let text = format!("volume {volume} is not at {path}: stage and publish it there first");
    Fault::new(Problem::NotFound, text)
}

/// How the device stands, for the kubelet's events.
fn condition(device: &Device) -> csi::VolumeCondition {
    let why = device.error.as_deref().unwrap_or("no reason is known");
    let (abnormal, message) = match device.state {
        DeviceState::Serving => (false, format!("served in generation {}", device.generation)),
        DeviceState::Waiting => {
            (true, format!("its engine is away, and requests wait for it: {why}"))
        }
        DeviceState::Gone => (
            true,
            format!(
                "generation {} is over ({why}): delete the pod, and a new one finds the volume",
                device.generation
            ),
        ),
    };
    csi::VolumeCondition { abnormal, message }
}

impl<V: Volumes, A: Attach, M: Mounts> Node<V, A, M> {
    /// Takes no guard: it changes nothing, and the kubelet asks all the time.
    pub(super) async fn stats(
        &self,
        wanted: Stats,
    ) -> Result<csi::NodeGetVolumeStatsResponse, Fault> {
        use csi::volume_usage::Unit;
        let held = self.held(&wanted.volume).await?;
        let device = held.ok_or_else(|| not_there(&wanted.volume, &wanted.path))?;
        let condition = Some(condition(&device));
        let usage = self
            .on_mounts(move |mounts| {
                let number = number(mounts, &device)?;
                match mounts.found(&wanted.path)? {
                    Found::Device(found) if found == number => {
                        let size = device.size.0;
                        // How much of a raw device is in use, only its user knows.
                        let total = csi::VolumeUsage {
                            total: signed(size),
                            unit: Unit::Bytes.into(),
                            ..csi::VolumeUsage::default()
                        };
                        Ok(vec![total])
                    }
                    Found::Directory
                        if mounts.table()?.at(&wanted.path).is_some_and(|m| m.device == number) =>
                    {
                        let found = mounts.usage(&wanted.path)?;
                        Ok(vec![usage(Unit::Bytes, found.bytes), usage(Unit::Inodes, found.inodes)])
                    }
                    Found::Nothing | Found::Device(_) | Found::Directory | Found::File => {
                        Err(not_there(&wanted.volume, &wanted.path))
                    }
                }
            })
            .await?;
        Ok(csi::NodeGetVolumeStatsResponse { usage, volume_condition: condition })
    }

    pub(super) async fn expand(
        &self,
        wanted: Expand,
    ) -> Result<csi::NodeExpandVolumeResponse, Fault> {
        let _guard = self.guards.take(&wanted.volume)?;
        if self.held(&wanted.volume).await?.is_none() {
            return Err(match self.volumes.get(&wanted.volume).await? {
                Some(_) => not_there(&wanted.volume, &wanted.path),
                None => no_volume(&wanted.volume),
            });
        }
        let path = wanted.path.clone();
        if self.on_mounts(move |mounts| mounts.found(&path)).await? == Found::Nothing {
            return Err(not_there(&wanted.volume, &wanted.path));
        }
        let resizing = self.attach.resize(&wanted.volume).await;
        let device = resizing.map_err(|e| Fault::attach(Asked::Resize, &e))?;
        let size = device.size;
        if let Some(least) = wanted.sizes.at_least.filter(|least| size.0 < *least) {
            let text = format!(
                "volume {} has {size} bytes at its engine, not {least} yet: expand it there first",
                wanted.volume
            );
            return Err(Fault::new(Problem::Unavailable, text));
        }
        self.on_mounts(move |mounts| {
            let number = number(mounts, &device)?;
            // Mounted: its ext4 grows with it. As a raw device its user sees to that.
            if mounts.table()?.of(number).any(|mount| mount.device == number) {
                mounts.grow(&device.path)?;
            }
            Ok(())
        })
        .await?;
        Ok(csi::NodeExpandVolumeResponse { capacity_bytes: signed(size.0) })
    }
}
