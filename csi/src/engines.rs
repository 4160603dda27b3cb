//! What the controller asks of engines, and the way to them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use understudy_core::engine::api::{
    Address, ByteLen, Capacity, EngineStatus, Member, Replica, Start, VolumeId,
};
use understudy_core::engine::client::{ClientError, EngineClient};

/// How long an engine may take to say how it is: it answers from memory.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// How long a change may take: files of a large volume are laid out.
const CHANGE_DEADLINE: Duration = Duration::from_secs(50);

/// Engines by their address.
pub trait Engines: Send + Sync + 'static {
    /// The space of the pool.
    fn capacity(&self, at: &Address) -> impl Future<Output = Result<Capacity, ClientError>> + Send;

    /// How the engine is.
    fn status(
        &self,
        at: &Address,
    ) -> impl Future<Output = Result<EngineStatus, ClientError>> + Send;

    /// Makes a replica of zeroes; fine if there is one of that size.
    fn create_replica(
        &self,
        at: &Address,
        member: &Member,
    ) -> impl Future<Output = Result<Replica, ClientError>> + Send;

    /// Deletes a replica; fine if there is none, refused while it is in use.
    fn delete_replica(
        &self,
        at: &Address,
        volume: &VolumeId,
    ) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// Grows a replica; fine if it has that size.
    fn expand_replica(
        &self,
        at: &Address,
        volume: &VolumeId,
        size: ByteLen,
    ) -> impl Future<Output = Result<ByteLen, ClientError>> + Send;

    /// Begins a role in a group; fine if it has it.
    fn start(
        &self,
        at: &Address,
        start: &Start,
    ) -> impl Future<Output = Result<(), ClientError>> + Send;
}

/// Engines over the network. Connections are made when first needed and kept.
#[derive(Debug, Default)]
pub struct RemoteEngines {
    clients: Mutex<HashMap<Address, EngineClient>>,
}

impl RemoteEngines {
    fn client(&self, at: &Address, deadline: Duration) -> Result<EngineClient, ClientError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(at) {
            return Ok(client.with_deadline(deadline));
        }
        let client = EngineClient::lazy(at)?;
        clients.insert(at.clone(), client.clone());
        Ok(client.with_deadline(deadline))
    }
}

/// The deadline of a call does not bound the wait for a connection; this does.
async fn within<T>(
    client: &EngineClient,
    deadline: Duration,
    asking: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let late = || ClientError::Deadline { address: client.address().clone(), after: deadline };
    tokio::time::timeout(deadline, asking).await.unwrap_or_else(|_| Err(late()))
}

impl Engines for RemoteEngines {
    async fn capacity(&self, at: &Address) -> Result<Capacity, ClientError> {
        let client = self.client(at, LOOK_DEADLINE)?;
        within(&client, LOOK_DEADLINE, client.capacity()).await
    }

    async fn status(&self, at: &Address) -> Result<EngineStatus, ClientError> {
        let client = self.client(at, LOOK_DEADLINE)?;
        within(&client, LOOK_DEADLINE, client.status()).await
    }

    async fn create_replica(&self, at: &Address, member: &Member) -> Result<Replica, ClientError> {
        let client = self.client(at, CHANGE_DEADLINE)?;
        within(&client, CHANGE_DEADLINE, client.create_replica(member)).await
    }

    async fn delete_replica(&self, at: &Address, volume: &VolumeId) -> Result<(), ClientError> {
        let client = self.client(at, CHANGE_DEADLINE)?;
        within(&client, CHANGE_DEADLINE, client.delete_replica(volume)).await
    }

    async fn expand_replica(
        &self,
        at: &Address,
        volume: &VolumeId,
        size: ByteLen,
    ) -> Result<ByteLen, ClientError> {
        let client = self.client(at, CHANGE_DEADLINE)?;
        within(&client, CHANGE_DEADLINE, client.expand_replica(volume, size)).await
    }

    async fn start(&self, at: &Address, start: &Start) -> Result<(), ClientError> {
        let client = self.client(at, CHANGE_DEADLINE)?;
        within(&client, CHANGE_DEADLINE, client.start(start)).await
    }
}
