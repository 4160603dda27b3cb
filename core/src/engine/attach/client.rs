//! A typed client of the attach API, for the CSI plugin and tests.
//!
//! ```text
//!   AttachClient ── one HTTP/2 connection over a Unix socket; made at the first call, again when it broke
//!     every call: a deadline ─► Ok(typed answer) │ AttachError
//! ```
//!
//! Clones share the connection. Every call is idempotent: an answer that was lost is asked for again.

mod error;

pub use error::AttachError;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::api::{Attach, Device, Generation, Refusal, VolumeId};
use super::proto;
use super::proto::attach_client::AttachClient as Inner;

/// How long a call may take, unless [`AttachClient::with_deadline`] says otherwise.
const DEADLINE: Duration = Duration::from_secs(30);

/// A connection to an attach daemon.
#[derive(Clone, Debug)]
pub struct AttachClient {
    inner: Inner<Channel>,
    health: tonic_health::pb::health_client::HealthClient<Channel>,
    socket: PathBuf,
    deadline: Duration,
}

impl AttachClient {
    /// Connects at the first call; must be called within a tokio runtime.
    pub fn lazy(socket: &Path) -> Self {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        // Only a name for the `:authority` header; the connector goes to the socket.
        let channel =
            Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Self {
            inner: Inner::new(channel.clone()),
            health: tonic_health::pb::health_client::HealthClient::new(channel),
            socket: socket.to_owned(),
            deadline: DEADLINE,
        }
    }

    /// The same connection with another deadline for each call.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// Where the daemon is.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Makes a device of a volume, or says which one it is already.
    pub async fn attach(&self, attach: &Attach) -> Result<Device, AttachError> {
        let request = proto::AttachRequest::from(attach);
        let answer = self.call(request, |mut c, r| async move { c.attach(r).await }).await?;
        answer.try_into().map_err(|e| self.garbled(&e))
    }

    /// Removes the device of a volume; fine if there is none, refused while it is in use.
    pub async fn detach(&self, volume: &VolumeId) -> Result<(), AttachError> {
        let request = proto::DetachRequest { volume: volume.to_string() };
        self.call(request, |mut c, r| async move { c.detach(r).await }).await.map(drop)
    }

    /// Gives the device the size that the volume has now.
    pub async fn resize(&self, volume: &VolumeId) -> Result<Device, AttachError> {
        let request = proto::ResizeRequest { volume: volume.to_string() };
        let answer = self.call(request, |mut c, r| async move { c.resize(r).await }).await?;
        answer.try_into().map_err(|e| self.garbled(&e))
    }

    /// Makes every request of the device fail for good: its generation was replaced.
    pub async fn fail(
        &self,
        volume: &VolumeId,
        generation: Generation,
        reason: &str,
    ) -> Result<Device, AttachError> {
        let request = proto::FailRequest {
            volume: volume.to_string(),
            generation: generation.to_string(),
            reason: reason.to_owned(),
        };
        let answer = self.call(request, |mut c, r| async move { c.fail(r).await }).await?;
        answer.try_into().map_err(|e| self.garbled(&e))
    }

    /// All devices, by volume.
    pub async fn list(&self) -> Result<Vec<Device>, AttachError> {
        let answer =
            self.call(proto::ListRequest {}, |mut c, r| async move { c.list(r).await }).await?;
        answer.devices.into_iter().map(|d| d.try_into().map_err(|e| self.garbled(&e))).collect()
    }

    /// Whether the daemon serves.
    pub async fn health(&self) -> Result<(), AttachError> {
        use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
        let mut client = self.health.clone();
        let request = HealthCheckRequest { service: String::new() };
        let answer = tokio::time::timeout(self.deadline, client.check(request))
            .await
            .map_err(|_| self.late())?
            .map_err(|s| self.error(&s))?
            .into_inner();
        if answer.status() == ServingStatus::Serving {
            return Ok(());
        }
        let message = format!("the attach daemon at {} is ending", self.socket.display());
        Err(AttachError::Refused { refusal: Refusal::Unavailable, message })
    }

    /// One call with its deadline, which the daemon is told too.
    async fn call<Q, A, F, Fut>(&self, message: Q, method: F) -> Result<A, AttachError>
    where
        F: FnOnce(Inner<Channel>, Request<Q>) -> Fut,
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

    fn error(&self, status: &Status) -> AttachError {
        let Some(refusal) = Refusal::from_code(status.code()) else { return self.late() };
        // The transport's own failures carry their cause; the daemon's answers don't.
        if let Some(mut cause) = std::error::Error::source(status) {
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            let (socket, reason) = (self.socket.clone(), cause.to_string());
            return AttachError::Unreachable { socket, reason };
        }
        AttachError::Refused { refusal, message: status.message().to_owned() }
    }

    fn late(&self) -> AttachError {
        AttachError::Deadline { socket: self.socket.clone(), after: self.deadline }
    }

    fn garbled(&self, problem: &dyn std::fmt::Display) -> AttachError {
        AttachError::Garbled { socket: self.socket.clone(), problem: problem.to_string() }
    }
}
