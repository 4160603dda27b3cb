//! `GET /metrics` over HTTP/1.1: TLS, a Unix socket, or plain TCP where that was allowed for it.
//!
//! ```text
//!   accept ─┬─ Unix, TCP ──────────────────────────────┐
//!           └─ TLS: handshake (10 s), may he in here? ─┴─► GET /metrics ─► a sample of the engine (5 s)
//!                                                          anything else ─► 404, 405
//! ```

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tracing::debug;

use super::api::{Counted, enter};
use super::door::{self, Refusals, Stop};
use super::socket::Acceptor;
use crate::engine::metrics;
use crate::engine::registry::Engine;
use crate::tls::{Door, Tls};

/// Connections at once: a scraper has one.
const CONNECTIONS: usize = 16;

/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(10);

/// How long a sample may take.
const SAMPLE: Duration = Duration::from_secs(5);

/// What OpenMetrics calls itself.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves at one address until stopped.
pub(crate) async fn serve(engine: Arc<Engine>, acceptor: Acceptor, tls: Option<Tls>, stop: Stop) {
    let places = [Arc::new(Semaphore::new(CONNECTIONS))];
    let refusals = Refusals::new("metrics", engine.refused());
    let tls = tls.filter(|_| acceptor.is_tls());
    let stopping = stop.clone();
    door::keep(&acceptor, &refusals, &places, stop, |socket, from, place| {
        let (engine, refusals, tls) = (engine.clone(), refusals.clone(), tls.clone());
        let mut stop = stopping.clone();
        tokio::spawn(async move {
            let wire = match enter(socket, tls.as_ref(), Door::Metrics, place).await {
                Ok(wire) => wire,
                Err(why) => return refusals.count(&format!("{why}; the last from {from}")),
            };
            tokio::select! {
                () = answer(engine, wire) => {}
                () = stop.wait() => {}
            }
        });
    })
    .await;
}

/// Answers the requests of one connection.
async fn answer(engine: Arc<Engine>, wire: Counted) {
    let service = service_fn(move |request: Request<Incoming>| {
        let engine = engine.clone();
        async move { Ok::<_, Infallible>(respond(&engine, &request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(wire), service)
        .await;
    if let Err(e) = served {
        debug!("a connection for metrics ended: {e}");
    }
}

async fn respond(engine: &Engine, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "there is only /metrics here\n".to_owned());
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".to_owned());
    }
    let sample = tokio::time::timeout(SAMPLE, engine.sample()).await;
    let problem = match sample {
        Ok(Ok(sample)) => match metrics::text(&sample) {
            Ok(text) => return with_type(StatusCode::OK, CONTENT_TYPE, text),
            Err(e) => e.to_string(),
        },
        Ok(Err(e)) => e.to_string(),
        Err(_) => format!("the data plane did not answer within {SAMPLE:?}"),
    };
    plain(StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n"))
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    with_type(status, "text/plain; charset=utf-8", text)
}

fn with_type(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(kind);
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    response
}
