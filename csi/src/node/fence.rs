//! Devices that wait for an engine that was replaced must fail.
//!
//! ```text
//!   every few seconds: devices that wait ─► who serves the volume now?
//!       the same node, whatever its generation ─► wait on: the engine says what is over, once it is back
//!       another node, a later generation       ─► fail for good: the pod's requests end, so does the pod
//! ```
//!
//! While the old engine answers, it tells its devices itself. This is for the one that never will:
//! a pod whose requests wait for it could not even be deleted.

use std::time::Duration;

use tracing::{debug, warn};
use understudy_core::engine::attach::api::{Device, DeviceState};

use super::Node;
use super::serving::is_replaced;
use crate::attach::Attach;
use crate::fault::{Asked, Fault};
use crate::mount::Mounts;
use crate::volumes::Volumes;

/// How often is looked. A pod is deleted after a failover within some seconds anyway.
const EVERY: Duration = Duration::from_secs(5);

impl<V: Volumes, A: Attach, M: Mounts> Node<V, A, M> {
    /// Looks after waiting devices, for ever.
    pub async fn fence(self) {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(fault) = self.fence_once().await {
                // The daemon restarts, the API server is away: the next look comes soon.
                debug!("waiting devices were not looked after: {fault}");
            }
        }
    }

    pub(super) async fn fence_once(&self) -> Result<(), Fault> {
        let list = self.attach.list().await.map_err(|e| Fault::attach(Asked::List, &e))?;
        for device in list.into_iter().filter(|d| d.state == DeviceState::Waiting) {
            if let Err(fault) = self.fence_device(&device).await {
                debug!(volume = %device.volume, "not looked after: {fault}");
            }
        }
        Ok(())
    }

    async fn fence_device(&self, device: &Device) -> Result<(), Fault> {
        let served = self.serving(&device.volume).await?;
        let is_later = served.generation.number > device.generation.number;
        if !is_later || !is_replaced(device, &served, &self.engine_of(&served).await?) {
            return Ok(());
        }
        let reason = format!("node {} serves generation {} now", served.node, served.generation);
        let failing = self.attach.fail(&device.volume, device.generation, &reason).await;
        failing.map_err(|e| Fault::attach(Asked::Detach, &e))?;
        warn!(
            volume = %device.volume, generation = %device.generation,
            "the device fails for good: {reason}, and the engine that it waits for was replaced"
        );
        Ok(())
    }
}
