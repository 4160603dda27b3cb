//! The status stream.
//!
//! ```text
//!   now ─► wait for a change, at most a second ─► wait out the interval ─► look ─┬─ other ─► send
//!               ▲                                                              └─ same ──┐
//!               └────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Figures such as bytes at risk move without a change that anybody is told of; hence the second.
//! A client that does not read holds one status and is not waited for by anything else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Service;
use crate::engine::api::Refusal;
use crate::engine::error::EngineError;
use crate::engine::listeners::Stop;
use crate::engine::proto;
use crate::engine::registry::Engine;

/// The most streams at once.
pub(super) const WATCHERS: usize = 256;

/// The bounds of the interval: no client makes the engine do nothing else.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_hours(1));

/// How long a figure that nobody is told of may be old.
const LOOK: Duration = Duration::from_secs(1);

pub(super) type StatusStream = ReceiverStream<Result<proto::EngineStatus, Status>>;

impl Service {
    pub(super) fn watch(
        &self,
        request: &proto::WatchStatusRequest,
    ) -> Result<StatusStream, EngineError> {
        let Ok(place) = self.watchers.clone().try_acquire_owned() else {
            let text = format!("{WATCHERS} status streams are open, the limit: close one first");
            return Err(EngineError::new(Refusal::Exhausted, text));
        };
        let (tx, rx) = mpsc::channel(1);
        let watcher =
            Watcher { engine: self.engine.clone(), stop: self.stop.clone(), tx, _place: place };
        let interval = Duration::from_millis(request.interval_ms).clamp(INTERVAL.0, INTERVAL.1);
        let once = request.once;
        tokio::spawn(watcher.run(interval, once));
        Ok(ReceiverStream::new(rx))
    }
}

struct Watcher {
    engine: Arc<Engine>,
    stop: Stop,
    tx: mpsc::Sender<Result<proto::EngineStatus, Status>>,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    async fn run(mut self, interval: Duration, once: bool) {
        let mut changes = self.engine.changes();
        let mut last = None;
        loop {
            changes.mark_unchanged();
            match self.engine.status().await {
                Ok(status) if last.as_ref() == Some(&status) => {}
                Ok(status) => {
                    if self.tx.send(Ok(status.clone().into())).await.is_err() {
                        return;
                    }
                    last = Some(status);
                }
                // A group is closed for a change: the next look tells what came of it.
                Err(e) if e.refusal == Refusal::Unavailable && !once => {}
                Err(e) => {
                    let _ = self.tx.send(Err(e.into())).await;
                    return;
                }
            }
            if once {
                return;
            }
            let pause = async {
                tokio::time::sleep(interval).await;
                let _ = tokio::time::timeout(LOOK, changes.changed()).await;
            };
            tokio::select! {
                () = pause => {}
                () = self.tx.closed() => return,
                () = self.stop.wait() => {
                    let _ = self.tx.try_send(Err(Status::unavailable("the engine is about to stop")));
                    return;
                }
            }
        }
    }
}
