//! The world: time, tasks and events, and which of them is next.
//!
//! ```text
//!   step:  a task is ready?  ── yes ─► the seed picks one, it is polled
//!              │ no (and now and then although there is one: a processor is slow)
//!              ▼
//!          time jumps to the next event, it happens
//!              │ none
//!              ▼
//!          stuck
//! ```

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use super::events::{Action, Event, EventId, Events, Fate, WORLD};
use super::file::Keep;
use super::network::Network;
use super::node::{Clock, Node};
use super::random::Random;
use super::trace::{Line, Trace};
use crate::runtime::Tasks;

/// How far ahead an event may be that happens although a task is ready.
const SLOW_PROCESSOR: Duration = Duration::from_micros(200);

/// All there is. Nodes, hosts, disks and streams hold it.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) now: Cell<Duration>,
    pub(super) tasks: Tasks,
    pub(super) events: Events,
    pub(super) nodes: RefCell<Vec<Rc<Node>>>,
    /// Whose life a tag is, by tag.
    lives: RefCell<Vec<Option<Rc<Node>>>>,
    /// Lives that ended while one of their own tasks was running.
    ended: RefCell<Vec<u32>>,
    schedule: Random,
    pub(super) disks: Random,
    pub(super) disk_delay: RefCell<Range<Duration>>,
    pub(super) keep: Cell<Keep>,
    pub(super) intent_hot: Cell<usize>,
    pub(super) resync_settle: Cell<u64>,
    pub(super) network: Network,
    pub(super) trace: Trace,
    pub(super) steps: Cell<u64>,
    pub(super) step_limit: Cell<u64>,
    pub(super) time_limit: Cell<Duration>,
}

