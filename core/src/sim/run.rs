//! What a test holds: runs the world and does harm to it.

use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::events::{Fate, WORLD};
use super::file::Keep;
use super::host::SimHost;
use super::network::{Direction, Loss};
use super::random::Random;
use super::sync::{Armed, When};
use super::world::{Step, World};

/// A simulated world. Clones are the same world, which ends with the first.
pub struct Sim {
    pub(super) world: Rc<World>,
    /// The first: ends the world when dropped.
    owner: bool,
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sim(seed {}, {:?})", self.world.seed, self.world.now.get())
    }
}

impl Clone for Sim {
    fn clone(&self) -> Self {
        Self { world: self.world.clone(), owner: false }
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if self.owner {
            self.world.clear();
        }
    }
}

/// Prints the seed when a test panics inside the world.
struct Report<'a>(&'a World);

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the last things that happened:\n{}", self.0.trace.lines().join("\n"));
            eprintln!("simulation failed: seed {}, at {:?}", self.0.seed, self.0.now.get());
        }
    }
}

struct Main(AtomicBool);

impl Wake for Main {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Sim {
    /// A world that `seed` decides.
    pub fn new(seed: u64) -> Self {
        Self { world: Rc::new(World::new(seed)), owner: true }
    }

    /// The seed to take: `UNDERSTUDY_SEED` if that is set, else `default`.
    pub fn seed_or(default: u64) -> u64 {
        let given = std::env::var("UNDERSTUDY_SEED").ok();
        given.and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    /// Its seed.
    pub fn seed(&self) -> u64 {
        self.world.seed
    }

    /// The present life of the node of this name, which is made at its first use. After a crash:
    /// a new life over the same disks.
    pub fn node(&self, name: impl AsRef<str>) -> SimHost {
        let node = self.world.node(name.as_ref());
        if !node.up.replace(true) {
            self.world.network.changed.notify();
        }
        SimHost::new(&self.world, &node)
    }

    /// A sequence of its own for a test's choices.
    pub fn random(&self, label: u64) -> Random {
        Random::new(Random::new(self.world.seed ^ 0x7465_7374).next() ^ label).fork()
    }

    /// Runs the world until `future` is done. It belongs to no node: crashes don't touch it.
    ///
    /// # Panics
    /// With the seed and the tasks that are stuck, when nothing can happen any more, or at the limit
    /// of time (an hour in one call) or steps.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let report = Report(&self.world);
        let main = Arc::new(Main(AtomicBool::new(true)));
        let waker = Waker::from(main.clone());
        let mut future = pin!(future);
        let last = self.world.now.get().saturating_add(self.world.time_limit.get());
        loop {
            let why = match self.world.step(main.0.load(Ordering::Relaxed)) {
                Step::Main => {
                    main.0.store(false, Ordering::Relaxed);
                    if let Poll::Ready(output) =
                        future.as_mut().poll(&mut Context::from_waker(&waker))
                    {
                        drop(report);
                        return output;
                    }
                    continue;
                }
                Step::Did if self.world.now.get() > last => "the limit of virtual time is reached",
                Step::Did if self.world.steps.get() > self.world.step_limit.get() => {
                    "the limit of steps is reached"
                }
                Step::Did => continue,
                Step::Stuck => {
                    "deadlock: nothing is ready and nothing will happen (what was made from a node's \
                     host before its crash is never answered)"
                }
            };
            panic!("seed {}: {why}; main waits, tasks: {}", self.world.seed, self.world.stuck());
        }
    }

    /// Lets the world run for `time`.
    pub fn run_for(&self, time: Duration) {
        self.block_on(self.pause(time));
    }

    /// Ends after `time` of the world, whatever the nodes' clocks do.
    pub fn pause(&self, time: Duration) -> impl Future<Output = ()> + 'static {
        let (reply, receiver) = futures::channel::oneshot::channel();
        let action = move |_: Fate| {
            // Dropped futures need no answer.
            let _ = reply.send(());
        };
        self.world.act_after(time, WORLD, Box::new(action));
        super::disk::answer(receiver)
    }

    /// The world's time since its beginning.
    pub fn elapsed(&self) -> Duration {
        self.world.now.get().saturating_sub(Duration::from_secs(1))
    }

    /// A hash of everything that happened so far: equal for equal seeds and calls.
    pub fn trace_hash(&self) -> u64 {
        self.world.trace.hash()
    }

    /// The most steps (polls and events) of this world.
    pub fn limit_steps(&self, steps: u64) {
        self.world.step_limit.set(steps);
    }

    /// The most virtual time one `block_on` may take.
    pub fn limit_time(&self, time: Duration) {
        self.world.time_limit.set(time);
    }

    /// How long a request of a disk takes; a flush takes twice as long, a few take 16 times as long.
    pub fn set_disk_delay(&self, delay: Range<Duration>) {
        *self.world.disk_delay.borrow_mut() = delay;
    }

    /// How long a piece of a stream travels.
    pub fn set_network_delay(&self, delay: Range<Duration>) {
        *self.world.network.delay.borrow_mut() = delay;
    }

    /// How many bytes may be under way in each direction of a stream.
    pub fn set_network_capacity(&self, bytes: usize) {
        self.world.network.capacity.set(bytes.max(1));
    }

    /// How likely streams break by themselves.
    pub fn set_loss(&self, loss: Loss) {
        self.world.network.loss.set(loss);
    }

