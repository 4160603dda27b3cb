//! The attach API's calls: parse, ask the devices, answer.

use tonic::{Request, Response, Status};

use super::api::Attach;
use super::{convert, proto};
use crate::engine::api::Refusal;
use crate::engine::error::EngineError;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Service;

fn stub() -> Status {
    EngineError::new(Refusal::Unimplemented, "this daemon can't attach yet").into()
}

fn invalid(e: crate::engine::convert::Invalid) -> Status {
    EngineError::from(e).into()
}

#[tonic::async_trait]
impl proto::attach_server::Attach for Service {
    async fn attach(
        &self,
        request: Request<proto::AttachRequest>,
    ) -> Result<Response<proto::Device>, Status> {
        let _ = Attach::try_from(request.into_inner()).map_err(invalid)?;
        Err(stub())
    }

    async fn detach(
        &self,
        request: Request<proto::DetachRequest>,
    ) -> Result<Response<proto::DetachResponse>, Status> {
        let _ = convert::volume(&request.into_inner().volume).map_err(invalid)?;
        Ok(Response::new(proto::DetachResponse {}))
    }

    async fn resize(
        &self,
        request: Request<proto::ResizeRequest>,
    ) -> Result<Response<proto::Device>, Status> {
        let _ = convert::volume(&request.into_inner().volume).map_err(invalid)?;
        Err(stub())
    }

    async fn fail(
        &self,
        request: Request<proto::FailRequest>,
    ) -> Result<Response<proto::Device>, Status> {
        let _ = convert::volume(&request.into_inner().volume).map_err(invalid)?;
        Err(stub())
    }

    async fn list(
        &self,
        _: Request<proto::ListRequest>,
    ) -> Result<Response<proto::ListResponse>, Status> {
        Ok(Response::new(proto::ListResponse { devices: Vec::new() }))
    }
}
