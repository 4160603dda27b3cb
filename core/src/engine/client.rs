//! A typed client of the engine API, for the operator, the CSI plugin and tests.
//!
//! ```text
//!   EngineClient ── one HTTP/2 connection over TLS, a Unix socket or TCP; reconnects by itself
//!     every call: a deadline ─► Ok(typed answer) │ Refused { code, message } │ Unreachable │ ...
//! ```
//!
//! Clones share the connection. Every call of the API is idempotent, so an answer that was lost is
//! asked for again.

mod error;
mod reach;

pub use crate::tls::Tls;
pub use error::ClientError;

use std::time::Duration;

use futures::{Stream, StreamExt};
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::api::{
    Address, ByteLen, Capacity, EngineStatus, Epoch, Failover, Generation, GroupId, Member, Policy,
    Refusal, Replica, Start, VolumeId,
};
use super::proto;

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a call may take, unless [`EngineClient::with_deadline`] says otherwise. A checkpoint
/// or a stop waits for the peer.
const DEADLINE: Duration = Duration::from_secs(30);

/// How often an idle connection is probed, and how long an answer may take: a machine that
/// vanished is noticed within the sum.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));

/// The largest answer taken, in bytes: the status of some ten thousand groups.
const ANSWER_MAX: usize = 16 << 20;

/// A connection to an engine.
#[derive(Clone, Debug)]
pub struct EngineClient {
    inner: proto::engine_client::EngineClient<Channel>,
    channel: Channel,
    address: Address,
    deadline: Duration,
}

impl EngineClient {
    /// Connects, or says why it can't within some seconds. Without TLS.
    pub async fn connect(address: &Address) -> Result<Self, ClientError> {
        Self::connect_with(address, None).await
    }

    /// The same, proving itself with `tls` where the address wants that: at its far end must be the
    /// engine of the node that it names.
    pub async fn connect_with(address: &Address, tls: Option<&Tls>) -> Result<Self, ClientError> {
        let endpoint = reach::endpoint();
        match endpoint.connect_with_connector(reach::connector(address, tls)).await {
            Ok(channel) => Ok(Self::over(channel, address)),
            Err(e) => {
                let (address, reason) = (address.clone(), reach::reason(&e));
                Err(ClientError::Unreachable { address, reason })
            }
        }
    }

    /// Connects at the first call; must be called within a tokio runtime. Without TLS.
    pub fn lazy(address: &Address) -> Result<Self, ClientError> {
        Self::lazy_with(address, None)
    }

    /// The same with TLS: see [`connect_with`](Self::connect_with). Each new connection uses the
    /// certificates of its time.
    pub fn lazy_with(address: &Address, tls: Option<&Tls>) -> Result<Self, ClientError> {
        let connector = reach::connector(address, tls);
        Ok(Self::over(reach::endpoint().connect_with_connector_lazy(connector), address))
    }

    fn over(channel: Channel, address: &Address) -> Self {
        let inner = proto::engine_client::EngineClient::new(channel.clone())
            .max_decoding_message_size(ANSWER_MAX);
        Self { inner, channel, address: address.clone(), deadline: DEADLINE }
    }

    /// The same connection with another deadline for each call.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// Where the engine is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Makes a replica of zeroes; fine if there is one of that size.
    pub async fn create_replica(&self, replica: &Member) -> Result<Replica, ClientError> {
        let request = proto::CreateReplicaRequest {
            volume: replica.volume.to_string(),
            size_bytes: replica.size.0,
        };
        let answer =
            self.call(request, |mut c, r| async move { c.create_replica(r).await }).await?;
        answer.try_into().map_err(|e| self.garbled(&e))
    }

    /// Deletes a replica and its content; fine if there is none.
    pub async fn delete_replica(&self, volume: &VolumeId) -> Result<(), ClientError> {
        let request = proto::DeleteReplicaRequest { volume: volume.to_string() };
        self.call(request, |mut c, r| async move { c.delete_replica(r).await }).await.map(drop)
    }

