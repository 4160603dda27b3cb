//! Who listens where, which ways are blocked, and which connections there are.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::events::{Fate, WORLD};
use super::host::SimHost;
use super::node::Node;
use super::random::Random;
use super::side::Item;
use super::stream::{Connection, SimStream};
use super::world::World;
use crate::runtime::{Address, Signal};

/// Bytes that may be under way in one direction of a stream.
const CAPACITY: usize = 128 << 10;

/// Which ways between two nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Both.
    Both,
    /// Only from the first to the second.
    OneWay,
}

/// How likely a piece of a stream takes the stream with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Loss {
    /// One piece in this many resets its stream; 0: none does.
    pub reset_one_in: u64,
    /// One piece in this many is the last that ever arrives, and nobody is told; 0: none is.
    pub stall_one_in: u64,
}

pub(super) struct Network {
    pub(super) random: Random,
    pub(super) delay: RefCell<Range<Duration>>,
    pub(super) capacity: Cell<usize>,
    pub(super) loss: Cell<Loss>,
    listeners: RefCell<BTreeMap<String, Rc<Listening>>>,
    /// Whose an address was last.
    owners: RefCell<BTreeMap<String, Rc<Node>>>,
    connections: RefCell<Vec<Weak<Connection>>>,
    blocked: RefCell<BTreeSet<(usize, usize)>>,
    /// A way was opened, or a node came up.
    pub(super) changed: Signal,
}

struct Listening {
    host: SimHost,
    backlog: RefCell<VecDeque<SimStream>>,
    changed: Signal,
}

impl Network {
    pub(super) fn new(random: Random) -> Self {
        Self {
            random,
            delay: RefCell::new(Duration::from_micros(30)..Duration::from_millis(1)),
            capacity: Cell::new(CAPACITY),
            loss: Cell::default(),
            listeners: RefCell::default(),
            owners: RefCell::default(),
            connections: RefCell::default(),
            blocked: RefCell::default(),
            changed: Signal::new(),
        }
    }

    pub(super) fn next_delay(&self) -> Duration {
        self.random.between(&self.delay.borrow())
    }

    pub(super) fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked.borrow().contains(&(from, to))
    }

    pub(super) fn block(&self, from: usize, to: usize) {
        if from != to {
            self.blocked.borrow_mut().insert((from, to));
        }
    }

    pub(super) fn heal(&self, a: usize, b: usize) {
        self.blocked.borrow_mut().retain(|way| *way != (a, b) && *way != (b, a));
        for connection in self.between(a, b) {
            connection.resume();
        }
        self.changed.notify();
    }

    /// The connections that live.
    fn all(&self) -> Vec<Rc<Connection>> {
        let mut all = self.connections.borrow_mut();
        all.retain(|c| c.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).collect()
    }

    fn between(&self, a: usize, b: usize) -> Vec<Rc<Connection>> {
        let mut all = self.all();
        all.retain(|c| {
            let [from, to] = [0, 1].map(|side: usize| c.sides[side].host.node().id);
            (from, to) == (a, b) || (from, to) == (b, a)
        });
        all
    }

    /// Breaks all connections between two nodes; each side learns of it at its own time.
    pub(super) fn cut(&self, a: usize, b: usize) {
        self.between(a, b).iter().for_each(|c| self.sever(c, true));
    }

    /// All connections between two nodes fall silent, for ever.
    pub(super) fn stall(&self, a: usize, b: usize) {
        self.between(a, b).iter().for_each(|c| self.sever(c, false));
    }

    fn sever(&self, connection: &Rc<Connection>, tell: bool) {
        if connection.severed.replace(true) || !tell {
            return;
        }
        for side in [0, 1] {
            let connection = connection.clone();
            let world = connection.sides[side].host.world().clone();
            let told = move |_: Fate| connection.sides[side].break_off();
            world.act_after(self.next_delay() * 4, WORLD, Box::new(told));
        }
    }

    /// Now and then loses a connection that has just sent something.
    pub(super) fn lose(&self, connection: &Rc<Connection>) {
        let Loss { reset_one_in, stall_one_in } = self.loss.get();
        if self.random.one_in(reset_one_in) {
            self.sever(connection, true);
        } else if self.random.one_in(stall_one_in) {
            self.sever(connection, false);
        }
    }

    /// A life ended: its listeners are gone; its peers are told, unless nobody is left to do so.
    pub(super) fn node_died(&self, tag: u32, silent: bool) {
        let mut gone = Vec::new();
        self.listeners.borrow_mut().retain(|_, l| {
            let keep = l.host.tag() != tag;
            if !keep {
                gone.push(l.clone());
            }
            keep
        });
        drop(gone);
        for connection in self.all() {
            for side in [0, 1] {
                if connection.sides[side].host.tag() == tag && !silent {
                    let item = if self.random.one_in(2) { Item::Reset } else { Item::End };
                    connection.push(1 - side, item);
                }
            }
        }
    }

    pub(super) fn clear(&self) {
        let listeners = std::mem::take(&mut *self.listeners.borrow_mut());
        drop(listeners);
        let owners = std::mem::take(&mut *self.owners.borrow_mut());
        drop(owners);
    }
}

pub(super) fn listen(host: &SimHost, address: &Address) -> io::Result<SimListener> {
    let network = &host.world().network;
    let address = address.to_string();
    let mut listeners = network.listeners.borrow_mut();
    if listeners.contains_key(&address) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let listening = Rc::new(Listening {
        host: host.clone(),
        backlog: RefCell::default(),
        changed: Signal::new(),
    });
    if !host.is_dead() {
        listeners.insert(address.clone(), listening.clone());
        network.owners.borrow_mut().insert(address.clone(), host.node().clone());
    }
    Ok(SimListener { address, listening })
}

pub(super) async fn connect(host: SimHost, address: String) -> io::Result<SimStream> {
    let world: Rc<World> = host.world().clone();
    let network = &world.network;
    loop {
        host.pause(network.next_delay() * 2).await;
        let owner = network.owners.borrow().get(&address).cloned();
        let (here, there) = (host.node().id, owner.as_ref().map_or(host.node().id, |n| n.id));
        let silent = owner.is_some_and(|n| !n.up.get())
            || network.is_blocked(here, there)
            || network.is_blocked(there, here);
        if silent {
            network.changed.wait().await;
            continue;
        }
        let listening = network.listeners.borrow().get(&address).cloned();
        let Some(listening) = listening else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let connection = Connection::new(host, listening.host.clone());
        network.connections.borrow_mut().push(Rc::downgrade(&connection));
        listening.backlog.borrow_mut().push_back(connection.stream(1));
        listening.changed.notify();
        return Ok(connection.stream(0));
    }
}

/// Where streams arrive. Dropping it ends the listening; streams that nobody took are closed.
pub struct SimListener {
    address: String,
    listening: Rc<Listening>,
}

impl std::fmt::Debug for SimListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimListener({})", self.address)
    }
}

impl SimListener {
    /// The next stream.
    pub async fn accept(&self) -> SimStream {
        loop {
            let next = self.listening.backlog.borrow_mut().pop_front();
            match next {
                Some(stream) => return stream,
                None => self.listening.changed.wait().await,
            }
        }
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let host = &self.listening.host;
        if !host.is_dead() {
            let removed = host.world().network.listeners.borrow_mut().remove(&self.address);
            drop(removed);
        }
    }
}
