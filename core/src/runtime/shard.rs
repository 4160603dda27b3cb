//! A shard: one thread with its tasks, its timers and its requests to the kernel.
//!
//! ```text
//!   ShardHandle (any thread) ── run(|env| async ..) ──► inbox ┐
//!                                                             ▼
//!   loop: errands ─ due timers ─ ready tasks (rounds) ─ turn: hand over, sleep, take in
//! ```
//!
//! A group with all its volumes lives on one shard, so what happens between two awaits of its
//! code is atomic.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::channel::oneshot;

use super::op::Rest;
use super::reactor::Reactor;
use super::remote::Remote;
use super::spin::Spin;
use super::timers::{Timers, boot_clock};
use super::{Mono, Task, Tasks, Wall};

/// How many rounds of ready tasks before requests are handed over and answers taken in.
const ROUNDS: usize = 32;

/// The longest sleep while a timer is set. The kernel's sleep does not count time in which the
/// machine was suspended, the boot clock does.
const NAP: Duration = Duration::from_secs(1);

/// What carries a shard's requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Io {
    /// io_uring.
    Ring,
    /// epoll and threads, and why.
    Threads {
        /// Why there is no ring; for people.
        why: String,
    },
}

/// Which of them to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IoChoice {
    /// A ring where the kernel allows one.
    #[default]
    Probe,
    /// A ring or an error.
    Ring,
    /// No ring.
    Threads,
}

/// How a shard is to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardConfig {
    /// What carries its requests.
    pub io: IoChoice,
    /// How long it may look for answers before it sleeps, when requests are fast; zero for never.
    pub spin: Duration,
    /// What it proves itself with; without, it has no TLS.
    pub tls: Option<crate::tls::Tls>,
    /// Whether it may connect to `tcp:` addresses.
    pub plaintext: bool,
    /// How many MiB of each group's volumes stay marked in its intent log only for speed, at most.
    pub intent_hot: usize,
}

impl Default for ShardConfig {
    /// What suits most machines. `UNDERSTUDY_IO` may force `ring` or `threads`.
    fn default() -> Self {
        let io = match std::env::var("UNDERSTUDY_IO").as_deref() {
            Ok("threads") => IoChoice::Threads,
            Ok("ring") => IoChoice::Ring,
            _ => IoChoice::Probe,
        };
        Self { io, spin: Duration::from_micros(50), tls: None, plaintext: true, intent_hot: 4096 }
    }
}

/// The shard ended before it did what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the shard has ended")]
pub struct ShardGone;

/// What runs on a shard: see [`super::Env`]. Clones are the same shard; never leaves its thread.
#[derive(Clone)]
pub struct ShardEnv(pub(crate) Rc<Core>);

pub(crate) struct Core {
    pub(crate) tasks: Tasks,
    pub(crate) timers: Timers,
    pub(crate) reactor: Rc<Reactor>,
    random: RefCell<Vec<u64>>,
    pub(super) tls: Option<crate::tls::Tls>,
    pub(super) plaintext: bool,
    pub(crate) intent_hot: usize,
}

impl std::fmt::Debug for ShardEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardEnv").field("io", self.io()).field("tasks", &self.0.tasks).finish()
    }
}

impl ShardEnv {
    fn new(config: &ShardConfig, remote: Arc<Remote>) -> io::Result<Self> {
        let hook = remote.clone();
        Ok(Self(Rc::new(Core {
            tasks: Tasks::new(move || hook.notify()),
            timers: Timers::default(),
            reactor: Rc::new(Reactor::new(config.io, remote)?),
            random: RefCell::default(),
            tls: config.tls.clone(),
            plaintext: config.plaintext,
            intent_hot: config.intent_hot,
        })))
    }

    /// What carries this shard's requests.
    pub fn io(&self) -> &Io {
        self.0.reactor.io()
    }

    /// Runs a call that blocks on a thread of its own; for what the kernel offers no request for.
    pub fn blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        call: F,
    ) -> impl Future<Output = io::Result<T>> + use<T, F> + 'static {
        self.0.reactor.pool.call(call)
    }

    pub(crate) fn reactor(&self) -> &Rc<Reactor> {
        &self.0.reactor
    }

    pub(crate) fn random_bits(&self) -> u64 {
        let mut kept = self.0.random.borrow_mut();
        if kept.is_empty() {
            let mut bytes = [0_u8; 256];
            let mut filled = 0;
            while let Some(rest) = bytes.get_mut(filled..).filter(|r| !r.is_empty()) {
                // Fails only where the kernel has no such call (before 3.17) or for a signal.
                filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())
                    .unwrap_or(0);
            }
            kept.extend(bytes.as_chunks::<8>().0.iter().map(|c| u64::from_le_bytes(*c)));
        }
        kept.pop().unwrap_or_default()
    }

    /// Runs until `done`, or until the kernel refuses.
    fn run(&self, config: &ShardConfig, done: impl Fn() -> bool) -> io::Result<()> {
        let core = &*self.0;
        let remote = core.reactor.remote.clone();
        let mut spin = Spin::new(config.spin, self.io());
        while !done() {
            remote.clear_poke();
            for errand in remote.errands() {
                errand(self);
            }
            let next = core.timers.next();
            if next.is_some_and(|at| at <= boot_clock()) {
                core.timers.fire(boot_clock());
            }
            let mut rounds = 0;
            while core.tasks.ready_len() > 0 && rounds < ROUNDS && !done() {
                core.tasks.poll_ready();
                rounds += 1;
            }
            if done() || core.tasks.ready_len() > 0 {
                core.reactor.turn(Rest::No)?;
                continue;
            }
            let rest = core
                .timers
                .next()
                .map_or(Rest::Forever, |at| Rest::For(at.since(boot_clock()).min(NAP)));
            if rest == Rest::For(Duration::ZERO) || spin.before_sleep(&core.reactor, rest)? {
                core.reactor.turn(Rest::No)?;
            } else if remote.fall_asleep() {
                let turned = core.reactor.turn(rest);
                remote.awake();
                turned?;
            } else {
                core.reactor.turn(Rest::No)?;
            }
        }
        Ok(())
    }
}