    /// Grows a replica; its length then. Never shrinks; fine if it has that size.
    pub async fn expand_replica(
        &self,
        volume: &VolumeId,
        size: ByteLen,
    ) -> Result<ByteLen, ClientError> {
        let request =
            proto::ExpandReplicaRequest { volume: volume.to_string(), size_bytes: size.0 };
        let answer =
            self.call(request, |mut c, r| async move { c.expand_replica(r).await }).await?;
        Ok(ByteLen(answer.size_bytes))
    }

    /// The right to ask for the export `VOLUME/primary@GENERATION#SESSION`.
    pub async fn open_session(
        &self,
        volume: &VolumeId,
        generation: Generation,
    ) -> Result<u64, ClientError> {
        let request = proto::OpenSessionRequest {
            volume: volume.to_string(),
            generation: generation.to_string(),
        };
        let answer = self.call(request, |mut c, r| async move { c.open_session(r).await }).await?;
        Ok(answer.session)
    }

    /// Ends a session, so that the next one need not wait for it to have gone.
    pub async fn close_session(&self, volume: &VolumeId, session: u64) -> Result<(), ClientError> {
        let request = proto::CloseSessionRequest { volume: volume.to_string(), session };
        self.call(request, |mut c, r| async move { c.close_session(r).await }).await.map(drop)
    }

    /// Begins or resumes a role in a group.
    pub async fn start(&self, start: &Start) -> Result<(), ClientError> {
        let request = proto::StartRequest::from(start);
        self.call(request, |mut c, r| async move { c.start(r).await }).await.map(drop)
    }

    /// Changes the policy of a running group.
    pub async fn set_policy(
        &self,
        group: &GroupId,
        generation: Generation,
        policy: &Policy,
    ) -> Result<(), ClientError> {
        let request = proto::SetPolicyRequest {
            group: group.to_string(),
            generation: generation.to_string(),
            policy: Some(policy.into()),
        };
        self.call(request, |mut c, r| async move { c.set_policy(r).await }).await.map(drop)
    }

    /// Closes the open epoch; the checkpoint that is complete on both sides when this returns.
    pub async fn checkpoint(
        &self,
        group: &GroupId,
        generation: Generation,
    ) -> Result<Epoch, ClientError> {
        let request = proto::CheckpointRequest {
            group: group.to_string(),
            generation: generation.to_string(),
        };
        let answer = self.call(request, |mut c, r| async move { c.checkpoint(r).await }).await?;
        Ok(Epoch(answer.epoch))
    }

    /// Ends replication after a last checkpoint; with `abandon_peer` at once, without the peer.
    pub async fn stop(
        &self,
        group: &GroupId,
        generation: Generation,
        abandon_peer: bool,
    ) -> Result<(), ClientError> {
        let request = proto::StopRequest {
            group: group.to_string(),
            generation: generation.to_string(),
            abandon_peer,
        };
        self.call(request, |mut c, r| async move { c.stop(r).await }).await.map(drop)
    }

    /// Promotes the secondary; the checkpoint it serves now.
    pub async fn failover(&self, failover: &Failover) -> Result<Epoch, ClientError> {
        let request = proto::FailoverRequest::from(failover);
        let answer = self.call(request, |mut c, r| async move { c.failover(r).await }).await?;
        Ok(Epoch(answer.epoch))
    }

    /// The first error of the group that no later checkpoint has cleared.
    pub async fn get_error(
        &self,
        group: &GroupId,
        generation: Generation,
    ) -> Result<Option<String>, ClientError> {
        let request =
            proto::GetErrorRequest { group: group.to_string(), generation: generation.to_string() };
        let answer = self.call(request, |mut c, r| async move { c.get_error(r).await }).await?;
        Ok((!answer.error.is_empty()).then_some(answer.error))
    }

