//! The engine API's listeners: gRPC over TLS, a Unix socket or plain TCP.
//!
//! ```text
//!   accept ─┬─ Unix, TCP ────────────────────────────────┐
//!           └─ TLS: handshake (10 s), who is it? ─► Caller ┴─► permissions ─► service
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::door::{self, Place, Refusals, Stop};
use super::socket::{Acceptor, Socket};
use crate::engine::metrics::Refused;
use crate::engine::proto::engine_server::EngineServer;
use crate::engine::service::Service;
use crate::engine::service::permissions::{Caller, Permissions};
use crate::tls::{Door, Identity, Tls, explain};

/// An idle connection is probed after the first, and closed after the second without an answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Calls of one connection at once.
const CALLS: u32 = 128;

/// Serves the API at all its addresses until stopped and the calls under way have ended.
pub(crate) async fn serve(
    service: Service,
    health: tonic_health::server::HealthReporter,
    health_service: tonic_health::pb::health_server::HealthServer<
        impl tonic_health::pb::health_server::Health,
    >,
    acceptors: Vec<Acceptor>,
    tls: Option<Tls>,
    (limit, refused): (usize, &Refused),
    mut stop: Stop,
) -> Result<(), tonic::transport::Error> {
    let (tx, rx) = mpsc::channel::<std::io::Result<Counted>>(16);
    let places = [Arc::new(Semaphore::new(limit))];
    for acceptor in acceptors {
        let (tx, places, stop) = (tx.clone(), places.clone(), stop.clone());
        let tls = tls.clone().filter(|_| acceptor.is_tls());
        let refusals = Refusals::new("the engine API", refused);
        tokio::spawn(accept(acceptor, tls, tx, (refusals, places), stop));
    }
    drop(tx);
    health.set_serving::<EngineServer<Service>>().await;
    let stopping = async move {
        stop.wait().await;
        health.set_not_serving::<EngineServer<Service>>().await;
    };
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE.0))
        .http2_keepalive_timeout(Some(KEEP_ALIVE.1))
        .max_concurrent_streams(CALLS)
        .layer(Permissions)
        .add_service(health_service)
        .add_service(EngineServer::new(service))
        .serve_with_incoming_shutdown(ReceiverStream::new(rx), stopping)
        .await
}

async fn accept(
    acceptor: Acceptor,
    tls: Option<Tls>,
    tx: mpsc::Sender<std::io::Result<Counted>>,
    (refusals, places): (Refusals, [Arc<Semaphore>; 1]),
    stop: Stop,
) {
    door::keep(&acceptor, &refusals, &places, stop, |socket, from, place| {
        let (tx, tls, refusals) = (tx.clone(), tls.clone(), refusals.clone());
        tokio::spawn(async move {
            match enter(socket, tls.as_ref(), Door::Api, place).await {
                // The server takes them as fast as they come; if not, this one is closed.
                Ok(wire) => drop(tx.try_send(Ok(wire))),
                Err(why) => refusals.count(&format!("{why}; the last from {from}")),
            }
        });
    })
    .await;
}

/// Lets a connection in at a door: whoever may open the socket, or with `tls` who proves who he is.
pub(super) async fn enter(
    socket: Socket,
    tls: Option<&Tls>,
    door: Door,
    place: Place,
) -> Result<Counted, String> {
    let (wire, caller) = match tls {
        None => (Wire::Plain(socket), Caller::Local),
        Some(tls) => handshake(socket, tls, door).await?,
    };
    Ok(Counted { wire, caller, _place: place })
}

/// Who is there, or why nobody is let in.
async fn handshake(socket: Socket, tls: &Tls, door: Door) -> Result<(Wire, Caller), String> {
    let Socket::Tcp(socket) = socket else { return Err("no TLS over Unix sockets".to_owned()) };
    let _ = socket.set_nodelay(true);
    let acceptor = tokio_rustls::TlsAcceptor::from(tls.current().server(door));
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(socket))
        .await
        .map_err(|_| format!("no TLS handshake within {HANDSHAKE:?}"))?
        .map_err(|e| explain(&e).map_or_else(|| e.to_string(), |fault| fault.to_string()))?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let identity = certificate
        .ok_or_else(|| "it showed no certificate".to_owned())
        .and_then(|c| Identity::named_in(c).map_err(|e| e.0))?;
    Ok((Wire::Tls(Box::new(stream)), Caller::Proven(identity)))
}

/// A connection that gives its place back when it ends.
pub(super) struct Counted {
    wire: Wire,
    caller: Caller,
    _place: Place,
}

enum Wire {
    Plain(Socket),
    Tls(Box<tokio_rustls::server::TlsStream<tokio::net::TcpStream>>),
}

/// Runs the same on whatever a connection is made of.
macro_rules! on {
    ($this:expr, $s:ident => $call:expr) => {
        match &mut $this.wire {
            Wire::Plain(Socket::Tcp($s)) => $call,
            Wire::Plain(Socket::Unix($s)) => $call,
            Wire::Tls($s) => {
                let $s = &mut **$s;
                $call
            }
        }
    };
}

impl Connected for Counted {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        on!(self, s => Pin::new(s).poll_read(cx, buf))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        on!(self, s => Pin::new(s).poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        on!(self, s => Pin::new(s).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        on!(self, s => Pin::new(s).poll_shutdown(cx))
    }
}
