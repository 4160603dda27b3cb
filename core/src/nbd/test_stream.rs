//! A pair of streams in memory and an environment with virtual time, for the tests of this module.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::runtime::{Address, Buf, Data, Env, Mono, Signal, Stream, Task, Tasks, Wall};

/// One direction.
#[derive(Default)]
struct Pipe {
    bytes: RefCell<VecDeque<u8>>,
    closed: Cell<bool>,
    signal: Signal,
}

/// One end of a duplex stream.
#[derive(Clone)]
pub(super) struct Duplex {
    from: Rc<Pipe>,
    to: Rc<Pipe>,
    /// A sender waits while this many bytes were not received.
    room: usize,
}

/// Two connected ends; each direction holds `room` bytes.
pub(super) fn duplex(room: usize) -> (Duplex, Duplex) {
    let (a, b) = (Rc::<Pipe>::default(), Rc::<Pipe>::default());
    (Duplex { from: a.clone(), to: b.clone(), room }, Duplex { from: b, to: a, room })
}

impl Duplex {
    /// Closes the sending direction only.
    pub(super) fn close(&self) {
        self.to.closed.set(true);
        self.to.signal.notify();
    }
}

impl Stream for Duplex {
    fn recv(
        &self,
        mut buf: Buf,
        at: usize,
    ) -> impl Future<Output = (Buf, io::Result<usize>)> + 'static {
        let pipe = self.from.clone();
        async move {
            pipe.signal.wait_until(|| pipe.closed.get() || !pipe.bytes.borrow().is_empty()).await;
            let mut bytes = pipe.bytes.borrow_mut();
            let n = (buf.len() - at).min(bytes.len());
            for (to, from) in buf[at..at + n].iter_mut().zip(bytes.drain(..n)) {
                *to = from;
            }
            drop(bytes);
            pipe.signal.notify();
            (buf, Ok(n))
        }
    }

    fn send(&self, data: Vec<Data>) -> impl Future<Output = io::Result<()>> + 'static {
        let (pipe, room) = (self.to.clone(), self.room);
        async move {
            for part in data.iter().flat_map(|d| d.chunks(4096)) {
                pipe.signal
                    .wait_until(|| pipe.closed.get() || pipe.bytes.borrow().len() < room)
                    .await;
                if pipe.closed.get() {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                pipe.bytes.borrow_mut().extend(part);
                pipe.signal.notify();
            }
            Ok(())
        }
    }

    fn shutdown(&self) {
        for pipe in [&self.from, &self.to] {
            pipe.closed.set(true);
            pipe.signal.notify();
        }
    }
}

/// One thread's tasks and a clock that jumps to the next sleeper when nothing else can run.
#[derive(Clone, Default)]
pub(super) struct World(Rc<Inner>);

#[derive(Default)]
struct Inner {
    tasks: Tasks,
    now: Cell<Duration>,
    sleepers: RefCell<Vec<(Mono, Waker)>>,
    random: Cell<u64>,
}

impl World {
    /// Runs `future` to its end.
    pub(super) fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        let out = Rc::new(RefCell::new(None));
        let o = out.clone();
        self.spawn("main", async move {
            let value = future.await;
            *o.borrow_mut() = Some(value);
        });
        while out.borrow().is_none() {
            assert!(self.step(), "nothing can run any more: {:?}", self.0.tasks);
        }
        out.take().unwrap()
    }

    /// Runs until nothing can go on, time neither.
    pub(super) fn settle(&self) {
        while self.step() {}
    }

    /// How many tasks have not ended.
    pub(super) fn tasks(&self) -> usize {
        self.0.tasks.len()
    }

    fn step(&self) -> bool {
        if self.0.tasks.poll_ready() > 0 {
            return true;
        }
        let mut sleepers = self.0.sleepers.borrow_mut();
        let Some(next) = sleepers.iter().map(|(at, _)| *at).min() else { return false };
        self.0.now.set(self.0.now.get().max(next.0));
        let (due, rest): (Vec<_>, Vec<_>) = sleepers.drain(..).partition(|(at, _)| *at <= next);
        *sleepers = rest;
        drop(sleepers);
        for (_, waker) in due {
            waker.wake();
        }
        true
    }
}

impl Env for World {
    type Stream = Duplex;

    fn now(&self) -> Mono {
        Mono(self.0.now.get())
    }

    fn wall(&self) -> Wall {
        Wall(self.0.now.get())
    }

    fn sleep_until(&self, at: Mono) -> impl Future<Output = ()> + 'static {
        let world = self.clone();
        std::future::poll_fn(move |cx| {
            if world.now() >= at {
                return Poll::Ready(());
            }
            world.0.sleepers.borrow_mut().push((at, cx.waker().clone()));
            Poll::Pending
        })
    }

    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static) -> Task {
        self.0.tasks.spawn(0, name, future)
    }

    fn random(&self) -> u64 {
        // SplitMix64.
        let state = self.0.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.random.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn connect(&self, to: &Address) -> impl Future<Output = io::Result<Duplex>> + 'static {
        std::future::ready(Err(io::Error::other(format!("{to}: no network in this world"))))
    }
}
