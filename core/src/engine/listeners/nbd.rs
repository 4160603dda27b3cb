//! NBD clients: the export they choose decides which shard serves them.
//!
//! ```text
//!   one shard:   accept ─► shard: handshake, requests
//!   several:     accept ─► any shard: handshake over the offers of all
//!                                └─ export chosen ─► its shard: requests
//! ```

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tracing::debug;

use super::door::{self, Stop};
use super::socket::{Acceptor, Socket};
use crate::engine::api::Refusal;
use crate::engine::config::Limits;
use crate::engine::error::EngineError;
use crate::engine::groups::{LocalCatalog, OfferCatalog};
use crate::engine::registry::Engine;
use crate::nbd::{Catalog, server};
use crate::runtime::ShardEnv;

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
    let next = AtomicUsize::new(0);
    door::keep("NBD", acceptor, &places, stop, |socket, from, place| {
        let (engine, n) = (engine.clone(), next.fetch_add(1, Ordering::Relaxed));
        tokio::spawn(async move {
            match one(&engine, socket, n).await {
                Ok(end) => debug!("the NBD connection of {from} ended: {end}"),
                Err(e) => debug!("the NBD connection of {from} ended: {e}"),
            }
            drop(place);
        });
    })
    .await;
}

async fn one(engine: &Engine, socket: Socket, n: usize) -> Result<String, EngineError> {
    let failed = |e| EngineError::system("can't serve NBD", e);
    let fd = socket.into_fd().map_err(failed)?;
    let shards = engine.shards();
    let here = shards.round_robin(n);
    if shards.count() == 1 {
        return shards.run(here, |env| whole(env, fd)).await;
    }
    let offers = engine.offers().await?;
    let places: Vec<_> = offers.iter().map(|(s, o)| (o.volume().clone(), *s)).collect();
    let catalog = OfferCatalog(offers.into_iter().map(|(_, o)| o).collect());
    let kept = fd.try_clone().map_err(failed)?;
    let chosen = match shards.run(here, move |env| negotiate(env, fd, catalog)).await? {
        Ok(chosen) => chosen,
        Err(end) => return Ok(end),
    };
    let volume = chosen.name.split('/').next().unwrap_or_default();
    let Some((_, owner)) = places.into_iter().find(|(v, _)| v.as_str() == volume) else {
        return Ok(format!("export {} is gone", chosen.name));
    };
    shards.run(owner, move |env| transmit(env, kept, chosen)).await
}

/// What was negotiated, without the disk: that is for the shard that has it.
struct Chosen {
    name: String,
    structured: bool,
    context: Option<u32>,
}

async fn whole(env: ShardEnv, fd: OwnedFd) -> Result<String, EngineError> {
    let stream = env.adopt(fd).map_err(|e| EngineError::system("can't serve NBD", e))?;
    Ok(server::serve(&env, stream, &LocalCatalog).await.to_string())
}

async fn negotiate(
    env: ShardEnv,
    fd: OwnedFd,
    catalog: OfferCatalog,
) -> Result<Result<Chosen, String>, EngineError> {
    let stream = env.adopt(fd).map_err(|e| EngineError::system("can't serve NBD", e))?;
    let negotiated =
        server::negotiate_within(&env, &stream, &catalog, &server::Limits::default()).await;
    Ok(match negotiated {
        Ok(session) => {
            let (name, structured, context) = (session.name, session.structured, session.context);
            Ok(Chosen { name, structured, context })
        }
        Err(end) => Err(end.to_string()),
    })
}

async fn transmit(env: ShardEnv, fd: OwnedFd, chosen: Chosen) -> Result<String, EngineError> {
    let stream = env.adopt(fd).map_err(|e| EngineError::system("can't serve NBD", e))?;
    let Chosen { name, structured, context } = chosen;
    // It may have gone stale since: then the client is cut, as it would be a moment later.
    let export = LocalCatalog
        .open(&name)
        .map_err(|refusal| EngineError::new(Refusal::WrongState, refusal.message))?;
    let session = crate::nbd::handshake::Session { export, name, structured, context };
    Ok(server::transmit_within(&env, stream, session, &server::Limits::default()).await.to_string())
}
