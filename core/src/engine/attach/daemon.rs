//! `understudy-attachd serve`, from its start to its end.
//!
//! ```text
//!   state directory locked ─► devices found again ─► socket ─► calls ─► SIGTERM: exit, devices stay
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tracing::{debug, info, warn};

use super::devices::Devices;
use super::proto::attach_server::AttachServer;
use super::service::Service;
use crate::attach::{Network, StateDirectory, probe};
use crate::engine::api::Refusal;
use crate::engine::error::EngineError;
use crate::engine::listeners::{Acceptor, Socket};
use crate::runtime::Address;

/// How long calls under way, and clients that stay connected, may hold up the end. What a call has
/// begun is finished or removed by the next daemon.
const END: Duration = Duration::from_secs(1);

/// Where things are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The socket that takes calls.
    pub socket: PathBuf,
    /// The directory that remembers devices.
    pub state: PathBuf,
    /// How engines on other nodes are reached.
    pub network: Network,
}

/// Runs the daemon on the calling thread until it is told to end.
pub fn run(options: &Options) -> Result<(), EngineError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("attach")
        .enable_all()
        .build()
        .map_err(|e| EngineError::system("can't start the attach daemon's thread", e))?;
    let result = runtime.block_on(serve(options));
    runtime.shutdown_timeout(END);
    result
}

async fn serve(options: &Options) -> Result<(), EngineError> {
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|e| EngineError::system("can't listen for signals", e))?;
    match probe() {
        Ok(backend) => info!("devices are made with {backend}"),
        Err(e) => warn!("{e}"),
    }
    let state = StateDirectory::open(&options.state)
        .map_err(|e| EngineError::system("can't remember devices", e))?;
    let runtime = tokio::runtime::Handle::current();
    let network = options.network.clone();
    let opening = tokio::task::spawn_blocking(move || Devices::open(state, network, runtime));
    let devices =
        opening.await.map_err(|e| EngineError::new(Refusal::Internal, e.to_string()))??;
    let acceptor = Acceptor::bind(&Address::Unix(options.socket.clone()))
        .map_err(|e| EngineError::new(Refusal::Unavailable, e.to_string()))?;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<AttachServer<Service>>().await;
    let (tx, rx) = mpsc::channel::<std::io::Result<tokio::net::UnixStream>>(16);
    tokio::spawn(async move {
        loop {
            match acceptor.accept().await {
                Ok((Socket::Unix(stream), from)) => {
                    debug!("a connection of {from}");
                    // The server takes them as fast as they come; if not, this one is closed.
                    let _ = tx.try_send(Ok(stream));
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    });
    info!(socket = %options.socket.display(), "serving");
    let ending = Arc::new(Notify::new());
    let (told, over) = (ending.clone(), ending);
    let serving = Server::builder()
        .add_service(health)
        .add_service(AttachServer::new(Service(Arc::new(devices))))
        .serve_with_incoming_shutdown(ReceiverStream::new(rx), async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            info!("ending; devices stay");
            told.notify_one();
        });
    let late = async move {
        over.notified().await;
        tokio::time::sleep(END).await;
    };
    tokio::select! {
        served = serving => served.map_err(|e| EngineError::new(Refusal::Internal, e.to_string())),
        () = late => Ok(()),
    }
}
