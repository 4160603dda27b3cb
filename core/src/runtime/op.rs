//! One request to the kernel, and what it owns until it has ended.
//!
//! ```text
//!   Flight: file descriptor + operation (its buffers) + bytes done so far
//!     start ──► kernel ──► result ──► advance: Again (a short count: the rest) | Done
//! ```
//!
//! Buffers belong to the flight and not to the future that waits for it: a dropped future
//! frees nothing that the kernel still reads or writes.
#![allow(unsafe_code, reason = "lists of raw memory for the kernel; see each SAFETY line")]

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::{Buf, Data};
use crate::units::ByteRange;

/// The most pieces the kernel takes at once (`UIO_MAXIOV`).
const PIECES_MAX: usize = 1024;

/// A file descriptor that flights keep open.
#[derive(Debug)]
pub(crate) struct Fd {
    fd: Arc<OwnedFd>,
    /// Where it is registered in epoll, if it is.
    pub(crate) registered: Cell<Option<u64>>,
}

impl Fd {
    pub(crate) fn new(fd: OwnedFd) -> Rc<Self> {
        Rc::new(Self { fd: Arc::new(fd), registered: Cell::new(None) })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// For a pool thread.
    pub(crate) fn shared(&self) -> Arc<OwnedFd> {
        self.fd.clone()
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Told how a sync ended.
pub(crate) type Ended = Rc<dyn Fn(&io::Result<usize>)>;

/// How long a turn may sleep for the first answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rest {
    /// Not at all.
    No,
    /// This long at most.
    For(Duration),
    /// Until there is one.
    Forever,
}

/// What is asked of the kernel.
pub(crate) enum Op {
    /// Fills the buffer behind what is done already, from `at` of the file.
    Read { at: u64, buf: Buf },
    /// Writes the pieces one behind the other at `at` of the file.
    Write { at: u64, data: Vec<Data> },
    /// fdatasync; says how it ended, even if nobody waits any more. Only wakes, never submits.
    Sync { ended: Ended },
    /// fallocate.
    Allocate { mode: i32, range: ByteRange },
    /// At least one byte from a socket into `buf[at..]`.
    Recv { buf: Buf, at: usize },
    /// All bytes to a socket.
    Send { data: Vec<Data> },
    /// Waits until it can be read (or written).
    Poll { write: bool },
}

impl Op {
    /// Whether it is a disk's: what the spin and the pool look at.
    pub(crate) fn is_disk(&self) -> bool {
        matches!(
            self,
            Self::Read { .. } | Self::Write { .. } | Self::Sync { .. } | Self::Allocate { .. }
        )
    }

    /// Whether it is cancelled when nobody waits for it any more: it could stay for ever. All
    /// others run to their end.
    pub(crate) fn is_endless(&self) -> bool {
        matches!(self, Self::Recv { .. } | Self::Poll { .. })
    }

    /// How many bytes are to be moved in all.
    fn total(&self) -> usize {
        match self {
            Self::Read { buf, .. } => buf.len(),
            Self::Write { data, .. } | Self::Send { data } => data.iter().map(|d| d.len()).sum(),
            _ => 0,
        }
    }
}

/// A request under way.
pub(crate) struct Flight {
    pub(crate) fd: Rc<Fd>,
    pub(crate) op: Op,
    /// Bytes done by earlier, short answers.
    pub(crate) done: usize,
    /// What the kernel may look at until the answer: never changed in between.
    pub(crate) pieces: Vec<libc::iovec>,
    pub(crate) message: Option<Box<libc::msghdr>>,
    pub(crate) token: u64,
    pub(crate) state: State,
    tries: u32,
}

/// Who waits for a flight.
pub(crate) enum State {
    /// Its future, once that was polled.
    Waiting(Option<Waker>),
    /// Its future was dropped.
    Detached,
    /// It has ended.
    Done(io::Result<usize>),
}

/// What to do after an answer of the kernel.
pub(crate) enum Next {
    /// Ask for the rest.
    Again,
    /// That was all.
    Done(io::Result<usize>),
}

impl Flight {
    pub(crate) fn new(fd: Rc<Fd>, op: Op, done: usize, token: u64) -> Self {
        let state = State::Waiting(None);
        Self { fd, op, done, pieces: Vec::new(), message: None, token, state, tries: 0 }
    }

    /// Lists the memory of what is not done yet in `pieces`.
    pub(crate) fn list_pieces(&mut self) {
        self.pieces.clear();
        match &mut self.op {
            Op::Read { buf, .. } => {
                let rest = buf.get_mut(self.done..).unwrap_or_default();
                self.pieces
                    .push(libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() });
            }
            Op::Recv { buf, at } => {
                let rest = buf.get_mut(*at..).unwrap_or_default();
                self.pieces
                    .push(libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() });
            }
            Op::Write { data, .. } | Op::Send { data } => {
                let mut skip = self.done;
                for d in data {
                    let part = d.get(skip..).unwrap_or_default();
                    skip = skip.saturating_sub(d.len());
                    if !part.is_empty() && self.pieces.len() < PIECES_MAX {
                        // The kernel only reads from it.
                        let base = part.as_ptr().cast_mut().cast();
                        self.pieces.push(libc::iovec { iov_base: base, iov_len: part.len() });
                    }
                }
            }
            Op::Sync { .. } | Op::Allocate { .. } | Op::Poll { .. } => {}
        }
    }

    /// Points `message` at the pieces.
    pub(crate) fn make_message(&mut self) -> *const libc::msghdr {
        // SAFETY: `msghdr` is plain numbers and pointers: all zero means "none" in each field.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.pieces.as_mut_ptr();
        message.msg_iovlen = count(self.pieces.len());
        &raw const **self.message.insert(Box::new(message))
    }

    /// Takes in an answer.
    pub(crate) fn advance(&mut self, result: io::Result<usize>) -> Next {
        let next = self.judge(result);
        if let (Op::Sync { ended }, Next::Done(result)) = (&self.op, &next) {
            ended(result);
        }
        next
    }

    fn judge(&mut self, result: io::Result<usize>) -> Next {
        let n = match result {
            Ok(n) => n,
            Err(e)
                if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) =>
            {
                self.tries += 1;
                // A file that answers EAGAIN for ever is broken; sockets wait in the backend.
                let give_up = self.op.is_disk() && self.tries > 1000;
                return if give_up { Next::Done(Err(e)) } else { Next::Again };
            }
            Err(e) => return Next::Done(Err(e)),
        };
        match &self.op {
            Op::Read { .. } | Op::Write { .. } | Op::Send { .. } => {
                self.done += n;
                let total = self.op.total();
                if self.done >= total {
                    Next::Done(Ok(self.done))
                } else if n > 0 {
                    Next::Again
                } else if matches!(self.op, Op::Read { .. }) {
                    Next::Done(Err(io::ErrorKind::UnexpectedEof.into()))
                } else {
                    Next::Done(Err(io::ErrorKind::WriteZero.into()))
                }
            }
            _ => Next::Done(Ok(n)),
        }
    }
}

/// The number of pieces, at most [`PIECES_MAX`], in the type that this C library gives the field.
fn count<T: TryFrom<usize> + Default>(pieces: usize) -> T {
    T::try_from(pieces).unwrap_or_default()
}
