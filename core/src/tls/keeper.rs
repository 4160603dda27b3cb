//! The set in use, and the files that it came from.
//!
//! ```text
//!   current() ─► looked within LOOK? ─ yes ─► the set in use
//!                     │ no
//!                     ▼
//!               files as before? ─ yes ─┘
//!                     │ no, and the same at two looks: nobody is writing them
//!                     ▼
//!               load ─┬─ good ─► in use from now on, for new connections
//!                     └─ bad ──► one log line; the old one stays
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::files::{FILES, LoadError, Stamp, load};
use super::{Identity, Set};

/// How often the files are looked at, at most.
const LOOK: Duration = Duration::from_secs(2);

/// How often files that are not there yet are looked for.
const AGAIN: Duration = Duration::from_millis(250);

/// The certificates of a process. Clones share them; all threads may.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    expected: Option<Identity>,
    state: Mutex<State>,
}

struct State {
    set: Arc<Set>,
    /// Of the files that the set came from, or of the last ones that were refused.
    known: Stamp,
    /// Of the last look.
    seen: Stamp,
    looked: Instant,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({})", self.0.dir.display())
    }
}

/// Two are equal if they are the same.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Tls {}

impl Tls {
    /// Loads the set in a directory. `expected`: whose it must be.
    pub fn open(dir: &Path, expected: Option<Identity>) -> Result<Self, LoadError> {
        let stamp = Stamp::of(dir);
        let set = Arc::new(load(dir, expected.as_ref())?);
        let state = State { set, known: stamp, seen: stamp, looked: Instant::now() };
        Ok(Self(Arc::new(Shared { dir: dir.to_owned(), expected, state: Mutex::new(state) })))
    }

    /// As [`open`](Self::open); waits up to `limit` for a good set to appear. Blocks.
    pub fn open_within(
        dir: &Path,
        expected: Option<&Identity>,
        limit: Duration,
    ) -> Result<Self, LoadError> {
        let end = Instant::now() + limit;
        let mut told = None;
        loop {
            match Self::open(dir, expected.cloned()) {
                Err(e) if Instant::now() < end => {
                    if told.as_ref() != Some(&e) {
                        warn!("waiting up to {limit:?} for certificates: {e}");
                        told = Some(e);
                    }
                    std::thread::sleep(AGAIN);
                }
                Err(e) => {
                    let [a, b, c] = FILES;
                    let remedy = format!("{} (--tls needs {a}, {b} and {c})", e.problem);
                    return Err(LoadError { problem: remedy, ..e });
                }
                Ok(tls) => return Ok(tls),
            }
        }
    }

    /// The set for a new connection. Looks at the files now and then: some system calls at most
    /// every other second.
    pub fn current(&self) -> Arc<Set> {
        // Nothing panics while it is held.
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK {
            state.look(&self.0.dir, self.0.expected.as_ref());
        }
        state.set.clone()
    }

    /// Who we are now.
    pub fn identity(&self) -> Identity {
        self.current().identity().clone()
    }
}

impl State {
    fn look(&mut self, dir: &Path, expected: Option<&Identity>) {
        self.looked = Instant::now();
        let stamp = Stamp::of(dir);
        let settled = std::mem::replace(&mut self.seen, stamp) == stamp;
        if stamp == self.known || !settled {
            return;
        }
        self.known = stamp;
        match load(dir, expected) {
            Ok(set) => {
                info!(dir = %dir.display(), identity = %set.identity(), "new certificates in use");
                self.set = Arc::new(set);
            }
            Err(e) => warn!("the new certificates are refused, the old ones stay in use: {e}"),
        }
    }
}
