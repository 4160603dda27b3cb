//! Requests under way and the backend that carries them: a ring, or epoll with threads.
//!
//! ```text
//!   submit(fd, op) ──► flights[token] ──► Backend: Ring | Threads
//!        │                  ▲                 │
//!      Wait (future)        └──── turn() ◄────┘ answers, once per sleep of the shard
//! ```
//!
//! A request begins at the call. Its future only waits; dropping it leaves the request to itself.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use slab::Slab;

use super::op::{Fd, Flight, Next, Op, Rest, State};
use super::pool::Pool;
use super::remote::Remote;
use super::ring::Ring;
use super::threads::Threads;
use super::{Io, IoChoice};
use crate::units::usize_of;

/// How many results a turn hands out without a wait, before other tasks must have had theirs.
const BUDGET: u32 = 64;

/// How long the end of a shard waits for requests that the kernel still holds.
const DRAIN: Duration = Duration::from_secs(5);

enum Backend {
    Ring(Ring),
    Threads(Threads),
}

/// The requests of one shard.
pub(crate) struct Reactor {
    flights: RefCell<Slab<Flight>>,
    backend: RefCell<Backend>,
    kind: Io,
    pub(crate) pool: Pool,
    pub(crate) remote: Arc<Remote>,
    /// Upper half of the next token: tells a flight from its slot's earlier ones.
    sequence: Cell<u64>,
    answers: RefCell<Vec<(u64, io::Result<usize>)>>,
    disk_flights: Cell<usize>,
    inline: Cell<bool>,
    budget: Cell<u32>,
    closing: Cell<bool>,
}

impl Reactor {
    /// For the calling thread.
    pub(crate) fn new(choice: IoChoice, remote: Arc<Remote>) -> io::Result<Self> {
        let (backend, kind, threads) = match choice {
            IoChoice::Threads => (None, Io::Threads { why: "asked for".into() }, 8),
            IoChoice::Ring => (Some(Ring::new()?), Io::Ring, 4),
            IoChoice::Probe => match Ring::new() {
                Ok(ring) => (Some(ring), Io::Ring, 4),
                Err(e) => (None, Io::Threads { why: format!("no io_uring: {e}") }, 8),
            },
        };
        let backend = match backend {
            Some(ring) => Backend::Ring(ring),
            None => Backend::Threads(Threads::new(&remote)?),
        };
        Ok(Self {
            flights: RefCell::default(),
            backend: RefCell::new(backend),
            kind,
            pool: Pool::new(threads),
            remote,
            sequence: Cell::new(0),
            answers: RefCell::default(),
            disk_flights: Cell::new(0),
            inline: Cell::new(false),
            budget: Cell::new(BUDGET),
            closing: Cell::new(false),
        })
    }

    /// What carries the requests.
    pub(crate) fn io(&self) -> &Io {
        &self.kind
    }

    /// Begins `op`, of which `done` bytes are done already. The future gives the operation back
    /// with all it owns, and how many bytes were done.
    pub(crate) fn submit(self: &Rc<Self>, fd: &Rc<Fd>, op: Op, done: usize) -> Wait {
        if op.is_disk() {
            self.disk_flights.set(self.disk_flights.get() + 1);
        }
        let mut flights = self.flights.borrow_mut();
        let entry = flights.vacant_entry();
        let key = entry.key();
        self.sequence.set((self.sequence.get() + 1) & 0x7fff_ffff);
        let token = self.sequence.get() << 32 | crate::units::u64_of(key);
        let flight = entry.insert(Flight::new(fd.clone(), op, done, token));
        let ended = self.start(flight);
        if let Some(result) = ended {
            flight.state = State::Done(result);
            self.landed(&flight.op);
        }
        Wait { reactor: self.clone(), key }
    }

    /// Begins a flight, or goes on with it; its result if it has one at once.
    fn start(&self, flight: &mut Flight) -> Option<io::Result<usize>> {
        loop {
            let answer = match &mut *self.backend.borrow_mut() {
                Backend::Ring(ring) => {
                    ring.start(flight);
                    None
                }
                Backend::Threads(threads) => threads.start(flight),
            };
            match flight.advance(answer?) {
                Next::Again => {}
                Next::Done(result) => return Some(result),
            }
        }
    }

    /// Hands over what is queued and takes in what has ended. May sleep until something
    /// has. Says how many answers came.
    pub(crate) fn turn(&self, rest: Rest) -> io::Result<usize> {
        self.budget.set(BUDGET);
        self.inline.set(false);
        let mut answers = self.answers.take();
        let turned = match &mut *self.backend.borrow_mut() {
            Backend::Ring(ring) => ring.turn(rest, &self.remote, &mut answers),
            Backend::Threads(threads) => threads.turn(
                rest,
                &self.remote,
                &self.pool,
                &mut self.flights.borrow_mut(),
                &mut answers,
            ),
        };
        let count = answers.len();
        for (token, answer) in answers.drain(..) {
            self.answered(token, answer);
        }
        self.answers.replace(answers);
        turned.map(|()| count)
    }