/// What [`World::step`] came to.
pub(super) enum Step {
    /// The future of `block_on` is to be polled.
    Main,
    Did,
    /// Nothing is ready and nothing will happen.
    Stuck,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let root = Random::new(seed);
        Self {
            seed,
            now: Cell::new(Duration::from_secs(1)),
            tasks: Tasks::default(),
            events: Events::default(),
            nodes: RefCell::default(),
            lives: RefCell::new(vec![None]),
            ended: RefCell::default(),
            schedule: root.fork(),
            disks: root.fork(),
            disk_delay: RefCell::new(Duration::from_micros(20)..Duration::from_micros(400)),
            keep: Cell::new(Keep::BySeed),
            intent_hot: Cell::new(crate::disk::INTENT_HOT),
            resync_settle: Cell::new(64 << 20),
            network: Network::new(root.fork()),
            trace: Trace::new(),
            steps: Cell::new(0),
            step_limit: Cell::new(200_000_000),
            time_limit: Cell::new(Duration::from_hours(1)),
        }
    }

    /// The node of this name, made at its first use.
    pub(super) fn node(&self, name: &str) -> Rc<Node> {
        if let Some(node) = self.nodes.borrow().iter().find(|n| n.name == name) {
            return node.clone();
        }
        let mut nodes = self.nodes.borrow_mut();
        let mut salt = Random::new(self.seed).next();
        for byte in name.bytes() {
            salt = Random::new(salt ^ u64::from(byte)).next();
        }
        let tag = crate::units::u32_of(crate::units::u64_of(self.lives.borrow().len()));
        let node = Rc::new(Node::new(nodes.len(), name, tag, Random::new(salt)));
        nodes.push(node.clone());
        self.lives.borrow_mut().push(Some(node.clone()));
        node
    }

    /// Ends the present life of a node and begins the next; says the tag of the one that ended.
    fn next_life(&self, node: &Rc<Node>) -> u32 {
        let mut lives = self.lives.borrow_mut();
        let tag = crate::units::u32_of(crate::units::u64_of(lives.len()));
        lives.push(Some(node.clone()));
        node.incarnation.set(node.incarnation.get() + 1);
        node.tag.replace(tag)
    }

    /// The node whose life, past or present, a tag is.
    pub(super) fn owner(&self, tag: u32) -> Option<Rc<Node>> {
        self.lives.borrow().get(crate::units::usize_of(tag.into())).cloned().flatten()
    }

    pub(super) fn wake_at(&self, at: Duration, tag: u32, waker: Waker) -> EventId {
        self.events.add(at, tag, Event::Wake(waker))
    }

    pub(super) fn act_after(&self, delay: Duration, tag: u32, action: Action) {
        self.events.add(self.now.get() + delay, tag, Event::Act(action));
    }

    /// Adds a line to the trace.
    pub(super) fn note(&self, tag: u32, what: &'static str, of: impl Into<Rc<str>>, number: u64) {
        let line = Line { at: self.now.get(), node: self.owner(tag), what, of: of.into(), number };
        self.trace.add(line);
    }

    /// How long the next request of a disk takes.
    pub(super) fn next_disk_delay(&self) -> Duration {
        let delay = self.disks.between(&self.disk_delay.borrow());
        // A request overtaken by many others: rare, and where missing locks show.
        if self.disks.one_in(32) { delay * 16 } else { delay }
    }

    pub(super) fn step(&self, main_ready: bool) -> Step {
        self.steps.set(self.steps.get() + 1);
        let paused = self.nodes.borrow().iter().any(|n| n.paused.get());
        let runnable = if paused { self.runnable() } else { Vec::new() };
        let ready = if paused { runnable.len() } else { self.tasks.ready_len() };
        let choices = ready + usize::from(main_ready);
        let next = self.events.next_at();
        let hurry = next.is_some_and(|at| at <= self.now.get() + SLOW_PROCESSOR);
        if choices > 0 && !(hurry && self.schedule.one_in(8)) {
            let pick = self.schedule.index(choices);
            if pick == ready {
                self.note(WORLD, "run", "main", 0);
                return Step::Main;
            }
            let n = if paused { runnable.get(pick).copied().unwrap_or(0) } else { pick };
            if let Some((tag, name)) = self.tasks.ready_at(n) {
                self.note(tag, "run", name, 0);
            }
            self.tasks.poll_nth(n);
            self.bury();
            return Step::Did;
        }
        let Some((at, tag, event)) = self.events.pop() else { return Step::Stuck };
        self.now.set(at.max(self.now.get()));
        match event {
            Event::Wake(waker) => {
                self.note(tag, "timer", "", 0);
                waker.wake();
            }
            Event::Act(action) => {
                self.note(tag, "event", "", 0);
                action(Fate::Happens);
            }
        }
        self.bury();
        Step::Did
    }

    /// The places in the ready queue of what may run: not the tasks of a paused node.
    fn runnable(&self) -> Vec<usize> {
        let all = 0..self.tasks.ready_len();
        let paused = |n: &usize| {
            let owner = self.tasks.ready_at(*n).and_then(|(tag, _)| self.owner(tag));
            owner.is_some_and(|node| node.paused.get())
        };
        all.filter(|n| !paused(n)).collect()
    }

    /// Drops the tasks of lives that ended while one of those tasks was running.
    fn bury(&self) {
        let ended = std::mem::take(&mut *self.ended.borrow_mut());
        for tag in ended {
            self.tasks.cancel_tag(tag);
        }
    }

    /// Ends a node's present life. `silent`: nobody is told.
    pub(super) fn end(self: &Rc<Self>, node: &Rc<Node>, fate: Fate, silent: bool) {
        self.note(
            node.tag.get(),
            "dies",
            if fate == Fate::Kill { "killed" } else { "power" },
            silent.into(),
        );
        let tag = self.next_life(node);
        node.armed.set(None);
        node.paused.set(false);
        let mut begun = self.events.take(tag);
        self.disks.shuffle(&mut begun);
        for event in begun {
            if let Event::Act(action) = event {
                action(fate);
            }
        }
        if fate == Fate::PowerCut {
            node.power_cuts.set(node.power_cuts.get() + 1);
            let directories: Vec<_> = node.directories.borrow().values().cloned().collect();
            for directory in directories {
                directory.power_cut(&self.disks, self.keep.get());
            }
            let base = Duration::from_millis(self.disks.below(60_000));
            node.clock.set(Clock { since: self.now.get(), base, ..node.clock.get() });
            node.up.set(!silent);
        }
        self.network.node_died(tag, silent);
        self.tasks.cancel_tag(tag);
        self.ended.borrow_mut().push(tag);
        node.died.notify();
    }

    /// Who has not ended, for the report of a deadlock.
    pub(super) fn stuck(&self) -> String {
        let names = self.tasks.alive().into_iter().map(|(tag, name)| match self.owner(tag) {
            Some(node) => format!("{}/{name}", node.name),
            None => name.to_owned(),
        });
        let names: Vec<_> = names.collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// Drops everything that holds the world, so that it can be dropped itself.
    pub(super) fn clear(&self) {
        let count = crate::units::u32_of(crate::units::u64_of(self.lives.borrow().len()));
        for tag in WORLD..count {
            self.tasks.cancel_tag(tag);
        }
        self.events.clear();
        self.network.clear();
        let nodes = std::mem::take(&mut *self.nodes.borrow_mut());
        for node in &nodes {
            let directories = std::mem::take(&mut *node.directories.borrow_mut());
            drop(directories);
        }
    }
}
