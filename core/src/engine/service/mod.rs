//! The engine API's calls: parse, ask the engine, answer.
//!
//! ```text
//!   request ── permissions ── convert ──► Engine ──► answer
//!      │ Invalid             │ EngineError
//!      └──────► INVALID_ARGUMENT, NOT_FOUND, ... (the table of `error`)
//! ```
//!
//! Every call ends within [`DEADLINE`] or its client's, if that is sooner; what it asked for goes on,
//! and the same call again finds it done or waits for it.

pub(crate) mod permissions;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};
use tracing::{debug, info};

use super::api::{Failover, Member, Refusal, Start};
use super::convert;
use super::error::EngineError;
use super::listeners::Stop;
use super::proto;
use super::registry::Engine;

/// How long a call may take. A stop or a checkpoint waits for the peer, and throttled disks.
const DEADLINE: Duration = Duration::from_mins(2);

/// The service. Clones share the engine.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    engine: Arc<Engine>,
    watchers: Arc<tokio::sync::Semaphore>,
    stop: Stop,
}

impl Service {
    /// Serves this engine; its streams end at `stop`.
    pub(crate) fn new(engine: Arc<Engine>, stop: Stop) -> Self {
        Self { engine, watchers: Arc::new(tokio::sync::Semaphore::new(watch::WATCHERS)), stop }
    }
}

/// Runs `work` to its end, and waits for it as long as a call may take.
async fn within<T: Send + 'static>(
    call: &'static str,
    work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
) -> Result<Response<T>, Status> {
    let began = std::time::Instant::now();
    let out = match tokio::time::timeout(DEADLINE, tokio::spawn(work)).await {
        Ok(Ok(out)) => out,
        Ok(Err(e)) => Err(EngineError::new(Refusal::Internal, format!("{call} panicked: {e}"))),
        Err(_) => {
            let text = format!("{call} is not done after {DEADLINE:?}, and goes on: ask again");
            return Err(Status::deadline_exceeded(text));
        }
    };
    let took = began.elapsed();
    match out {
        Ok(answer) => {
            debug!(call, ?took, "done");
            Ok(Response::new(answer))
        }
        Err(e) => {
            // Otherwise only the caller sees it.
            info!(call, ?took, refusal = ?e.refusal, "refused: {e}");
            Err(e.into())
        }
    }
}

#[tonic::async_trait]
impl proto::engine_server::Engine for Service {
    async fn create_replica(
        &self,
        request: Request<proto::CreateReplicaRequest>,
    ) -> Result<Response<proto::CreateReplicaResponse>, Status> {
        let engine = self.engine.clone();
        within("CreateReplica", async move {
            let replica = engine.create_replica(Member::try_from(request.into_inner())?).await?;
            let (replica_uuid, size_bytes) = (replica.uuid.to_string(), replica.size.0);
            Ok(proto::CreateReplicaResponse { replica_uuid, size_bytes })
        })
        .await
    }

    async fn delete_replica(
        &self,
        request: Request<proto::DeleteReplicaRequest>,
    ) -> Result<Response<proto::DeleteReplicaResponse>, Status> {
        let engine = self.engine.clone();
        within("DeleteReplica", async move {
            engine.delete_replica(convert::name("volume", &request.into_inner().volume)?).await?;
            Ok(proto::DeleteReplicaResponse {})
        })
        .await
    }

    async fn expand_replica(
        &self,
        request: Request<proto::ExpandReplicaRequest>,
    ) -> Result<Response<proto::ExpandReplicaResponse>, Status> {
        let engine = self.engine.clone();
        within("ExpandReplica", async move {
            let request = request.into_inner();
            let volume = convert::name("volume", &request.volume)?;
            let size = convert::size("size_bytes", request.size_bytes)?;
            let size = engine.expand_replica(volume, size).await?;
            Ok(proto::ExpandReplicaResponse { size_bytes: size.0 })
        })
        .await
    }

