//! Who serves a volume now, and whether a device is still bound to that.
//!
//! ```text
//!   ReplicatedVolume ─┬─ Alone:   its node, its generation
//!                     └─ Grouped: ReplicationGroup ─► primary's node, generation; while it joins:
//!                                                     as when it was alone, which goes on
//!
//!   a device is replaced:  it is gone (its engine said so)
//!                          or another engine serves another generation
//!   not replaced:          same engine, older generation: the volume joined a group there, and the
//!                          device goes on; the engine itself knows, and ends it if not
//! ```

use understudy_core::engine::api::{ByteLen, Generation, VolumeId};
use understudy_core::engine::attach::api::{Device, DeviceState, EngineAddresses};

use super::Node;
use crate::attach::Attach;
use crate::fault::{Fault, Problem};
use crate::mount::Mounts;
use crate::request::no_volume;
use crate::volume::{Place, Standing};
use crate::volumes::Volumes;

/// Who serves a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Served {
    /// Which volume.
    pub volume: VolumeId,
    /// On which node.
    pub node: String,
    /// In which generation.
    pub generation: Generation,
    /// How large it is.
    pub size: ByteLen,
}

impl<V: Volumes, A: Attach, M: Mounts> Node<V, A, M> {
    /// Who serves a volume, as the objects say.
    pub(super) async fn serving(&self, handle: &VolumeId) -> Result<Served, Fault> {
        let volume = self.volumes.get(handle).await?.ok_or_else(|| no_volume(handle))?;
        let (node, generation) = match &volume.place {
            Place::Alone(alone) => (alone.node.clone(), alone.generation),
            Place::Grouped { group } => {
                let found = self.volumes.group(group).await?.ok_or_else(|| {
                    // Its replication is ending; the next look finds it alone.
                    let text =
                        format!("volume {handle} is moving out of the group {group}: try again");
                    Fault::new(Problem::Unavailable, text)
                })?;
                match (found.standing(handle), volume.before()) {
                    (Standing::Covered, _) => (found.primary.node, found.generation),
                    (Standing::Joining, Some(alone)) => (alone.node, alone.generation),
                    (Standing::Joining, None) | (Standing::Undecided, _) => {
                        let text = format!(
                            "it is not known yet whether the failover of the group {group} has left volume \
                             {handle} behind: try again"
                        );
                        return Err(Fault::new(Problem::Unavailable, text));
                    }
                }
            }
            Place::Unserved { .. } => {
                return Err(Fault::wrong_state(format!("volume {handle} is being deleted")));
            }
        };
        Ok(Served { volume: volume.handle, node, generation, size: volume.size })
    }

    /// Where the engine is that serves a volume.
    pub(super) async fn engine_of(&self, served: &Served) -> Result<EngineAddresses, Fault> {
        if served.node == self.here.node {
            return Ok(self.here.engine.clone());
        }
        let unavailable = |why: &str| {
            let text = format!(
                "node {}, which serves volume {}, {why}: bring it back, or fail over",
                served.node, served.volume
            );
            Fault::new(Problem::Unavailable, text)
        };
        let node = self.volumes.node(&served.node).await?;
        let node = node.ok_or_else(|| unavailable("does not run the driver"))?;
        node.engine.ok_or_else(|| unavailable("has no InternalIP"))
    }
}

/// Whether a device has nothing to serve it any more, and never will.
pub(super) fn is_replaced(device: &Device, served: &Served, engine: &EngineAddresses) -> bool {
    device.state == DeviceState::Gone
        || (device.generation != served.generation && device.engine != *engine)
}