impl super::Env for ShardEnv {
    type Stream = super::ShardStream;

    fn now(&self) -> Mono {
        boot_clock()
    }

    fn wall(&self) -> Wall {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Wall(now.unwrap_or_default())
    }

    fn sleep_until(&self, at: Mono) -> impl Future<Output = ()> + 'static {
        self.0.timers.sleep_until(at)
    }

    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static) -> Task {
        self.0.tasks.spawn(0, name, future)
    }

    fn random(&self) -> u64 {
        self.random_bits()
    }

    fn connect(
        &self,
        to: &super::Address,
    ) -> impl Future<Output = io::Result<super::ShardStream>> + 'static {
        super::stream::connect(self.clone(), to.clone())
    }

    fn connect_plain(
        &self,
        to: &super::Address,
    ) -> impl Future<Output = io::Result<super::ShardStream>> + 'static {
        super::stream::connect_plain(self.clone(), to.clone())
    }

    fn start_tls(
        &self,
        stream: super::ShardStream,
        to: &super::Address,
    ) -> impl Future<Output = io::Result<super::ShardStream>> + 'static {
        super::stream::start_tls(self.clone(), stream, crate::tls::Door::Nbd, to.clone())
    }
}

/// Ends all tasks when the shard ends, however it does: they hold the shard's own parts.
struct Ending<'a>(&'a ShardEnv);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.0.reactor.remote.close();
        self.0.0.tasks.cancel_tag(0);
    }
}

/// A shard on a thread of its own.
#[derive(Debug)]
pub struct Shard;

impl Shard {
    /// Starts a thread of this name. An error if there can be no thread, or no ring.
    pub fn start(name: &str, config: ShardConfig) -> io::Result<ShardHandle> {
        let remote = Arc::new(Remote::new()?);
        let shared = remote.clone();
        let (tx, rx) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            let env = match ShardEnv::new(&config, shared.clone()) {
                Ok(env) => env,
                Err(e) => {
                    let _ = tx.send(Err(e));
                    return;
                }
            };
            let _ = tx.send(Ok(env.io().clone()));
            let ending = Ending(&env);
            if let Err(e) = env.run(&config, || shared.is_stopped()) {
                tracing::error!(error = %e, "a shard has ended: the kernel refused its requests");
            }
            drop(ending);
        })?;
        let io = rx.recv().map_err(|_| io::Error::other("the shard ended at its start"))??;
        Ok(ShardHandle(Arc::new(Handle { remote, io, thread: Mutex::new(Some(thread)) })))
    }
}

struct Handle {
    remote: Arc<Remote>,
    io: Io,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.remote.stop();
    }
}

/// A shard, seen from other threads. Clones are the same shard; it ends when the last one is dropped.
#[derive(Clone)]
pub struct ShardHandle(Arc<Handle>);

impl std::fmt::Debug for ShardHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ShardHandle({:?})", self.0.io)
    }
}

impl ShardHandle {
    /// Runs what `make` returns as a task of the shard, from now on; the future gives its result.
    /// Dropping that future lets the task run on.
    pub fn run<T, F, Fut>(
        &self,
        make: F,
    ) -> impl Future<Output = Result<T, ShardGone>> + Send + use<T, F, Fut>
    where
        T: Send + 'static,
        F: FnOnce(ShardEnv) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let (tx, rx) = oneshot::channel();
        self.0.remote.send(Box::new(move |env: &ShardEnv| {
            let future = make(env.clone());
            env.0.tasks.spawn(0, "errand", async move {
                let _ = tx.send(future.await);
            });
        }));
        async move { rx.await.map_err(|_| ShardGone) }
    }

    /// What carries the shard's requests.
    pub fn io(&self) -> &Io {
        &self.0.io
    }

    /// Ends the shard: its tasks are dropped where they stand.
    pub fn stop(&self) {
        self.0.remote.stop();
    }

    /// Waits until the shard has ended. Blocks; for the end of a process and for tests.
    pub fn join(&self) {
        let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(t) = thread
            && t.join().is_err()
        {
            tracing::error!("a shard panicked");
        }
    }
}

/// Runs a future as a shard's only errand, on the calling thread. For tests and tools.
pub fn block_on<T, F, Fut>(config: &ShardConfig, make: F) -> io::Result<T>
where
    T: 'static,
    F: FnOnce(ShardEnv) -> Fut,
    Fut: Future<Output = T> + 'static,
{
    let env = ShardEnv::new(config, Arc::new(Remote::new()?))?;
    let ending = Ending(&env);
    let out = Rc::new(Cell::new(None));
    let task = {
        let (out, future) = (out.clone(), make(env.clone()));
        env.0.tasks.spawn(0, "main", async move { out.set(Some(future.await)) })
    };
    env.run(config, || task.is_done())?;
    drop(ending);
    out.take().ok_or_else(|| io::Error::other("the main task was cancelled"))
}
