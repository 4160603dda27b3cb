//! The way to an engine: a socket, TLS where the address says so, and words for what goes wrong.
//!
//! ```text
//!   unix: ─► connect ────────────────────────────────────────────────► HTTP/2
//!   tcp:  ─► connect ────────────────────────────────────────────────►
//!   tls:  ─► connect ─► handshake: engine/NODE? ─► its first byte ───►
//!                          └ no: whom else             └ an alert: what it has against us
//! ```
//!
//! A server tells what it thinks of a client's certificate only after the handshake. The first bytes
//! of HTTP/2 are the server's, so waiting for one of them costs nothing and says so in time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Endpoint, Uri};

use super::{CONNECT, KEEP_ALIVE};
use crate::engine::api::Address;
use crate::tls::{Door, Tls, explain};

/// Anything that carries HTTP/2.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// What tonic is told of a connection; where it leads is the connector's.
pub(super) fn endpoint() -> Endpoint {
    // Only a name for the `:authority` header.
    Endpoint::from_static("http://engine.understudy.dev")
        .connect_timeout(2 * CONNECT)
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .keep_alive_while_idle(true)
}

/// Connects to the address whatever the URI says.
pub(super) fn connector(
    address: &Address,
    tls: Option<&Tls>,
) -> impl tower::Service<Uri, Response = TokioIo<Box<dyn Wire>>, Error = io::Error, Future: Send>
+ Send
+ 'static {
    let (address, tls) = (address.clone(), tls.cloned());
    tower::service_fn(move |_| {
        let (address, tls) = (address.clone(), tls.clone());
        async move {
            match tokio::time::timeout(CONNECT, reach(&address, tls.as_ref())).await {
                Ok(reached) => reached.map(TokioIo::new).map_err(|e| in_words(&e)),
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer within {CONNECT:?} (is the node up?)"),
                )),
            }
        }
    })
}

async fn reach(address: &Address, tls: Option<&Tls>) -> io::Result<Box<dyn Wire>> {
    let tcp = async |at: &str| {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        io::Result::Ok(stream)
    };
    match address {
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Address::Tcp(at) => Ok(Box::new(tcp(at).await?)),
        Address::Tls { node, host_port } => {
            let Some(tls) = tls else {
                let text = "there are no certificates to prove oneself with (--tls DIRECTORY)";
                return Err(io::Error::other(text));
            };
            let config =
                tls.current().client(Door::Api, node.as_deref()).map_err(io::Error::other)?;
            // A placeholder: identities are compared, not names of hosts, and it is not sent.
            let name = ServerName::try_from("engine.understudy.dev").map_err(io::Error::other)?;
            let connector = tokio_rustls::TlsConnector::from(config);
            let mut stream = connector.connect(name, tcp(host_port).await?).await?;
            let first = stream.read_u8().await?;
            Ok(Box::new(Primed { first: Some(first), stream }))
        }
    }
}

/// A stream of which one byte was read.
struct Primed<S> {
    first: Option<u8>,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Primed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buf.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Primed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What the system or TLS says, for people.
fn in_words(e: &io::Error) -> io::Error {
    let text = match explain(e) {
        Some(fault) => fault.to_string(),
        None => words(e),
    };
    io::Error::new(e.kind(), text)
}

fn words(e: &io::Error) -> String {
    use io::ErrorKind as Kind;
    if e.get_ref().is_some() {
        return e.to_string();
    }
    match e.kind() {
        Kind::ConnectionRefused => "connection refused (is understudyd running there?)".to_owned(),
        Kind::NotFound => "there is no such socket (is understudyd running there?)".to_owned(),
        Kind::PermissionDenied => {
            "permission denied (only the user that runs understudyd may open its socket)".to_owned()
        }
        Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::TimedOut => {
            format!("{e} (is the node up?)")
        }
        Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::BrokenPipe
        | Kind::UnexpectedEof => "the connection was closed (did understudyd end?)".to_owned(),
        _ => e.to_string(),
    }
}

/// The cause at the bottom of an error, for people: what lies above says "transport error".
pub(super) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = Some(error);
    while let Some(cause) = next {
        text = match cause.downcast_ref::<io::Error>() {
            Some(e) => return in_words(e).to_string(),
            None => cause.to_string(),
        };
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::client::EngineClient;

    async fn told(address: &Address, tls: Option<&Tls>) -> String {
        let now = EngineClient::connect_with(address, tls).await.unwrap_err().to_string();
        let later = EngineClient::lazy_with(address, tls).unwrap().capacity().await;
        assert_eq!(later.unwrap_err().to_string(), now);
        now
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_said_to_be_so_in_short() {
        let dir = tempfile::tempdir().unwrap();
        let socket = Address::Unix(dir.path().join("api.sock"));
        let text = told(&socket, None).await;
        assert!(
            text.ends_with("there is no such socket (is understudyd running there?)"),
            "{text}"
        );
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = port.local_addr().unwrap().to_string();
        drop(port);
        let text = told(&Address::Tcp(at.clone()), None).await;
        assert!(text.ends_with("connection refused (is understudyd running there?)"), "{text}");
        let text = told(&Address::Tls { node: None, host_port: at }, None).await;
        assert!(text.contains("--tls DIRECTORY"), "{text}");
    }
}
