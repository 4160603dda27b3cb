//! One thread's tasks, a clock that jumps, and a stream whose far end is a script.
//!
//! ```text
//!   code under test ── recv ◄── Far::next: bytes | wait (for what we send) | end
//!                   ── send ──► Far::sent
//! ```
//!
//! Nothing here waits in real time: when no task can go on, the clock jumps to the next sleeper, so
//! every timeout of the code under test comes to pass.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use understudy_core::runtime::{Address, Buf, Data, Env, Mono, Signal, Stream, Task, Tasks, Wall};

/// Most steps of one input: far beyond what any of them needs.
const STEPS_MAX: usize = 100_000;

/// What comes next from the far end.
pub(super) enum Next {
    Bytes(Vec<u8>),
    /// Nothing, before something was sent to it.
    Wait,
    End,
}

/// The far end of a stream.
pub(super) trait Far: 'static {
    fn next(&mut self) -> Next;
    fn sent(&mut self, bytes: &[u8]);
}

/// Our end of the stream. Clones are the same one.
pub(super) struct Wire<F>(Rc<End<F>>);

struct End<F> {
    far: RefCell<F>,
    /// What has come and was not asked for.
    left: RefCell<Vec<u8>>,
    closed: Cell<bool>,
    changed: Signal,
}

impl<F> Clone for Wire<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F: Far> Wire<F> {
    pub(super) fn new(far: F) -> Self {
        Self(Rc::new(End {
            far: RefCell::new(far),
            left: RefCell::default(),
            closed: Cell::new(false),
            changed: Signal::new(),
        }))
    }

    /// Looks at the far end.
    pub(super) fn far<T>(&self, look: impl FnOnce(&mut F) -> T) -> T {
        look(&mut self.0.far.borrow_mut())
    }
}

impl<F: Far> Stream for Wire<F> {
    fn recv(
        &self,
        mut buf: Buf,
        at: usize,
    ) -> impl Future<Output = (Buf, io::Result<usize>)> + 'static {
        let end = self.0.clone();
        async move {
            loop {
                if end.closed.get() {
                    return (buf, Ok(0));
                }
                if end.left.borrow().is_empty() {
                    let next = end.far.borrow_mut().next();
                    match next {
                        Next::Bytes(bytes) => *end.left.borrow_mut() = bytes,
                        Next::End => return (buf, Ok(0)),
                        Next::Wait => end.changed.wait().await,
                    }
                    continue;
                }
                let mut left = end.left.borrow_mut();
                let n = left.len().min(buf.len() - at);
                for (to, from) in buf[at..].iter_mut().zip(left.drain(..n)) {
                    *to = from;
                }
                drop(left);
                return (buf, Ok(n));
            }
        }
    }

    fn send(&self, data: Vec<Data>) -> impl Future<Output = io::Result<()>> + 'static {
        let closed = self.0.closed.get();
        if !closed {
            for part in &data {
                self.0.far.borrow_mut().sent(part);
            }
            self.0.changed.notify();
        }
        std::future::ready(if closed { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) })
    }

    fn shutdown(&self) {
        self.0.closed.set(true);
        self.0.changed.notify();
    }
}

/// The environment. Clones are the same one.
pub(super) struct World<F>(Rc<Inner>, std::marker::PhantomData<F>);

#[derive(Default)]
struct Inner {
    tasks: Tasks,
    now: Cell<Duration>,
    sleepers: RefCell<Vec<(Mono, Waker)>>,
    random: Cell<u64>,
}

impl<F> Clone for World<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), std::marker::PhantomData)
    }
}

impl<F: Far> World<F> {
    pub(super) fn new() -> Self {
        Self(Rc::default(), std::marker::PhantomData)
    }

    /// Runs `future` to its end, then whatever it left running.
    pub(super) fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        let out = Rc::new(RefCell::new(None));
        let to = out.clone();
        self.spawn("main", async move {
            let value = future.await;
            *to.borrow_mut() = Some(value);
        });
        let steps = (0..STEPS_MAX).take_while(|_| self.step()).count();
        assert!(steps < STEPS_MAX, "it goes on for ever: {:?}", self.0.tasks);
        assert_eq!(self.0.tasks.len(), 0, "these wait for ever: {:?}", self.0.tasks);
        out.take().expect("the main task has ended")
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

impl<F: Far> Env for World<F> {
    type Stream = Wire<F>;

    fn now(&self) -> Mono {
        Mono(self.0.now.get())
    }

    fn wall(&self) -> Wall {
        Wall(self.0.now.get())
    }

    fn sleep_until(&self, at: Mono) -> impl Future<Output = ()> + 'static {
        let world = self.clone();
        std::future::poll_fn(move |context| {
            if world.now() >= at {
                return Poll::Ready(());
            }
            world.0.sleepers.borrow_mut().push((at, context.waker().clone()));
            Poll::Pending
        })
    }

    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static) -> Task {
        self.0.tasks.spawn(0, name, future)
    }

    fn random(&self) -> u64 {
        self.0.random.set(self.0.random.get() + 1);
        self.0.random.get()
    }

    fn connect(&self, to: &Address) -> impl Future<Output = io::Result<Wire<F>>> + 'static {
        std::future::ready(Err(io::Error::other(format!("{to}: there is no network here"))))
    }
}
