//! Links of primaries: the hello names the group, the group's shard serves the rest.
//!
//! ```text
//!   accept ── peek hello (5 s) ──► shard of the group ──► replication::serve_link
//!                  └─ garbage, silence ─► closed
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use super::door::{self, Stop};
use super::peek;
use super::socket::{Acceptor, Socket};
use crate::engine::error::EngineError;
use crate::engine::groups;
use crate::engine::registry::Engine;

/// How long a primary may take for its hello.
const HELLO: Duration = Duration::from_secs(5);

/// Serves links until stopped.
pub(crate) async fn serve(engine: Arc<Engine>, acceptor: Acceptor, limit: usize, stop: Stop) {
    let places = [Arc::new(Semaphore::new(limit))];
    door::keep("links", acceptor, &places, stop, |socket, from, place| {
        let engine = engine.clone();
        tokio::spawn(async move {
            match one(&engine, socket, place).await {
                Ok(end) => info!("the link from {from} ended: {end}"),
                Err(e) => warn!("a link from {from} was refused: {e}"),
            }
        });
    })
    .await;
}

async fn one(engine: &Engine, socket: Socket, place: door::Place) -> Result<String, EngineError> {
    let failed = |e| EngineError::system("no link", e);
    let group = peek::hello(&socket, HELLO).await.map_err(failed)?;
    let socket = socket.into_fd().map_err(failed)?;
    // Of a group that is not here any shard can say that it is not.
    let shard = engine.shard_of(&group).unwrap_or(engine.shards().round_robin(0));
    debug!(%group, "link accepted");
    let served = engine.shards().run(shard, move |env| async move {
        let _place = place;
        groups::serve_link(env, socket).await
    });
    served.await
}
