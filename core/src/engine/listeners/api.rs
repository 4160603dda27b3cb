//! The engine API's listener: gRPC over TCP or a Unix socket.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::door::{self, Stop};
use super::socket::{Acceptor, Socket};
use crate::engine::proto::engine_server::EngineServer;
use crate::engine::service::Service;

/// An idle connection is probed after the first, and closed after the second without an answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Calls of one connection at once.
const CALLS: u32 = 128;

/// Serves the API until stopped and the calls under way have ended.
pub(crate) async fn serve(
    service: Service,
    health: tonic_health::server::HealthReporter,
    health_service: tonic_health::pb::health_server::HealthServer<
        impl tonic_health::pb::health_server::Health,
    >,
    acceptor: Acceptor,
    limit: usize,
    mut stop: Stop,
) -> Result<(), tonic::transport::Error> {
    let (tx, rx) = mpsc::channel::<std::io::Result<Counted>>(16);
    let places = [Arc::new(Semaphore::new(limit))];
    let accepting = stop.clone();
    tokio::spawn(async move {
        door::keep("the engine API", acceptor, &places, accepting, |socket, _, place| {
            // The server takes them as fast as they come; if not, this one is closed.
            let _ = tx.try_send(Ok(Counted { socket, _place: place }));
        })
        .await;
    });
    health.set_serving::<EngineServer<Service>>().await;
    let stopping = async move {
        stop.wait().await;
        health.set_not_serving::<EngineServer<Service>>().await;
    };
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE.0))
        .http2_keepalive_timeout(Some(KEEP_ALIVE.1))
        .max_concurrent_streams(CALLS)
        .add_service(health_service)
        .add_service(EngineServer::new(service))
        .serve_with_incoming_shutdown(ReceiverStream::new(rx), stopping)
        .await
}

/// A connection that gives its place back when it ends.
struct Counted {
    socket: Socket,
    _place: Vec<OwnedSemaphorePermit>,
}

impl Connected for Counted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Socket::Unix(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Socket::Unix(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(s) => Pin::new(s).poll_flush(cx),
            Socket::Unix(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Socket::Unix(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
