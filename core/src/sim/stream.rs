//! Streams: ordered bytes that travel, in pieces, with delays, or not at all.
//!
//! ```text
//!   side 0 ── send ─► [flying: piece piece FIN] ── deliver ─► [arrived] ── recv ─► side 1
//!          ◄────────────────── and the same the other way ──────────────────
//! ```
//!
//! Flying and arrived together are bounded: a sender waits for its reader.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::rc::Rc;

use super::events::{Event, Fate, WORLD};
use super::host::SimHost;
use super::side::{Item, Side};
use crate::runtime::{Buf, Data, Stream};

/// Two sides and what is under way to each.
pub(super) struct Connection {
    pub(super) sides: [Side; 2],
    /// Nothing arrives any more, for ever: it was cut, or stalls.
    pub(super) severed: Cell<bool>,
}

impl Connection {
    pub(super) fn new(from: SimHost, to: SimHost) -> Rc<Self> {
        Rc::new(Self { sides: [Side::new(from), Side::new(to)], severed: Cell::new(false) })
    }

    /// The stream as side `side` holds it. To be made once for each.
    pub(super) fn stream(self: &Rc<Self>, side: usize) -> SimStream {
        SimStream(Rc::new(End { connection: self.clone(), side }))
    }

    pub(super) fn push(self: &Rc<Self>, to: usize, item: Item) {
        self.sides[to].flying.borrow_mut().push_back(item);
        self.schedule(to);
    }

    fn schedule(self: &Rc<Self>, to: usize) {
        let side = &self.sides[to];
        let world = side.host.world();
        let at = (world.now.get() + world.network.next_delay()).max(side.due.get());
        side.due.set(at);
        let this = self.clone();
        let deliver = move |_: Fate| this.deliver(to);
        world.events.add(at, WORLD, Event::Act(Box::new(deliver)));
    }

    /// Whether what `from` sends stays on the way.
    fn is_blocked(&self, from: usize) -> bool {
        let (from, to) = (&self.sides[from].host, &self.sides[1 - from].host);
        from.world().network.is_blocked(from.node().id, to.node().id)
    }

    fn deliver(self: &Rc<Self>, to: usize) {
        if self.severed.get() {
            return;
        }
        let side = &self.sides[to];
        if self.is_blocked(1 - to) {
            side.held.set(side.held.get() + 1);
            return;
        }
        let Some(item) = side.flying.borrow_mut().pop_front() else { return };
        side.host.note(
            "deliver",
            "",
            crate::units::u64_of(match &item {
                Item::Bytes(data) => data.len(),
                Item::End | Item::Reset => 0,
            }),
        );
        if side.host.is_dead() {
            // A machine that was started again knows nothing of the stream and says so.
            if side.host.node().up.get() && matches!(item, Item::Bytes(_)) {
                self.push(1 - to, Item::Reset);
            }
            return;
        }
        match item {
            Item::Bytes(_) if side.closed.get() || side.reset.get() => {}
            Item::Bytes(data) => side.arrived.borrow_mut().push_back(data),
            Item::End => side.ended.set(true),
            Item::Reset => side.break_off(),
        }
        side.changed.notify();
    }

    /// The ways were opened: sends what was held, and confirms what could not be.
    pub(super) fn resume(self: &Rc<Self>) {
        for to in [0, 1] {
            let side = &self.sides[to];
            if !self.is_blocked(1 - to) {
                for _ in 0..side.held.take() {
                    self.schedule(to);
                }
            }
            if !self.is_blocked(to) {
                side.bytes.set(side.bytes.get() - side.unconfirmed.take());
                self.sides[1 - to].changed.notify();
            }
        }
    }

    async fn receive(
        self: Rc<Self>,
        mine: usize,
        mut buf: Buf,
        at: usize,
    ) -> (Buf, io::Result<usize>) {
        let side = &self.sides[mine];
        loop {
            if side.host.is_dead() {
                std::future::pending::<()>().await;
            }
            if side.closed.get() {
                return (buf, Ok(0));
            }
            let n = side.take(buf.get_mut(at..).unwrap_or_default());
            if n > 0 {
                if self.is_blocked(mine) {
                    side.unconfirmed.set(side.unconfirmed.get() + n);
                } else {
                    side.bytes.set(side.bytes.get() - n);
                    self.sides[1 - mine].changed.notify();
                }
                return (buf, Ok(n));
            }
            if side.reset.get() {
                return (buf, Err(io::ErrorKind::ConnectionReset.into()));
            }
            if side.ended.get() {
                return (buf, Ok(0));
            }
            side.changed.wait().await;
        }
    }

    async fn transmit(self: Rc<Self>, mine: usize, data: Vec<Data>) -> io::Result<()> {
        let (side, far) = (&self.sides[mine], &self.sides[1 - mine]);
        let network = &side.host.world().network;
        for mut rest in data {
            while !rest.is_empty() {
                if side.host.is_dead() {
                    std::future::pending::<()>().await;
                }
                if side.reset.get() {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                if side.closed.get() || side.ended.get() {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                let room = network.capacity.get().saturating_sub(far.bytes.get()).min(rest.len());
                if room == 0 {
                    side.changed.wait().await;
                    continue;
                }
                let some = network.random.one_in(4);
                let n = if some { (1 + network.random.index(room)).min(room) } else { room };
                far.bytes.set(far.bytes.get() + n);
                self.push(1 - mine, Item::Bytes(rest.slice(0..n)));
                network.lose(&self);
                rest = rest.slice(n..rest.len());
            }
        }
        Ok(())
    }

    /// `dropped`: nobody will ever read here again; after a mere shutdown somebody might have.
    fn close(self: &Rc<Self>, mine: usize, dropped: bool) {
        let side = &self.sides[mine];
        if side.host.is_dead() || side.closed.replace(true) {
            return;
        }
        // A kernel that closes a stream with something unread resets it.
        let unread = dropped && !side.arrived.borrow().is_empty();
        side.arrived.borrow_mut().clear();
        if !side.reset.get() {
            self.push(1 - mine, if unread { Item::Reset } else { Item::End });
        }
        side.changed.notify();
    }
}

/// A simulated stream. Clones are the same stream.
#[derive(Clone)]
pub struct SimStream(Rc<End>);

struct End {
    connection: Rc<Connection>,
    side: usize,
}

impl Drop for End {
    fn drop(&mut self) {
        self.connection.close(self.side, true);
    }
}

impl std::fmt::Debug for SimStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let End { connection, side } = &*self.0;
        write!(
            f,
            "SimStream({} to {})",
            connection.sides[*side].host.name(),
            connection.sides[1 - side].host.name()
        )
    }
}

impl Stream for SimStream {
    fn recv(
        &self,
        buf: Buf,
        at: usize,
    ) -> impl Future<Output = (Buf, io::Result<usize>)> + 'static {
        // Holds the connection and not this end: a dropped stream closes although a receive waits.
        self.0.connection.clone().receive(self.0.side, buf, at)
    }

    fn send(&self, data: Vec<Data>) -> impl Future<Output = io::Result<()>> + 'static {
        self.0.connection.clone().transmit(self.0.side, data)
    }

    fn shutdown(&self) {
        self.0.connection.close(self.0.side, false);
    }
}
