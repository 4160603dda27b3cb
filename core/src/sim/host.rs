//! One life of a node, as the code under test sees it: clock, tasks, chance, disks, streams.
//!
//! When the life ends (a crash, a kill), everything made from its host is inert: tasks never run,
//! requests are never answered, time never passes. Take a new host from [`Sim::node`](super::Sim::node).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::channel::oneshot;

use super::dir::{Directory, SimDir};
use super::disk::{SimDisk, answer};
use super::events::EventId;
use super::faults::{Failure, Operation};
use super::file::{File, Held};
use super::network;
use super::network::SimListener;
use super::node::Node;
use super::pages::{Content, Effect};
use super::stream::SimStream;
use super::world::World;
use crate::disk::{ErrorKind, Host};
use crate::runtime::{Address, Buf, Data, Env, Mono, Task, Wall};
use crate::units::{ByteRange, u64_of};

/// When the world begins, for people, since the Unix epoch.
const WALL_BASE: Duration = Duration::from_hours(500_000);

/// One life of a node. Clones are the same.
#[derive(Clone)]
pub struct SimHost {
    world: Rc<World>,
    node: Rc<Node>,
    tag: u32,
}

impl std::fmt::Debug for SimHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimHost({})", self.node.name)
    }
}

impl AsRef<str> for SimHost {
    fn as_ref(&self) -> &str {
        &self.node.name
    }
}

impl SimHost {
    pub(super) fn new(world: &Rc<World>, node: &Rc<Node>) -> Self {
        Self { world: world.clone(), node: node.clone(), tag: node.tag.get() }
    }

    pub(super) fn world(&self) -> &Rc<World> {
        &self.world
    }

    pub(super) fn node(&self) -> &Rc<Node> {
        &self.node
    }

    pub(super) fn tag(&self) -> u32 {
        self.tag
    }

    pub(super) fn note(&self, what: &'static str, of: impl Into<Rc<str>>, number: u64) {
        self.world.note(self.tag, what, of, number);
    }

    /// Ends after `delay` of the world's time; never, when this life ends before.
    pub(super) fn pause(&self, delay: Duration) -> impl Future<Output = ()> + 'static {
        let (reply, receiver) = oneshot::channel();
        if !self.is_dead() {
            let action = move |fate| {
                if fate == super::events::Fate::Happens {
                    let _ = reply.send(());
                }
            };
            self.world.act_after(delay, self.tag, Box::new(action));
        }
        answer(receiver)
    }

    /// How long the next request of a disk of this node takes.
    pub(super) fn disk_delay(&self) -> Duration {
        self.world.next_disk_delay() * self.node.disk_slowness.get()
    }

    /// The same for a file: replicas may be slower than the small files beside them.
    pub(super) fn file_delay(&self, file: &File) -> Duration {
        let is_replica = file.path.borrow().ends_with("/disk");
        let times = if is_replica { self.node.replica_slowness.get() } else { 1 };
        self.disk_delay() * times
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// Whether this life has ended.
    pub fn is_dead(&self) -> bool {
        self.node.tag.get() != self.tag
    }

    /// The directory at `path` (`groups/g1`); made, durably, at its first use.
    pub fn dir(&self, path: &str) -> SimDir {
        let mut all = self.node.directories.borrow_mut();
        let directory =
            all.entry(path.to_owned()).or_insert_with(|| Rc::new(Directory::new(path))).clone();
        SimDir::new(self, directory)
    }

    /// Runs `future` as a task of this node and waits for its output; `None` if the node dies first.
    ///
    /// What `block_on` runs itself belongs to no node and survives its crash, waiting in vain.
    pub fn call<T: 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + 'static,
    ) -> impl Future<Output = Option<T>> + 'static {
        let (reply, receiver) = oneshot::channel();
        self.spawn(name, async move {
            let _ = reply.send(future.await);
        });
        async move { receiver.await.ok() }
    }

    /// Listens at `unix:PATH`, one name space for all nodes.
    ///
    /// # Errors
    /// If somebody listens there already.
    pub fn listen(&self, path: &str) -> io::Result<SimListener> {
        self.listen_at(&Address::Unix(path.into()))
    }

    /// Listens at an address of any kind.
    ///
    /// # Errors
    /// If somebody listens there already.
    pub fn listen_at(&self, address: &Address) -> io::Result<SimListener> {
        network::listen(self, address)
    }

    /// What requests of files opened from now on must be aligned to: 1, 512 or 4096 bytes.
    pub fn set_alignment(&self, alignment: u64) {
        self.node.alignment.set(alignment);
    }

    /// Makes the node's disks so many times slower than the others', and its replicas so many times
    /// slower than its other files, over all its lives.
    pub fn set_disk_slowness(&self, all: u32, replicas: u32) {
        self.node.disk_slowness.set(all.max(1));
        self.node.replica_slowness.set(replicas.max(1));
    }

    /// Makes requests to a file fail (`groups/g1/superblock`), whether it exists yet or not. Holds
    /// over crashes and opens. A failed write has taken effect somewhere or nowhere.
    pub fn inject(&self, path: &str, operation: Operation, failure: Failure) {
        self.inject_kind(path, operation, failure, ErrorKind::Io);
    }

    /// The same with another kind of error, such as [`ErrorKind::NoSpace`].
    pub fn inject_kind(&self, path: &str, operation: Operation, failure: Failure, kind: ErrorKind) {
        self.node.injected.set(path, operation, failure, kind);
    }

    fn file(&self, path: &str) -> Option<Rc<File>> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.node.directories.borrow().get(directory)?.file(name)
    }

    /// Bytes of a file, for oracles: no request, no lock, no delay. `None` if there is no such file.
    pub fn peek(&self, path: &str, range: ByteRange, held: Held) -> Option<Vec<u8>> {
        Some(self.file(path)?.peek(range, held))
    }

    /// All bytes of a file, for oracles.
    pub fn snapshot_content(&self, path: &str, held: Held) -> Option<Vec<u8>> {
        let file = self.file(path)?;
        Some(file.peek(ByteRange::new(0, file.len.get()), held))
    }

    /// Puts bytes into a file behind everybody's back, durably: rot. False if there is no such file.
    pub fn poke(&self, path: &str, at: u64, bytes: &[u8]) -> bool {
        let Some(file) = self.file(path) else { return false };
        let range = ByteRange::new(at, at.saturating_add(u64_of(bytes.len())));
        file.poke(&Effect { range, content: Content::Bytes(Data::copy_of(bytes)) });
        true
    }
}

