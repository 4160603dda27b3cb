//! `understudyd`, from its start to its end.
//!
//! ```text
//!   certificates ─► open: pool, shards, groups ─► listen: API, NBD, links, metrics ─► signal
//!     ─► stop accepting ─► end groups (drained) ─► end shards ─► leave an empty pool ─► exit 0
//!                 within DRAIN; a second signal ends it at once
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tracing::{Instrument, info, info_span, warn};

use super::api::{Address, Refusal};
use super::config::Config;
use super::error::EngineError;
use super::listeners::{self, Acceptor, Places, Stop};
use super::registry::Engine;
use super::service::Service;
use crate::tls::{Identity, Tls};

/// How long a clean end may take; what is stored is right without one, too.
const DRAIN: Duration = Duration::from_secs(10);

/// How long certificates that are not there yet are waited for.
const CERTIFICATES: Duration = Duration::from_mins(2);

/// How often the certificates are looked at.
const LOOK: Duration = Duration::from_secs(3);

/// Runs an engine on the calling thread until it is told to end.
pub fn run(config: &Config) -> Result<(), EngineError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|e| EngineError::system("can't start the control thread", e))?;
    let span = info_span!("engine", node = %config.node);
    let result = runtime.block_on(serve(config).instrument(span));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(config: &Config) -> Result<(), EngineError> {
    let mut signals = Signals::new()?;
    raise_open_files(config);
    let tls = certificates(config).await?;
    let engine = Engine::open(config, tls.clone()).await?;
    info!(
        pool = %config.pool.display(),
        shards = engine.shards().count(),
        io = engine.shards().io(),
        "pool open"
    );
    let (stop, stopping) = Stop::new();
    let mut tasks = JoinSet::new();
    // All addresses before any service: an engine that can't listen must not be half there.
    let api = config.api.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
    let nbd = config.nbd.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
    let link = config.link.as_ref().map(bind).transpose()?;
    let metrics = config.metrics.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
    engine.serve_nbd_at(nbd.first().map(|a| a.address().clone()));
    let places = Places::new(&config.limits);
    for acceptor in nbd {
        tasks.spawn(listeners::serve_nbd(
            engine.clone(),
            acceptor,
            places.clone(),
            stopping.clone(),
        ));
    }
    for acceptor in metrics {
        tasks.spawn(listeners::serve_metrics(
            engine.clone(),
            acceptor,
            tls.clone(),
            stopping.clone(),
        ));
    }
    if let Some(acceptor) = link {
        let limit = config.limits.link_connections;
        tasks.spawn(listeners::serve_links(engine.clone(), acceptor, limit, stopping.clone()));
    }
    if let Some(tls) = tls.clone() {
        tasks.spawn(watch_certificates(tls, stopping.clone()));
    }
    tasks.spawn(serve_api(engine.clone(), api, tls, config.limits.api_connections, stopping));
    info!("serving");

    let name = signals.next().await;
    info!("{name}: ending; a second signal ends at once");
    let _ = stop.send(true);
    tokio::select! {
        () = end(&engine, tasks) => info!("ended"),
        () = tokio::time::sleep(DRAIN) => warn!("not drained within {DRAIN:?}: ending anyway"),
        name = signals.next() => {
            warn!("{name}: ending at once");
            std::process::exit(1);
        }
    }
    Ok(())
}

async fn end(engine: &Arc<Engine>, mut tasks: JoinSet<()>) {
    engine.shutdown().await;
    while tasks.join_next().await.is_some() {}
    let shards = engine.clone();
    let _ = tokio::task::spawn_blocking(move || shards.shards().stop()).await;
    match engine.leave_empty_pool().await {
        Ok(true) => info!("the pool was empty: its directory is left empty, too"),
        Ok(false) => {}
        Err(e) => warn!("the empty pool keeps its files: {e}"),
    }
}

/// Loads the certificates, if there are to be any.
async fn certificates(config: &Config) -> Result<Option<Tls>, EngineError> {
    if config.insecure_plaintext {
        warn!("tcp: addresses are allowed: plaintext, and whoever reaches them is served");
    }
    let Some(dir) = config.tls.clone() else { return Ok(None) };
    let expected = Identity::Engine(config.node.clone());
    let load = move || Tls::open_within(&dir, Some(&expected), CERTIFICATES);
    let loaded = tokio::task::spawn_blocking(load).await;
    let loaded = loaded.map_err(|e| EngineError::new(Refusal::Internal, e.to_string()))?;
    let tls = loaded.map_err(|e| EngineError::new(Refusal::Unavailable, e.to_string()))?;
    info!(identity = %tls.identity(), "certificates loaded");
    Ok(Some(tls))
}

/// Looks at the certificates now and then, so that the log tells of new ones before somebody connects.
async fn watch_certificates(tls: Tls, mut stop: Stop) {
    let look = async {
        loop {
            tokio::time::sleep(LOOK).await;
            let tls = tls.clone();
            let _ = tokio::task::spawn_blocking(move || drop(tls.current())).await;
        }
    };
    tokio::select! {
        () = look => {}
        () = stop.wait() => {}
    }
}

async fn serve_api(
    engine: Arc<Engine>,
    acceptors: Vec<Acceptor>,
    tls: Option<Tls>,
    limit: usize,
    stop: Stop,
) {
    let (reporter, health) = tonic_health::server::health_reporter();
    let refused = engine.refused().clone();
    let service = Service::new(engine, stop.clone());
    let served =
        listeners::api::serve(service, reporter, health, acceptors, tls, (limit, &refused), stop)
            .await;
    if let Err(e) = served {
        warn!("the engine API ended: {e}");
    }
}

fn bind(address: &Address) -> Result<Acceptor, EngineError> {
    Acceptor::bind(address).map_err(|e| EngineError::new(Refusal::Unavailable, e.to_string()))
}

/// SIGTERM and SIGINT.
struct Signals(Signal, Signal);

impl Signals {
    fn new() -> Result<Self, EngineError> {
        let listen =
            |kind| signal(kind).map_err(|e| EngineError::system("can't listen for signals", e));
        Ok(Self(listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?))
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.0.recv() => "SIGTERM",
            _ = self.1.recv() => "SIGINT",
        }
    }
}

/// Lets the process open as many files as its limits on connections may need.
fn raise_open_files(config: &Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let l = &config.limits;
    // A connection that changes shards has two descriptors for a moment; a group some per volume.
    let needed =
        2 * l.nbd_connections + l.link_connections + l.api_connections + 16 * l.groups + 256;
    let now = getrlimit(Resource::Nofile);
    let most = now.maximum.unwrap_or(u64::MAX);
    if now.current.is_some_and(|c| c < most) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    }
    if most < crate::units::u64_of(needed) {
        warn!(
            "{most} open files are allowed, the limits may need {needed}: raise the former or lower the latter"
        );
    }
}