    /// How many regions of an intent log stay marked only for speed, from the next start of a group.
    pub fn set_intent_hot(&self, regions: usize) {
        self.world.intent_hot.set(regions);
    }

    /// How many bytes a resync sends before both sides flush.
    pub fn set_resync_settle(&self, bytes: u64) {
        self.world.resync_settle.set(bytes);
    }

    /// What power cuts keep of what was not flushed. By seed unless set.
    pub fn set_keep(&self, keep: Keep) {
        self.world.keep.set(keep);
    }

    /// The node's machine crashes and is started again: tasks end, disks keep what they must, peers
    /// find their streams reset or ended.
    pub fn crash(&self, node: impl AsRef<str>) {
        self.world.end(&self.world.node(node.as_ref()), Fate::PowerCut, false);
    }

    /// As [`crash`](Self::crash), but peers hear nothing; the machine stays off until
    /// [`node`](Self::node) is called for it.
    pub fn power_cut(&self, node: impl AsRef<str>) {
        self.world.end(&self.world.node(node.as_ref()), Fate::PowerCut, true);
    }

    /// The node's process is killed: completed writes stay in its kernel's cache, to be lost by a
    /// later power cut; requests in flight may still take effect.
    pub fn kill(&self, node: impl AsRef<str>) {
        self.world.end(&self.world.node(node.as_ref()), Fate::Kill, false);
    }

    /// How many lives the node has had.
    pub fn incarnation(&self, node: impl AsRef<str>) -> u32 {
        self.world.node(node.as_ref()).incarnation.get()
    }

    /// How often the power of the node has failed, while it ran or not.
    pub fn power_cuts(&self, node: impl AsRef<str>) -> u32 {
        self.world.node(node.as_ref()).power_cuts.get()
    }

    /// Ends at the next death of the node.
    pub fn died(&self, node: impl AsRef<str>) -> impl Future<Output = ()> + 'static {
        let signal = self.world.node(node.as_ref()).died.clone();
        let wait = signal.wait();
        async move {
            wait.await;
        }
    }

    /// How many sync points the node has passed, in all its lives.
    pub fn sync_points(&self, node: impl AsRef<str>) -> u64 {
        self.world.node(node.as_ref()).syncs.get()
    }

    /// Cuts the node's power at its `n`-th sync point, counted from 0 as [`sync_points`](Self::sync_points)
    /// does. Holds for its present life.
    pub fn crash_at_sync(&self, node: impl AsRef<str>, n: u64, when: When) {
        self.arm(node.as_ref(), Armed { point: n, when, all: false });
    }

    /// As [`crash_at_sync`](Self::crash_at_sync), and the power of all other nodes fails in the same
    /// moment.
    pub fn blackout_at_sync(&self, node: impl AsRef<str>, n: u64, when: When) {
        self.arm(node.as_ref(), Armed { point: n, when, all: true });
    }

    fn arm(&self, node: &str, armed: Armed) {
        self.world.node(node).armed.set(Some(armed));
    }

    /// From now on nothing gets from `a` to `b` (and back, for both ways); streams fall silent.
    pub fn partition(&self, a: impl AsRef<str>, b: impl AsRef<str>, direction: Direction) {
        let (a, b) = self.pair(a.as_ref(), b.as_ref());
        self.world.network.block(a, b);
        if direction == Direction::Both {
            self.world.network.block(b, a);
        }
        self.world.note(WORLD, "partition", "", 0);
    }

    /// Opens all ways between `a` and `b`; streams that waited go on.
    pub fn heal(&self, a: impl AsRef<str>, b: impl AsRef<str>) {
        let (a, b) = self.pair(a.as_ref(), b.as_ref());
        self.world.note(WORLD, "heal", "", 0);
        self.world.network.heal(a, b);
    }

    /// Resets all streams between `a` and `b`; each side learns of it at its own time.
    pub fn cut(&self, a: impl AsRef<str>, b: impl AsRef<str>) {
        let (a, b) = self.pair(a.as_ref(), b.as_ref());
        self.world.note(WORLD, "cut", "", 0);
        self.world.network.cut(a, b);
    }

    /// All streams between `a` and `b` fall silent for ever; new ones work.
    pub fn stall(&self, a: impl AsRef<str>, b: impl AsRef<str>) {
        let (a, b) = self.pair(a.as_ref(), b.as_ref());
        self.world.note(WORLD, "stall", "", 0);
        self.world.network.stall(a, b);
    }

    fn pair(&self, a: &str, b: &str) -> (usize, usize) {
        (self.world.node(a).id, self.world.node(b).id)
    }

    /// Makes the node's clock run `ppm` parts per million too fast; -1,000,000 stops it.
    pub fn drift(&self, node: impl AsRef<str>, ppm: i64) {
        let node = self.world.node(node.as_ref());
        node.clock.set(node.clock.get().with_rate(self.world.now.get(), ppm));
        self.world.events.wake_timers(node.tag.get());
    }

    /// Stops the node's tasks (SIGSTOP); its disks and the network go on, and so does its clock.
    pub fn pause_node(&self, node: impl AsRef<str>) {
        self.world.node(node.as_ref()).paused.set(true);
    }

    /// Lets them go on.
    pub fn resume_node(&self, node: impl AsRef<str>) {
        self.world.node(node.as_ref()).paused.set(false);
    }
}
