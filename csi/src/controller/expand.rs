//! ControllerExpandVolume.
//!
//! ```text
//!   Alone:    engine                         ─► ReplicatedVolume
//!   Grouped:  secondary's engine ─► primary's ─► ReplicationGroup's member ─► ReplicatedVolume
//!                (it must take what the primary may send it from then on)
//! ```
//!
//! Each step may be repeated. The device and the file system grow in NodeExpandVolume.

use understudy_core::engine::api::{ByteLen, Uuid};

use super::Controller;
use crate::engines::Engines;
use crate::fault::{Asked, Fault, Problem};
use crate::proto::csi;
use crate::request::{Capability, Sizes, known_volume_id, no_volume};
use crate::volume::{Group, Place, Volume, signed};
use crate::volumes::Volumes;

impl<V: Volumes, E: Engines> Controller<V, E> {
    pub(super) async fn expand(
        &self,
        request: &csi::ControllerExpandVolumeRequest,
    ) -> Result<csi::ControllerExpandVolumeResponse, Fault> {
        let sizes = Sizes::parse(request.capacity_range.as_ref())?;
        if request.capacity_range.is_none() {
            return Err(Fault::invalid("capacity_range is missing: say how large it shall be"));
        }
        if let Some(capability) = &request.volume_capability {
            Capability::parse(capability)?;
        }
        let handle = known_volume_id(&request.volume_id)?;
        let _guard = self.guards.take(&handle)?;
        let volume = self.volumes.get(&handle).await?.ok_or_else(|| no_volume(&handle))?;
        let mut size = grown(&volume, sizes)?;
        match &volume.place {
            Place::Unserved { .. } => {
                return Err(Fault::wrong_state(format!("volume {handle} is being deleted")));
            }
            // The object is written last: all has been done.
            _ if size == volume.size => {}
            Place::Alone(alone) => {
                self.expand_at(&volume, size, &alone.node, alone.pool).await?;
                self.volumes.update(&volume.with_size(size)).await?;
            }
            Place::Grouped { group } => {
                let group = self.volumes.group(group).await?.ok_or_else(|| {
                    let text =
                        format!("volume {handle} is moving out of the group {group}: try again");
                    Fault::new(Problem::Unavailable, text)
                })?;
                size = self.expand_group(&volume, size, &group).await?;
                self.volumes.update(&volume.with_size(size)).await?;
            }
        }
        Ok(csi::ControllerExpandVolumeResponse {
            capacity_bytes: signed(size.0),
            // The device must learn of it, a raw one too.
            node_expansion_required: true,
        })
    }

    /// The size then: more than was asked for, where an earlier call that asked for more came so far.
    async fn expand_group(
        &self,
        volume: &Volume,
        size: ByteLen,
        group: &Group,
    ) -> Result<ByteLen, Fault> {
        let Some(written) = group.member_size(&volume.handle) else {
            let text =
                format!("volume {} is joining the group {}: try again", volume.handle, group.name);
            return Err(Fault::new(Problem::Unavailable, text));
        };
        let size = size.max(written);
        for side in group.secondary.iter().chain([&group.primary]) {
            self.expand_at(volume, size, &side.node, side.pool).await?;
        }
        if written < size {
            self.volumes.update_group(&group.with_member_size(&volume.handle, size)).await?;
        }
        Ok(size)
    }

    async fn expand_at(
        &self,
        volume: &Volume,
        size: ByteLen,
        node: &str,
        pool: Uuid,
    ) -> Result<(), Fault> {
        let at = self.engine_with_pool(Asked::Expand, node, pool).await?;
        let expanding = self.engines.expand_replica(&at, &volume.handle, size);
        let got = expanding.await.map_err(|e| Fault::engine(Asked::Expand, node, &e))?;
        if got < size {
            return Err(Fault::internal(format!(
                "node {node}: the engine has grown volume {} to {got} bytes, and not to {size}",
                volume.handle
            )));
        }
        Ok(())
    }
}

/// The size that the volume shall have: never less than it has.
fn grown(volume: &Volume, sizes: Sizes) -> Result<ByteLen, Fault> {
    if sizes.allow(volume.size) {
        return Ok(volume.size);
    }
    if sizes.at_most.is_some_and(|most| most < volume.size.0) {
        return Err(Fault::new(
            Problem::OutOfRange,
            format!(
                "volume {} has {} bytes already, and never shrinks",
                volume.handle, volume.size
            ),
        ));
    }
    sizes.choose()
}
