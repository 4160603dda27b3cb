//! What the node asks of its attach daemon.

use std::path::Path;
use std::time::Duration;

use understudy_core::engine::api::{Generation, VolumeId};
use understudy_core::engine::attach::api::{Attach as Wanted, Device};
use understudy_core::engine::attach::client::{AttachClient, AttachError};

/// How long a change may take: the daemon asks the engine, which may be on another node.
const CHANGE_DEADLINE: Duration = Duration::from_secs(40);

/// How long the list may take.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// Makes devices of volumes.
pub trait Attach: Send + Sync + 'static {
    /// Makes a device of a volume; fine if there is one of that generation.
    fn attach(&self, wanted: &Wanted) -> impl Future<Output = Result<Device, AttachError>> + Send;

    /// Removes it; fine if there is none, refused while it is open.
    fn detach(&self, volume: &VolumeId) -> impl Future<Output = Result<(), AttachError>> + Send;

    /// Gives it the size that the volume has now.
    fn resize(&self, volume: &VolumeId)
    -> impl Future<Output = Result<Device, AttachError>> + Send;

    /// Makes all its requests fail for good.
    fn fail(
        &self,
        volume: &VolumeId,
        generation: Generation,
        reason: &str,
    ) -> impl Future<Output = Result<Device, AttachError>> + Send;

    /// All devices.
    fn list(&self) -> impl Future<Output = Result<Vec<Device>, AttachError>> + Send;
}

/// The daemon of this node, over its Unix socket.
#[derive(Clone, Debug)]
pub struct LocalAttach {
    client: AttachClient,
}

impl LocalAttach {
    /// The daemon that listens there; must be called within a tokio runtime.
    pub fn new(socket: &Path) -> Self {
        Self { client: AttachClient::lazy(socket) }
    }

    async fn within<T>(
        &self,
        deadline: Duration,
        asking: impl Future<Output = Result<T, AttachError>>,
    ) -> Result<T, AttachError> {
        // The deadline of a call does not bound the wait for a connection; this does.
        let late =
            || AttachError::Deadline { socket: self.client.socket().to_owned(), after: deadline };
        tokio::time::timeout(deadline, asking).await.unwrap_or_else(|_| Err(late()))
    }
}

impl Attach for LocalAttach {
    async fn attach(&self, wanted: &Wanted) -> Result<Device, AttachError> {
        let client = self.client.with_deadline(CHANGE_DEADLINE);
        self.within(CHANGE_DEADLINE, client.attach(wanted)).await
    }

    async fn detach(&self, volume: &VolumeId) -> Result<(), AttachError> {
        let client = self.client.with_deadline(CHANGE_DEADLINE);
        self.within(CHANGE_DEADLINE, client.detach(volume)).await
    }

    async fn resize(&self, volume: &VolumeId) -> Result<Device, AttachError> {
        let client = self.client.with_deadline(CHANGE_DEADLINE);
        self.within(CHANGE_DEADLINE, client.resize(volume)).await
    }

    async fn fail(
        &self,
        volume: &VolumeId,
        generation: Generation,
        reason: &str,
    ) -> Result<Device, AttachError> {
        let client = self.client.with_deadline(CHANGE_DEADLINE);
        self.within(CHANGE_DEADLINE, client.fail(volume, generation, reason)).await
    }

    async fn list(&self) -> Result<Vec<Device>, AttachError> {
        let client = self.client.with_deadline(LOOK_DEADLINE);
        self.within(LOOK_DEADLINE, client.list()).await
    }
}
