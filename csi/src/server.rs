//! gRPC on a Unix socket.
//!
//! ```text
//!   bind: a socket that nobody answers on is removed; one that answers is somebody's ─► refused
//!   serve ── shutdown ─► calls under way may end, for some seconds ─► socket removed
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint};

/// How long calls under way may take to end once the process shall: below the 30 s after which
/// Kubernetes kills.
const GRACE: Duration = Duration::from_secs(20);

/// A socket that this process listens on; its file goes with it.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    /// Listens at `path`. Its folder is made; a socket that a dead process left is replaced.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => {
                let text = format!("another process listens on {}: end it first", path.display());
                return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
            }
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            // No file, or none that is a socket: the bind says so.
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(|e| {
            io::Error::new(e.kind(), format!("can't listen on {}: {e}", path.display()))
        })?;
        Ok(Self { path: path.to_owned(), listener })
    }

    /// Serves until `shutdown`, then gives the calls under way some time.
    pub async fn serve(
        self,
        routes: tonic::service::Routes,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), tonic::transport::Error> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        let stop = async move {
            shutdown.await;
            // Only if the server has ended by itself is there nobody to tell.
            let _ended = tx.send(());
        };
        let serving = tonic::transport::Server::builder()
            .add_routes(routes)
            .serve_with_incoming_shutdown(UnixListenerStream::new(self.listener), stop);
        let late = async {
            match rx.await {
                Ok(()) => tokio::time::sleep(GRACE).await,
                Err(_) => std::future::pending().await,
            }
        };
        let out = tokio::select! {
            out = serving => out,
            () = late => {
                tracing::warn!("calls are still under way after {GRACE:?}, and broken off");
                Ok(())
            }
        };
        // Somebody may have removed it already.
        let _gone = std::fs::remove_file(&self.path);
        out
    }
}

/// A connection to a server on a Unix socket, made at the first call.
pub fn connect(path: &Path) -> Channel {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    // Only a name for the `:authority` header; the connector goes to the socket.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::proto::csi::ProbeRequest;
    use crate::proto::csi::identity_client::IdentityClient;
    use crate::proto::csi::identity_server::IdentityServer;

    fn routes() -> tonic::service::Routes {
        tonic::service::Routes::new(IdentityServer::new(Identity))
    }

    #[tokio::test]
    async fn a_socket_that_a_dead_process_left_is_replaced_and_goes_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/csi.sock");
        drop(Socket::bind(&path).unwrap());
        assert!(path.exists(), "as after a kill");
        let socket = Socket::bind(&path).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(socket.serve(routes(), async { drop(stopped.await) }));
        let mut client = IdentityClient::new(connect(&path));
        let answer = client.probe(ProbeRequest {}).await.unwrap().into_inner();
        assert_eq!(answer.ready, Some(true));
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_on_which_somebody_answers_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("csi.sock");
        let _socket = Socket::bind(&path).unwrap();
        let error = Socket::bind(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("csi.sock"), "{error}");
    }
}
