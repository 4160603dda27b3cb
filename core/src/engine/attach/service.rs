//! The attach API's calls: parse, ask the devices on a thread that may block, answer.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use tracing::info;

use super::api::Attach;
use super::devices::Devices;
use super::{convert, proto};
use crate::engine::api::Refusal;
use crate::engine::convert::Invalid;
use crate::engine::error::EngineError;

/// The service. Clones share the devices.
#[derive(Clone, Debug)]
pub(super) struct Service(pub(super) Arc<Devices>);

fn invalid(e: Invalid) -> Status {
    EngineError::from(e).into()
}

impl Service {
    /// Runs `work` to its end, also when the caller gives up: the same call again finds it done.
    async fn run<T: Send + 'static>(
        &self,
        call: &'static str,
        work: impl FnOnce(&Devices) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, Status> {
        let devices = self.0.clone();
        let out = tokio::task::spawn_blocking(move || work(&devices))
            .await
            .unwrap_or_else(|e| Err(EngineError::new(Refusal::Internal, format!("{call}: {e}"))));
        out.map_err(|e| {
            info!(call, refusal = ?e.refusal, "refused: {e}");
            e.into()
        })
    }
}

#[tonic::async_trait]
impl proto::attach_server::Attach for Service {
    async fn attach(
        &self,
        request: Request<proto::AttachRequest>,
    ) -> Result<Response<proto::Device>, Status> {
        let attach = Attach::try_from(request.into_inner()).map_err(invalid)?;
        let device = self.run("Attach", move |devices| devices.attach(&attach)).await?;
        Ok(Response::new(device.into()))
    }

    async fn detach(
        &self,
        request: Request<proto::DetachRequest>,
    ) -> Result<Response<proto::DetachResponse>, Status> {
        let volume = convert::volume(&request.into_inner().volume).map_err(invalid)?;
        self.run("Detach", move |devices| devices.detach(&volume)).await?;
        Ok(Response::new(proto::DetachResponse {}))
    }

    async fn resize(
        &self,
        request: Request<proto::ResizeRequest>,
    ) -> Result<Response<proto::Device>, Status> {
        let volume = convert::volume(&request.into_inner().volume).map_err(invalid)?;
        let device = self.run("Resize", move |devices| devices.resize(&volume)).await?;
        Ok(Response::new(device.into()))
    }

    async fn fail(
        &self,
        request: Request<proto::FailRequest>,
    ) -> Result<Response<proto::Device>, Status> {
        let request = request.into_inner();
        let volume = convert::volume(&request.volume).map_err(invalid)?;
        let generation = convert::generation(&request.generation).map_err(invalid)?;
        // As long as a message needs to be; the rest of a longer one is dropped.
        let reason: String = request.reason.chars().take(500).collect();
        let device =
            self.run("Fail", move |devices| devices.fail(&volume, generation, &reason)).await?;
        Ok(Response::new(device.into()))
    }

    async fn list(
        &self,
        _: Request<proto::ListRequest>,
    ) -> Result<Response<proto::ListResponse>, Status> {
        let devices = self.run("List", Devices::list).await?;
        let devices = devices.into_iter().map(Into::into).collect();
        Ok(Response::new(proto::ListResponse { devices }))
    }
}