impl Env for SimHost {
    type Stream = SimStream;

    fn now(&self) -> Mono {
        Mono(self.node.clock.get().shows(self.world.now.get()))
    }

    fn wall(&self) -> Wall {
        Wall(WALL_BASE + self.world.now.get())
    }

    fn sleep_until(&self, at: Mono) -> impl Future<Output = ()> + 'static {
        Sleep { host: self.clone(), at, event: None }
    }

    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static) -> Task {
        let task = self.world.tasks.spawn(self.tag, name, future);
        if self.is_dead() {
            task.cancel();
        }
        task
    }

    fn random(&self) -> u64 {
        self.node.random.next()
    }

    fn alloc(&self, len: usize) -> Buf {
        let mut buf = Buf::new(len);
        // Undefined means undefined, but the same in each run of a seed.
        buf.fill(0xd5);
        buf
    }

    fn connect(&self, to: &Address) -> impl Future<Output = io::Result<SimStream>> + 'static {
        network::connect(self.clone(), to.to_string())
    }
}

impl Host for SimHost {
    type Disk = SimDisk;
    type Dir = SimDir;

    fn intent_hot(&self) -> usize {
        self.world.intent_hot.get()
    }

    fn resync_settle(&self) -> u64 {
        self.world.resync_settle.get()
    }
}

/// Waits until the clock of its node shows a time, however the clock is turned meanwhile.
struct Sleep {
    host: SimHost,
    at: Mono,
    event: Option<EventId>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(event) = self.event.take() {
            self.host.world.events.remove(event);
        }
        if self.host.is_dead() {
            return Poll::Pending;
        }
        if self.host.now() >= self.at {
            return Poll::Ready(());
        }
        // A clock that stands still has to be set going again, which wakes its sleepers.
        let due = self.host.node.clock.get().world_at(self.at.0).unwrap_or(Duration::MAX);
        self.event = Some(self.host.world.wake_at(due, self.host.tag, cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(event) = self.event {
            self.host.world.events.remove(event);
        }
    }
}