    /// The pool's space.
    pub async fn capacity(&self) -> Result<Capacity, ClientError> {
        let request = proto::CapacityRequest {};
        let answer = self.call(request, |mut c, r| async move { c.capacity(r).await }).await?;
        answer.try_into().map_err(|e| self.garbled(&e))
    }

    /// Whether it serves, by the standard health service; an error says why not.
    pub async fn health(&self) -> Result<(), ClientError> {
        use tonic_health::pb::health_check_response::ServingStatus;
        let service = proto::engine_server::SERVICE_NAME.to_owned();
        let request = tonic_health::pb::HealthCheckRequest { service };
        let mut client = tonic_health::pb::health_client::HealthClient::new(self.channel.clone());
        match tokio::time::timeout(self.deadline, client.check(request)).await {
            Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => Ok(()),
            Ok(Ok(_)) => {
                let message = format!("the engine at {} is about to stop", self.address);
                Err(ClientError::Refused { refusal: Refusal::Unavailable, message })
            }
            Ok(Err(status)) => Err(self.error(&status)),
            Err(_) => Err(self.late()),
        }
    }

    /// The engine now.
    pub async fn status(&self) -> Result<EngineStatus, ClientError> {
        let mut stream = self.open_status(0, true).await?;
        let next = async { stream.next().await };
        match tokio::time::timeout(self.deadline, next).await {
            Ok(Some(status)) => status,
            Ok(None) => Err(self.garbled(&"an empty stream")),
            Err(_) => Err(self.late()),
        }
    }

    /// The engine now, and again on each change, at most once in `interval`. Ends with an error
    /// when the engine goes away; the caller asks anew.
    pub async fn watch_status(
        &self,
        interval: Duration,
    ) -> Result<
        impl Stream<Item = Result<EngineStatus, ClientError>> + Send + Unpin + 'static,
        ClientError,
    > {
        let interval = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        self.open_status(interval, false).await
    }

    async fn open_status(
        &self,
        interval_ms: u64,
        once: bool,
    ) -> Result<
        impl Stream<Item = Result<EngineStatus, ClientError>> + Send + Unpin + 'static,
        ClientError,
    > {
        let mut client = self.inner.clone();
        let request = proto::WatchStatusRequest { interval_ms, once };
        let opening = client.watch_status(request);
        let stream = tokio::time::timeout(self.deadline, opening)
            .await
            .map_err(|_| self.late())?
            .map_err(|s| self.error(&s))?
            .into_inner();
        let this = self.clone();
        Ok(stream.map(move |item| match item {
            Ok(status) => status.try_into().map_err(|e| this.garbled(&e)),
            Err(status) => Err(this.error(&status)),
        }))
    }

    /// One call with its deadline, which the engine is told too.
    async fn call<Q, A, F, Fut>(&self, message: Q, method: F) -> Result<A, ClientError>
    where
        F: FnOnce(proto::engine_client::EngineClient<Channel>, Request<Q>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        match tokio::time::timeout(self.deadline, method(self.inner.clone(), request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.error(&status)),
            Err(_) => Err(self.late()),
        }
    }

    fn error(&self, status: &Status) -> ClientError {
        let Some(refusal) = Refusal::from_code(status.code()) else { return self.late() };
        // The transport's own failures carry their cause; the engine's answers don't.
        if std::error::Error::source(status).is_some() {
            let (address, reason) = (self.address.clone(), reach::reason(status));
            return ClientError::Unreachable { address, reason };
        }
        ClientError::Refused { refusal, message: status.message().to_owned() }
    }

    fn late(&self) -> ClientError {
        ClientError::Deadline { address: self.address.clone(), after: self.deadline }
    }

    fn garbled(&self, problem: &dyn std::fmt::Display) -> ClientError {
        ClientError::Garbled { address: self.address.clone(), problem: problem.to_string() }
    }
}