    fn answered(&self, token: u64, answer: io::Result<usize>) {
        let mut flights = self.flights.borrow_mut();
        let key = usize_of(token & 0xffff_ffff);
        let Some(flight) = flights.get_mut(key).filter(|f| f.token == token) else { return };
        let abandoned = matches!(flight.state, State::Detached) && flight.op.is_endless()
            || self.closing.get() && !flight.op.is_disk();
        let ended = match flight.advance(answer) {
            Next::Done(result) => Some(result),
            Next::Again if abandoned => Some(Err(io::ErrorKind::Interrupted.into())),
            Next::Again => self.start(flight),
        };
        let Some(result) = ended else { return };
        self.landed(&flight.op);
        match std::mem::replace(&mut flight.state, State::Done(result)) {
            State::Waiting(waker) => {
                drop(flights);
                if let Some(w) = waker {
                    w.wake();
                }
            }
            State::Detached => {
                let flight = flights.try_remove(key);
                drop(flights);
                drop(flight);
            }
            State::Done(_) => {}
        }
    }

    fn landed(&self, op: &Op) {
        if op.is_disk() {
            self.disk_flights.set(self.disk_flights.get() - 1);
        }
    }

    /// A disk request was done at the call, without the backend: what the spin looks at.
    pub(crate) fn note_inline(&self) {
        self.inline.set(true);
    }

    /// Whether disk requests since the last turn were all done at the call.
    pub(crate) fn was_inline(&self) -> bool {
        self.inline.get() && self.disk_flights.get() == 0
    }

    /// Whether a turn would find answers, without a system call; `false` where that is unknown.
    pub(crate) fn has_news(&self) -> bool {
        match &mut *self.backend.borrow_mut() {
            Backend::Ring(ring) => ring.has_news(),
            Backend::Threads(_) => false,
        }
    }

    /// A future that has its result already, and yet lets others have their turn now and then.
    pub(crate) fn ready<T: 'static>(self: &Rc<Self>, value: T) -> Ready<T> {
        Ready { reactor: self.clone(), value: Some(value) }
    }

    /// Whether a task may go on at once with a result that it did not wait for.
    fn may_go_on(&self, cx: &Context<'_>) -> bool {
        let budget = self.budget.get();
        if budget == 0 {
            cx.waker().wake_by_ref();
            return false;
        }
        self.budget.set(budget - 1);
        true
    }

    fn cancel(&self, token: u64) {
        match &mut *self.backend.borrow_mut() {
            Backend::Ring(ring) => ring.cancel(token),
            Backend::Threads(threads) => threads.cancel(token),
        }
    }

    /// Ends what could wait for ever and waits for the rest: the kernel may still use its memory.
    fn drain(&self) {
        self.closing.set(true);
        let endless: Vec<u64> = {
            let flights = self.flights.borrow();
            let open = flights
                .iter()
                .filter(|(_, f)| !matches!(f.state, State::Done(_)) && !f.op.is_disk());
            open.map(|(_, f)| f.token).collect()
        };
        for token in endless {
            self.cancel(token);
        }
        let end = Instant::now() + DRAIN;
        let under_way =
            || self.flights.borrow().iter().any(|(_, f)| !matches!(f.state, State::Done(_)));
        while under_way() && Instant::now() < end {
            if self.turn(Rest::For(Duration::from_millis(20))).is_err() {
                break;
            }
        }
        if under_way() {
            tracing::error!(
                "requests are still under way at the end of a shard: their memory is left to them"
            );
            std::mem::forget(self.flights.take());
        }
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.drain();
        self.pool.close();
    }
}

/// The future of a request.
pub(crate) struct Wait {
    reactor: Rc<Reactor>,
    key: usize,
}

/// Its slot is empty: it has ended.
const ENDED: usize = usize::MAX;

impl Future for Wait {
    type Output = (Op, io::Result<usize>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut flights = self.reactor.flights.borrow_mut();
        let Some(flight) = flights.get_mut(self.key) else { return Poll::Pending };
        if let State::Waiting(waker) = &mut flight.state {
            if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        if !self.reactor.may_go_on(cx) {
            return Poll::Pending;
        }
        let flight = flights.remove(self.key);
        drop(flights);
        self.key = ENDED;
        match flight.state {
            State::Done(result) => Poll::Ready((flight.op, result)),
            State::Waiting(_) | State::Detached => Poll::Pending,
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut flights = self.reactor.flights.borrow_mut();
        let Some(flight) = flights.get_mut(self.key) else { return };
        if matches!(flight.state, State::Done(_)) {
            let flight = flights.remove(self.key);
            drop(flights);
            drop(flight);
            return;
        }
        flight.state = State::Detached;
        let endless = flight.op.is_endless().then_some(flight.token);
        drop(flights);
        if let Some(token) = endless {
            self.reactor.cancel(token);
        }
    }
}

/// The future of [`Reactor::ready`].
pub(crate) struct Ready<T> {
    reactor: Rc<Reactor>,
    value: Option<T>,
}

impl<T> Unpin for Ready<T> {}

impl<T> Future for Ready<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if !self.reactor.may_go_on(cx) {
            return Poll::Pending;
        }
        self.value.take().map_or(Poll::Pending, Poll::Ready)
    }
}
