//! NBD clients: the export they choose decides which shard serves them.
//!
//! ```text
//!   one shard:   accept ─► shard: [STARTTLS, TLS,] handshake, requests
//!   several:     accept ─► any shard: [STARTTLS, TLS,] handshake over the offers of all
//!                                └─ export chosen ─► its shard, with the TLS session: requests
//! ```

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tracing::debug;

use super::door::{self, Refusals, Stop};
use super::socket::{Acceptor, Socket};
use crate::engine::api::Refusal;
use crate::engine::config::Limits;
use crate::engine::error::EngineError;
use crate::engine::groups::{LocalCatalog, OfferCatalog};
use crate::engine::registry::Engine;
use crate::nbd::handshake::Session;
use crate::nbd::{Catalog, server};
use crate::runtime::{Parcel, ShardEnv, ShardStream, Stream};
use crate::tls::Door;

/// How many NBD connections there may be at once.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    per_listener: usize,
}

impl Places {
    /// Places within these limits.
    pub(crate) fn new(limits: &Limits) -> Self {
        let per_listener = limits.nbd_connections_per_listener;
        Self { all: Arc::new(Semaphore::new(limits.nbd_connections)), per_listener }
    }
}

/// Serves NBD at one listener until stopped.
pub(crate) async fn serve(engine: Arc<Engine>, acceptor: Acceptor, places: Places, stop: Stop) {
    let places = [Arc::new(Semaphore::new(places.per_listener)), places.all];
    let (refusals, next) = (Refusals::new("NBD", engine.refused()), AtomicUsize::new(0));
    let tls = acceptor.is_tls();
    door::keep(&acceptor, &refusals, &places, stop, |socket, from, place| {
        let (engine, refusals) = (engine.clone(), refusals.clone());
        let n = next.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            match one(&engine, socket, tls, n).await {
                Ok(Ended::Served(end)) => debug!("the NBD connection of {from} ended: {end}"),
                Ok(Ended::Unproven(why)) => refusals.count(&format!("{why}; the last from {from}")),
                Err(e) => debug!("the NBD connection of {from} ended: {e}"),
            }
            drop(place);
        });
    })
    .await;
}

/// How a connection ended.
enum Ended {
    Served(String),
    /// Before its client had proven who it is.
    Unproven(String),
}

async fn one(engine: &Engine, socket: Socket, tls: bool, n: usize) -> Result<Ended, EngineError> {
    let fd = socket.into_fd().map_err(|e| EngineError::system("can't serve NBD", e))?;
    let shards = engine.shards();
    let here = shards.round_robin(n);
    if shards.count() == 1 {
        return shards.run(here, move |env| whole(env, fd, tls)).await;
    }
    let offers = engine.offers().await?;
    let places: Vec<_> = offers.iter().map(|(s, o)| (o.volume().clone(), *s)).collect();
    let catalog = OfferCatalog(offers.into_iter().map(|(_, o)| o).collect());
    let (chosen, parcel) = match shards.run(here, move |env| choose(env, fd, tls, catalog)).await? {
        Ok(chosen) => chosen,
        Err(end) => return Ok(end),
    };
    let volume = chosen.name.split('/').next().unwrap_or_default();
    let Some((_, owner)) = places.into_iter().find(|(v, _)| v.as_str() == volume) else {
        return Ok(Ended::Served(format!("export {} is gone", chosen.name)));
    };
    shards.run(owner, move |env| transmit(env, parcel, chosen)).await
}

/// What was negotiated, without the disk: that is for the shard that has it.
struct Chosen {
    name: String,
    structured: bool,
    context: Option<u32>,
}

/// All of it on the only shard.
async fn whole(env: ShardEnv, fd: OwnedFd, tls: bool) -> Result<Ended, EngineError> {
    let (stream, session) = match negotiate(&env, fd, tls, &LocalCatalog).await? {
        Ok(negotiated) => negotiated,
        Err(ended) => return Ok(ended),
    };
    let end = server::transmit_within(&env, stream, *session, &server::Limits::default()).await;
    Ok(Ended::Served(end.to_string()))
}

/// The handshake on any shard.
async fn choose(
    env: ShardEnv,
    fd: OwnedFd,
    tls: bool,
    catalog: OfferCatalog,
) -> Result<Result<(Chosen, Parcel), Ended>, EngineError> {
    let (stream, session) = match negotiate(&env, fd, tls, &catalog).await? {
        Ok(negotiated) => negotiated,
        Err(ended) => return Ok(Err(ended)),
    };
    let (name, structured, context) = (session.name, session.structured, session.context);
    let parcel = stream.leave().map_err(|e| EngineError::system("can't serve NBD", e))?;
    Ok(Ok((Chosen { name, structured, context }, parcel)))
}

/// STARTTLS where it is demanded, and the handshake.
async fn negotiate<C: Catalog>(
    env: &ShardEnv,
    fd: OwnedFd,
    tls: bool,
    catalog: &C,
) -> Result<Result<(ShardStream, Box<Session<C::Disk>>), Ended>, EngineError> {
    let limits = server::Limits::default();
    let stream = env.adopt(fd).map_err(|e| EngineError::system("can't serve NBD", e))?;
    let (stream, negotiated) = if tls {
        let secured = match server::starttls_within(env, &stream, &limits).await {
            Ok(secured) => secured,
            Err(end) => return Ok(Err(Ended::Unproven(end.to_string()))),
        };
        let stream = match env.welcome(stream, Door::Nbd).await {
            Ok(stream) => stream,
            Err(e) => return Ok(Err(Ended::Unproven(e.to_string()))),
        };
        let negotiated =
            server::negotiate_secured_within(env, &stream, secured, catalog, &limits).await;
        (stream, negotiated)
    } else {
        let negotiated = server::negotiate_within(env, &stream, catalog, &limits).await;
        (stream, negotiated)
    };
    Ok(match negotiated {
        Ok(session) => Ok((stream, session)),
        Err(end) => {
            stream.shutdown();
            Err(Ended::Served(end.to_string()))
        }
    })
}

/// The requests, on the shard that has the export.
async fn transmit(env: ShardEnv, parcel: Parcel, chosen: Chosen) -> Result<Ended, EngineError> {
    let stream = env.arrive(parcel).map_err(|e| EngineError::system("can't serve NBD", e))?;
    let Chosen { name, structured, context } = chosen;
    // It may have gone stale since: then the client is cut, as it would be a moment later.
    let export = LocalCatalog
        .open(&name)
        .map_err(|refusal| EngineError::new(Refusal::WrongState, refusal.message))?;
    let session = Session { export, name, structured, context };
    let end = server::transmit_within(&env, stream, session, &server::Limits::default()).await;
    Ok(Ended::Served(end.to_string()))
}
