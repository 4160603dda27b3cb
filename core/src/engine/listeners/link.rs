//! Links of primaries: the hello names the group, the group's shard serves the rest.
//!
//! ```text
//!   plain:  accept ── peek hello (5 s) ─────────────────────────────┐
//!   TLS:    accept ─► any shard: handshake, read hello, put it back ┴─► shard of the group
//!                        │                    │                              └─► replication::serve_link
//!                        └─ nobody we know    └─ garbage, silence ─► refused
//! ```

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tracing::{debug, info};

use super::door::{self, Refusals, Stop};
use super::peek;
use super::socket::{Acceptor, Socket};
use crate::engine::error::EngineError;
use crate::engine::groups;
use crate::engine::registry::Engine;
use crate::runtime::{Parcel, ShardEnv};
use crate::tls::Door;
use crate::units::GroupId;

/// How long a primary may take for its hello.
const HELLO: Duration = Duration::from_secs(5);

/// Serves links until stopped.
pub(crate) async fn serve(engine: Arc<Engine>, acceptor: Acceptor, limit: usize, stop: Stop) {
    let places = [Arc::new(Semaphore::new(limit))];
    let (refusals, next) = (Refusals::new("links", engine.refused()), AtomicUsize::new(0));
    let tls = acceptor.is_tls();
    door::keep(&acceptor, &refusals, &places, stop, |socket, from, place| {
        let (engine, refusals) = (engine.clone(), refusals.clone());
        let turn = tls.then(|| next.fetch_add(1, Ordering::Relaxed));
        tokio::spawn(async move {
            let (group, parcel) = match arrive(&engine, socket, turn).await {
                Ok(arrived) => arrived,
                Err(e) => return refusals.count(&format!("{e}; the last from {from}")),
            };
            match one(&engine, group, parcel, place).await {
                Ok(end) => info!("the link from {from} ended: {end}"),
                Err(e) => refusals.count(&format!("{e}; the last from {from}")),
            }
        });
    })
    .await;
}

/// The group that a link is for. `turn`: it is TLS, and this shard's turn to do the handshake.
async fn arrive(
    engine: &Engine,
    socket: Socket,
    turn: Option<usize>,
) -> Result<(GroupId, Parcel), EngineError> {
    let failed = |e| EngineError::system("no link", e);
    let Some(turn) = turn else {
        let group = peek::hello(&socket, HELLO).await.map_err(failed)?;
        return Ok((group, socket.into_fd().map_err(failed)?.into()));
    };
    let fd = socket.into_fd().map_err(failed)?;
    let shard = engine.shards().round_robin(turn);
    engine
        .shards()
        .run(shard, move |env| async move { welcome(&env, fd).await.map_err(failed) })
        .await
}

/// The TLS handshake, and the group that the hello behind it names.
async fn welcome(env: &ShardEnv, fd: OwnedFd) -> std::io::Result<(GroupId, Parcel)> {
    let stream = env.welcome(env.adopt(fd)?, Door::Link).await?;
    let group = peek::hello_in(env, &stream, HELLO).await?;
    Ok((group, stream.leave()?))
}

async fn one(
    engine: &Engine,
    group: GroupId,
    parcel: Parcel,
    place: door::Place,
) -> Result<String, EngineError> {
    // Of a group that is not here any shard can say that it is not.
    let shard = engine.shard_of(&group).unwrap_or(engine.shards().round_robin(0));
    debug!(%group, "link accepted");
    let served = engine.shards().run(shard, move |env| async move {
        let _place = place;
        groups::serve_link(env, parcel).await
    });
    served.await
}