    async fn open_session(
        &self,
        request: Request<proto::OpenSessionRequest>,
    ) -> Result<Response<proto::OpenSessionResponse>, Status> {
        let engine = self.engine.clone();
        within("OpenSession", async move {
            let request = request.into_inner();
            let volume = convert::name("volume", &request.volume)?;
            let generation = convert::generation("generation", &request.generation)?;
            let session = engine.open_session(volume, generation).await?;
            Ok(proto::OpenSessionResponse { session })
        })
        .await
    }

    async fn close_session(
        &self,
        request: Request<proto::CloseSessionRequest>,
    ) -> Result<Response<proto::CloseSessionResponse>, Status> {
        let engine = self.engine.clone();
        within("CloseSession", async move {
            let request = request.into_inner();
            let volume = convert::name("volume", &request.volume)?;
            engine.close_session(volume, request.session).await?;
            Ok(proto::CloseSessionResponse {})
        })
        .await
    }

    async fn start(
        &self,
        request: Request<proto::StartRequest>,
    ) -> Result<Response<proto::StartResponse>, Status> {
        let engine = self.engine.clone();
        within("Start", async move {
            let start = Start::try_from(request.into_inner())?;
            engine.check_peer(start.peer.as_ref())?;
            engine.start(start).await?;
            Ok(proto::StartResponse {})
        })
        .await
    }

    async fn set_policy(
        &self,
        request: Request<proto::SetPolicyRequest>,
    ) -> Result<Response<proto::SetPolicyResponse>, Status> {
        let engine = self.engine.clone();
        within("SetPolicy", async move {
            let request = request.into_inner();
            let (group, generation) = request.target()?;
            let policy = convert::policy(request.policy.unwrap_or_default())?;
            engine.set_policy(group, generation, policy).await?;
            Ok(proto::SetPolicyResponse {})
        })
        .await
    }

    async fn checkpoint(
        &self,
        request: Request<proto::CheckpointRequest>,
    ) -> Result<Response<proto::CheckpointResponse>, Status> {
        let engine = self.engine.clone();
        within("Checkpoint", async move {
            let (group, generation) = request.into_inner().target()?;
            let epoch = engine.checkpoint(group, generation).await?.0;
            Ok(proto::CheckpointResponse { epoch })
        })
        .await
    }

    async fn stop(
        &self,
        request: Request<proto::StopRequest>,
    ) -> Result<Response<proto::StopResponse>, Status> {
        let engine = self.engine.clone();
        within("Stop", async move {
            let request = request.into_inner();
            let (group, generation) = request.target()?;
            engine.stop(group, generation, request.abandon_peer).await?;
            Ok(proto::StopResponse {})
        })
        .await
    }

    async fn failover(
        &self,
        request: Request<proto::FailoverRequest>,
    ) -> Result<Response<proto::FailoverResponse>, Status> {
        let engine = self.engine.clone();
        within("Failover", async move {
            let epoch = engine.failover(Failover::try_from(request.into_inner())?).await?.0;
            Ok(proto::FailoverResponse { epoch })
        })
        .await
    }

    async fn get_error(
        &self,
        request: Request<proto::GetErrorRequest>,
    ) -> Result<Response<proto::GetErrorResponse>, Status> {
        let engine = self.engine.clone();
        within("GetError", async move {
            let (group, generation) = request.into_inner().target()?;
            let error = engine.get_error(group, generation).await?.unwrap_or_default();
            Ok(proto::GetErrorResponse { error })
        })
        .await
    }

    type WatchStatusStream = watch::StatusStream;

    async fn watch_status(
        &self,
        request: Request<proto::WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        self.watch(&request.into_inner()).map(Response::new).map_err(Into::into)
    }

    async fn capacity(
        &self,
        _: Request<proto::CapacityRequest>,
    ) -> Result<Response<proto::CapacityResponse>, Status> {
        let engine = self.engine.clone();
        within("Capacity", async move {
            let c = engine.capacity().await?;
            Ok(proto::CapacityResponse {
                total_bytes: c.total.0,
                available_bytes: c.available.0,
                pool_uuid: c.pool.to_string(),
            })
        })
        .await
    }
}
