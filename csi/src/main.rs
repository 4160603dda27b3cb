//! `understudy-csi`: flags, wiring and signals; no decisions.

#![forbid(unsafe_code)]

mod arguments;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::WatchStream;
use tonic::service::Routes;
use tracing::info;
use tracing_subscriber::EnvFilter;
use understudy_core::engine::attach::api::EngineAddresses;
use understudy_core::runtime::Address;
use understudy_core::tls::{Identity, Tls};
use understudy_csi::attach::LocalAttach;
use understudy_csi::controller::Controller;
use understudy_csi::engines::RemoteEngines;
use understudy_csi::identity;
use understudy_csi::mount::System;
use understudy_csi::node::{Here, Node};
use understudy_csi::proto::csi::ProbeRequest;
use understudy_csi::proto::csi::controller_server::ControllerServer;
use understudy_csi::proto::csi::identity_client::IdentityClient;
use understudy_csi::proto::csi::identity_server::IdentityServer;
use understudy_csi::proto::csi::node_server::NodeServer;
use understudy_csi::registration;
use understudy_csi::server::{self, Socket};
use understudy_csi::volumes::kube::{KubeVolumes, Network};

use arguments::{
    Arguments, Command, ControllerFlags, LogFormat, NetworkFlags, NodeFlags, ProbeFlags,
};

/// How long is waited for certificates: the sidecar that asks for them starts at the same time.
const CERTIFICATES: Duration = Duration::from_mins(2);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = match EnvFilter::try_new(&arguments.log) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("understudy-csi: --log '{}': {error}", arguments.log);
            return ExitCode::from(2);
        }
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match arguments.log_format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
    let out = match arguments.command {
        Command::Controller(flags) => controller(flags).await,
        Command::Node(flags) => node(flags).await,
        Command::Probe(flags) => probe(flags).await,
    };
    match out {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("understudy-csi: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn volumes(network: &NetworkFlags) -> anyhow::Result<Arc<KubeVolumes>> {
    let network = Network {
        api_port: network.engine_port,
        nbd_port: network.nbd_port,
        plaintext: network.insecure_plaintext,
    };
    let volumes = KubeVolumes::connect(network).await;
    Ok(Arc::new(volumes.context(
        "no way to the Kubernetes API: run in a pod with a service account, or set KUBECONFIG",
    )?))
}

/// Who we are to engines; nobody where they are reached without TLS.
async fn certificates(flags: &ControllerFlags) -> anyhow::Result<Option<Tls>> {
    if flags.network.insecure_plaintext {
        return Ok(None);
    }
    let directory = flags.tls_dir.clone();
    let opening =
        move || Tls::open_within(&directory, Some(&Identity::CsiController), CERTIFICATES);
    Ok(Some(tokio::task::spawn_blocking(opening).await??))
}

async fn controller(flags: ControllerFlags) -> anyhow::Result<()> {
    let stop = stop()?;
    let engines = Arc::new(RemoteEngines::new(certificates(&flags).await?));
    let service = Controller::new(volumes(&flags.network).await?, engines, &flags.installation);
    let routes = Routes::new(IdentityServer::new(identity::Identity))
        .add_service(ControllerServer::new(service));
    let socket = Socket::bind(&flags.socket)?;
    info!(socket = %flags.socket.display(), installation = flags.installation, "controller is ready");
    socket.serve(routes, stopped(stop)).await?;
    Ok(())
}

async fn node(flags: NodeFlags) -> anyhow::Result<()> {
    let stop = stop()?;
    let here = Here {
        node: flags.node.clone(),
        installation: flags.installation.clone(),
        max_volumes: flags.max_volumes,
        engine: EngineAddresses {
            api: Address::Unix(flags.engine_socket),
            nbd: Address::Unix(flags.nbd_socket),
        },
    };
    let attach = Arc::new(LocalAttach::new(&flags.attach_socket));
    let service = Node::new(here, volumes(&flags.network).await?, attach, Arc::new(System));
    let fence = tokio::spawn(service.clone().fence());
    let routes =
        Routes::new(IdentityServer::new(identity::Identity)).add_service(NodeServer::new(service));
    let socket = Socket::bind(&flags.socket)?;
    info!(socket = %flags.socket.display(), node = flags.node, "node plugin is ready");
    let serving = socket.serve(routes, stopped(stop.clone()));
    let endpoint = flags.kubelet_socket.as_ref().unwrap_or(&flags.socket);
    if let Some(folder) = &flags.registration_dir {
        let registering = registration::serve(folder, endpoint, stopped(stop));
        let registering = async { registering.await.context("can't register with the kubelet") };
        let serving = async { serving.await.map_err(anyhow::Error::from) };
        tokio::try_join!(serving, registering)?;
    } else {
        serving.await?;
    }
    fence.abort();
    Ok(())
}

async fn probe(flags: ProbeFlags) -> anyhow::Result<()> {
    let mut client = IdentityClient::new(server::connect(&flags.socket));
    let limit = Duration::from_secs(flags.timeout);
    let shown = flags.socket.display();
    let answer = tokio::time::timeout(limit, client.probe(ProbeRequest {}))
        .await
        .with_context(|| format!("{shown} did not answer within {limit:?}"))?
        .with_context(|| format!("{shown} did not answer"))?;
    ensure!(answer.into_inner().ready != Some(false), "{shown} answers that it is not ready");
    Ok(())
}

/// Becomes true at the first signal to end.
fn stop() -> anyhow::Result<tokio::sync::watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (tx, rx) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("asked to end");
        tx.send_replace(true);
    });
    Ok(rx)
}

async fn stopped(stop: tokio::sync::watch::Receiver<bool>) {
    use futures::StreamExt;
    // Ends, too, when nobody could say stop any more.
    let mut values = WatchStream::new(stop);
    while values.next().await == Some(false) {}
}
