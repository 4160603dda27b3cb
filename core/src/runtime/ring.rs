//! The io_uring backend: requests are queued at the call and handed over in batches.
//!
//! ```text
//!   start ──► submission queue (or backlog when full) ──┐ one io_uring_enter per sleep:
//!   reap  ◄── completion queue ◄────────────────────────┘ submit all, wait for one
//! ```
//!
//! The kernel keeps completions that do not fit (`NODROP`), and a kernel without that, or
//! without timeouts on the wait (`EXT_ARG`, 5.11), is served by [`super::threads`] instead.
#![allow(unsafe_code, reason = "the kernel is given pointers into flights; see each SAFETY line")]

use std::collections::VecDeque;
use std::io;

use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};

use super::op::{Flight, Op, Rest};
use super::remote::Remote;
use crate::units::{u32_of, u64_of};

/// Requests queued before they are handed over without waiting for the shard's sleep.
const ENTRIES: u32 = 256;

/// Completions before the kernel has to keep them elsewhere.
const COMPLETIONS: u32 = 4096;

/// The answer to a cancellation, which nobody waits for.
const IGNORED: u64 = u64::MAX;

/// The eventfd can be read: another thread ended our sleep.
const WOKEN: u64 = u64::MAX - 1;

pub(crate) struct Ring {
    uring: IoUring,
    backlog: VecDeque<squeue::Entry>,
    /// Whether the poll of the eventfd is under way.
    armed: bool,
}

impl Ring {
    /// A ring for the calling thread; an error where there can be none.
    pub(crate) fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(ENTRIES)
            .or_else(|_| IoUring::builder().setup_cqsize(COMPLETIONS).build(ENTRIES))?;
        let p = ring.params();
        if !(p.is_feature_nodrop() && p.is_feature_ext_arg() && p.is_feature_fast_poll()) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel's io_uring is older than 5.11",
            ));
        }
        Ok(Self { uring: ring, backlog: VecDeque::new(), armed: false })
    }

    /// Queues `flight`. Its memory must stay until its answer was reaped.
    pub(crate) fn start(&mut self, flight: &mut Flight) {
        flight.list_pieces();
        let fd = Fd(flight.fd.raw());
        let done = u64_of(flight.done);
        let first = flight.pieces.first().copied();
        let (base, len) = first.map_or((std::ptr::null_mut(), 0), |p| {
            (p.iov_base.cast::<u8>(), u32_of(u64_of(p.iov_len)))
        });
        let entry = match &flight.op {
            Op::Read { at, .. } => opcode::Read::new(fd, base, len).offset(at + done).build(),
            Op::Write { at, .. } if flight.pieces.len() <= 1 => {
                opcode::Write::new(fd, base, len).offset(at + done).build()
            }
            Op::Write { at, .. } => {
                let count = u32_of(u64_of(flight.pieces.len()));
                opcode::Writev::new(fd, flight.pieces.as_ptr(), count).offset(at + done).build()
            }
            Op::Sync { .. } => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
            Op::Allocate { mode, range } => {
                opcode::Fallocate::new(fd, range.len()).offset(range.start).mode(*mode).build()
            }
            Op::Recv { .. } => opcode::Recv::new(fd, base, len).build(),
            Op::Send { .. } if flight.pieces.len() <= 1 => {
                opcode::Send::new(fd, base, len).flags(libc::MSG_NOSIGNAL).build()
            }
            Op::Send { .. } => {
                let flags = libc::MSG_NOSIGNAL.unsigned_abs();
                opcode::SendMsg::new(fd, flight.make_message()).flags(flags).build()
            }
            Op::Poll { write } => {
                let events = if *write { libc::POLLOUT } else { libc::POLLIN };
                opcode::PollAdd::new(fd, u32::from(events.unsigned_abs())).build()
            }
        };
        self.push(entry.user_data(flight.token));
    }

    /// Asks for the end of a flight that could wait for ever. Its answer still comes.
    pub(crate) fn cancel(&mut self, token: u64) {
        self.push(opcode::AsyncCancel::new(token).build().user_data(IGNORED));
    }

    fn push(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() {
            if self.queue(&entry) {
                return;
            }
            // An error here comes back at the next turn; until then the entry waits.
            let _ = self.uring.submit();
            if self.queue(&entry) {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    fn queue(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: all pointers of an entry lead into its flight (or it has none), and the reactor
        // keeps a flight and its buffers in place until its completion was reaped.
        unsafe { self.uring.submission().push(entry) }.is_ok()
    }

    /// Whether completions can be had without waiting. No system call.
    pub(crate) fn has_news(&mut self) -> bool {
        !self.uring.completion().is_empty() || self.uring.submission().taskrun()
    }

    /// Hands over what is queued and reaps what has ended; may sleep for the first
    /// completion.
    pub(crate) fn turn(
        &mut self,
        rest: Rest,
        remote: &Remote,
        out: &mut Vec<(u64, io::Result<usize>)>,
    ) -> io::Result<()> {
        if !self.armed {
            self.armed = true;
            let fd = Fd(std::os::fd::AsRawFd::as_raw_fd(&remote.eventfd));
            let events = u32::from(libc::POLLIN.unsigned_abs());
            self.push(opcode::PollAdd::new(fd, events).build().user_data(WOKEN));
        }
        while let Some(entry) = self.backlog.pop_front() {
            if !self.queue(&entry) {
                self.backlog.push_front(entry);
                break;
            }
        }
        // With a backlog there is more to hand over: no sleep before that.
        let rest = if self.backlog.is_empty() { rest } else { Rest::No };
        let entered = match rest {
            Rest::For(limit) => {
                let t = Timespec::from(limit);
                self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&t))
            }
            Rest::Forever => self.uring.submit_and_wait(1),
            Rest::No if self.uring.submission().is_empty() && !self.has_news() => Ok(0),
            Rest::No => self.uring.submit(),
        };
        self.reap(remote, out);
        match entered {
            Ok(_) => Ok(()),
            // The timeout; a signal; no memory just now, or completions to be reaped first.
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY)
                ) =>
            {
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    fn reap(&mut self, remote: &Remote, out: &mut Vec<(u64, io::Result<usize>)>) {
        for c in self.uring.completion() {
            match c.user_data() {
                IGNORED => {}
                WOKEN => {
                    self.armed = false;
                    remote.drain();
                }
                token => {
                    let result = usize::try_from(c.result());
                    out.push((
                        token,
                        result.map_err(|_| io::Error::from_raw_os_error(-c.result())),
                    ));
                }
            }
        }
    }
}
