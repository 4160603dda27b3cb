//! Accepting: who gets a place, and what happens to those who don't.
//!
//! ```text
//!   accept ─┬─ a place is free ─► (TLS: who is it?) ─► serve
//!           └─ all are taken                └─ nobody we know
//!                    └──────────► Refusals: counted, logged once a second ◄──┘
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{info, warn};

use super::socket::{Acceptor, Socket};
use crate::engine::metrics::Refused;

/// How long to wait when the process can't take another connection (too many open files).
const TIRED: Duration = Duration::from_millis(100);

/// How often refusals are logged.
const REPORT: Duration = Duration::from_secs(1);

/// Tells all listeners to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// A stop, and what triggers it: sending `true`, or dropping it.
    pub(crate) fn new() -> (watch::Sender<bool>, Self) {
        let (tx, rx) = watch::channel(false);
        (tx, Self(rx))
    }

    /// Ends when it is time to stop.
    pub(crate) async fn wait(&mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// A place among the connections; given back when dropped.
pub(super) type Place = Vec<OwnedSemaphorePermit>;

/// Accepts until stopped. A connection that takes a place of each of `places` goes to `serve`.
pub(super) async fn keep(
    acceptor: &Acceptor,
    refusals: &Refusals,
    places: &[Arc<Semaphore>],
    mut stop: Stop,
    mut serve: impl FnMut(Socket, String, Place),
) {
    info!(address = %acceptor.address(), "listening for {}", refusals.what());
    loop {
        let accepted = tokio::select! {
            accepted = acceptor.accept() => accepted,
            () = stop.wait() => return,
        };
        let (socket, from) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                refusals.count(&format!("can't accept: {e}"));
                tokio::time::sleep(TIRED).await;
                continue;
            }
        };
        let taken = places.iter().map(|p| p.clone().try_acquire_owned());
        match taken.collect::<Result<Place, _>>() {
            Ok(place) => serve(socket, from, place),
            // Closing is the one refusal that every client understands before a handshake.
            Err(_) => refusals.count(&format!("too many connections, the last from {from}")),
        }
    }
}

/// Counts what was refused at a listener, and says so once in a while. Clones share the count.
#[derive(Clone, Debug)]
pub(super) struct Refusals(Arc<Mutex<Count>>, Refused);

#[derive(Debug)]
struct Count {
    what: &'static str,
    since: u64,
    reported: Option<Instant>,
}

impl Refusals {
    /// None yet; `what` is what is refused, for the log and in `all`.
    pub(super) fn new(what: &'static str, all: &Refused) -> Self {
        all.watch(what);
        Self(Arc::new(Mutex::new(Count { what, since: 0, reported: None })), all.clone())
    }

    fn what(&self) -> &'static str {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).what
    }

    /// One more.
    pub(super) fn count(&self, why: &str) {
        let mut c = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        c.since += 1;
        self.1.one(c.what);
        if c.reported.is_none_or(|at| at.elapsed() >= REPORT) {
            warn!(count = c.since, "connections for {} refused: {why}", c.what);
            (c.since, c.reported) = (0, Some(Instant::now()));
        }
    }
}
