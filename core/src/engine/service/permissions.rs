//! Who may call what: one table, asked before any call is read.
//!
//! ```text
//!                    operator   csi-controller   engine/*    Unix socket
//!   CreateReplica       x             x              -            x
//!   DeleteReplica       x             x              -            x
//!   ExpandReplica       x             x              -            x
//!   Start               x             x              -            x
//!   Capacity            x             x              -            x
//!   WatchStatus         x             x              x            x
//!   OpenSession         x             -              x            x
//!   CloseSession        x             -              x            x
//!   all else            x             -              -            x
//!   health              x             x              x            x
//! ```
//!
//! What is behind a Unix socket is guarded by its file's mode, plain TCP by nobody.

use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};
use tracing::warn;

use crate::engine::proto::engine_server::SERVICE_NAME;
use crate::tls::Identity;

/// Who is at the other end of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Caller {
    /// Whoever may open the socket.
    Local,
    /// Who has proven so.
    Proven(Identity),
}

/// Whether a caller may make a call, `SERVICE/METHOD`.
fn allowed(caller: &Caller, path: &str) -> bool {
    let Caller::Proven(identity) = caller else { return true };
    let Some((service, method)) = path.trim_start_matches('/').split_once('/') else {
        return false;
    };
    if service == "grpc.health.v1.Health" {
        return true;
    }
    if service != SERVICE_NAME {
        return false;
    }
    match identity {
        Identity::Operator => true,
        Identity::CsiController => matches!(
            method,
            "CreateReplica"
                | "DeleteReplica"
                | "ExpandReplica"
                | "Start"
                | "Capacity"
                | "WatchStatus"
        ),
        Identity::Metrics => false,
        Identity::Engine(_) => matches!(method, "OpenSession" | "CloseSession" | "WatchStatus"),
    }
}

/// Asks the table before each call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permissions;

/// A service behind it.
#[derive(Clone, Debug)]
pub(crate) struct Guarded<S>(S);

impl<S> Layer<S> for Permissions {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded(inner)
    }
}

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Response<Body>, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        // A connection of whose caller nothing is known is none of ours.
        let refused = match request.extensions().get::<Caller>() {
            Some(caller) if allowed(caller, path) => None,
            Some(Caller::Proven(identity)) => {
                warn!(%identity, path, "a call was refused");
                let method = path.rsplit('/').next().unwrap_or_default();
                Some(format!("{identity} may not call {method}: see docs/security.md for who may"))
            }
            Some(Caller::Local) | None => Some("nobody knows who calls".to_owned()),
        };
        match refused {
            None => Box::pin(self.0.call(request)),
            Some(why) => Box::pin(async move { Ok(Status::permission_denied(why).into_http()) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who may call it besides the operator; every method of the API must be here.
    const TABLE: &[(&str, bool, bool)] = &[
        // method, csi-controller, engine
        ("CreateReplica", true, false),
        ("DeleteReplica", true, false),
        ("ExpandReplica", true, false),
        ("OpenSession", false, true),
        ("CloseSession", false, true),
        ("Start", true, false),
        ("SetPolicy", false, false),
        ("Checkpoint", false, false),
        ("Stop", false, false),
        ("Failover", false, false),
        ("GetError", false, false),
        ("WatchStatus", true, true),
        ("Capacity", true, false),
    ];

    #[test]
    fn every_method_of_the_api_is_in_the_table_and_behaves_as_it_says() {
        let proto = include_str!("../../../proto/engine.proto");
        let methods: Vec<&str> = proto
            .lines()
            .filter_map(|line| line.trim().strip_prefix("rpc "))
            .filter_map(|rest| rest.split('(').next())
            .collect();
        let mut listed: Vec<&str> = TABLE.iter().map(|row| row.0).collect();
        let mut there = methods.clone();
        listed.sort_unstable();
        there.sort_unstable();
        assert_eq!(there, listed, "a method without a row, or a row without a method");
        for (method, csi, engine) in TABLE {
            let path = format!("/{SERVICE_NAME}/{method}");
            let may = |identity| allowed(&Caller::Proven(identity), &path);
            assert!(may(Identity::Operator), "{method}");
            assert_eq!(may(Identity::CsiController), *csi, "{method}");
            assert_eq!(may(Identity::Engine("a".into())), *engine, "{method}");
            assert!(allowed(&Caller::Local, &path), "{method}");
        }
    }

    #[test]
    fn health_is_for_all_and_what_is_not_ours_for_none() {
        let all = [Identity::Operator, Identity::CsiController, Identity::Engine("a".to_owned())];
        for caller in all.map(Caller::Proven) {
            assert!(allowed(&caller, "/grpc.health.v1.Health/Check"));
            for path in ["", "/", "/Start", "/other.Engine/Start", "//Start"] {
                assert!(!allowed(&caller, path), "{caller:?} {path}");
            }
        }
    }
}
