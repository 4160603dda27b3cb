//! The backend without io_uring: epoll for sockets, a few threads for disks.
//!
//! ```text
//!   socket: try at the call ── would block ──► epoll, edge-triggered, registered once
//!   disk:   pending ── at the shard's sleep ──► alone and small: here and now
//!                                           └─► else: a pool thread each
//! ```
//!
//! Containers often may not use io_uring (the default seccomp profiles deny it); everything
//! above sees no difference. Costs about three times the CPU.
#![allow(unsafe_code, reason = "pool threads use the memory of flights; see each SAFETY line")]

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use slab::Slab;

use super::op::{Fd, Flight, Op, Rest, State};
use super::pool::Pool;
use super::remote::Remote;
use crate::units::{ByteRange, u64_of, usize_of};

/// The registration of the eventfd.
const WOKEN: u64 = u64::MAX;

/// Up to this size a lone request is done on the shard's own thread, in bytes.
const INLINE: usize = 64 << 10;

/// Readiness taken in at once.
const EVENTS: usize = 256;

pub(crate) struct Threads {
    epoll: OwnedFd,
    /// By registration: which flights wait to read and to write.
    waiting: BTreeMap<u64, [Option<u64>; 2]>,
    registrations: u64,
    /// Disk requests of this turn.
    pending: Vec<u64>,
    cancelled: Vec<u64>,
    in_pool: usize,
    events: Vec<epoll::Event>,
}

impl Threads {
    pub(crate) fn new(remote: &Remote) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &remote.eventfd, EventData::new_u64(WOKEN), EventFlags::IN)?;
        Ok(Self {
            epoll,
            waiting: BTreeMap::new(),
            registrations: 0,
            pending: Vec::new(),
            cancelled: Vec::new(),
            in_pool: 0,
            events: Vec::with_capacity(EVENTS),
        })
    }

    /// Begins `flight`; its answer if it has one at once.
    pub(crate) fn start(&mut self, flight: &mut Flight) -> Option<io::Result<usize>> {
        let tried = match &mut flight.op {
            Op::Recv { buf, at } => {
                let part = buf.get_mut(*at..).unwrap_or_default();
                rustix::net::recv(&*flight.fd, part, RecvFlags::DONTWAIT).map(|(n, _)| n)
            }
            Op::Send { data } => send(&flight.fd, data, flight.done),
            Op::Poll { write } => poll(&flight.fd, *write),
            Op::Read { .. } | Op::Write { .. } | Op::Sync { .. } | Op::Allocate { .. } => {
                self.pending.push(flight.token);
                return None;
            }
        };
        let write = matches!(flight.op, Op::Send { .. } | Op::Poll { write: true });
        match tried {
            Err(Errno::AGAIN) => match self.wait_for(&flight.fd, write, flight.token) {
                Ok(()) => None,
                Err(e) => Some(Err(e.into())),
            },
            other => Some(other.map_err(io::Error::from)),
        }
    }

    fn wait_for(&mut self, fd: &Fd, write: bool, token: u64) -> Result<(), Errno> {
        let id = if let Some(id) = fd.registered.get() {
            id
        } else {
            self.registrations += 1;
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            // What is ready by now comes as a first event: no readiness is lost since the try.
            epoll::add(&self.epoll, fd, EventData::new_u64(self.registrations), flags)?;
            fd.registered.set(Some(self.registrations));
            self.registrations
        };
        let [reader, writer] = self.waiting.entry(id).or_default();
        *(if write { writer } else { reader }) = Some(token);
        Ok(())
    }

    /// Ends a flight that waits for a socket; the answer comes with the next turn.
    pub(crate) fn cancel(&mut self, token: u64) {
        for slots in self.waiting.values_mut() {
            for slot in slots {
                if *slot == Some(token) {
                    *slot = None;
                    self.cancelled.push(token);
                }
            }
        }
        self.waiting.retain(|_, slots| slots.iter().any(Option::is_some));
    }

    /// As the ring's turn.
    pub(crate) fn turn(
        &mut self,
        rest: Rest,
        remote: &Arc<Remote>,
        pool: &Pool,
        flights: &mut Slab<Flight>,
        out: &mut Vec<(u64, io::Result<usize>)>,
    ) -> io::Result<()> {
        // Before the sleep: what came before the poke was cleared has no other wake-up.
        self.take_completions(remote, out);
        let alone = self.pending.len() == 1 && self.in_pool == 0 && rest != Rest::No;
        for token in std::mem::take(&mut self.pending) {
            let flight = flights.get_mut(usize_of(token & 0xffff_ffff));
            let Some(flight) = flight.filter(|f| !matches!(f.state, State::Done(_))) else {
                continue;
            };
            let mut call = DiskCall::of(flight);
            if alone && call.is_small() {
                out.push((token, call.run()));
                continue;
            }
            self.in_pool += 1;
            let remote = remote.clone();
            pool.run(Box::new(move || {
                let result = call.run();
                remote.complete(token, result);
            }));
        }
        for token in self.cancelled.drain(..) {
            out.push((token, Err(Errno::CANCELED.into())));
        }
        let timeout = match rest {
            Rest::Forever if out.is_empty() => None,
            Rest::For(limit) if out.is_empty() => Some(limit),
            _ => Some(Duration::ZERO),
        };
        self.wait(timeout, remote, out)?;
        self.take_completions(remote, out);
        Ok(())
    }

    fn take_completions(&mut self, remote: &Remote, out: &mut Vec<(u64, io::Result<usize>)>) {
        let before = out.len();
        remote.completions(out);
        self.in_pool -= out.len() - before;
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        remote: &Remote,
        out: &mut Vec<(u64, io::Result<usize>)>,
    ) -> io::Result<()> {
        let timeout = timeout.map(|t| Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: t.subsec_nanos().into(),
        });
        self.events.clear();
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, spare, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        for event in &self.events {
            let (id, flags) = (event.data.u64(), event.flags);
            if id == WOKEN {
                remote.drain();
                continue;
            }
            let Some(slots) = self.waiting.get_mut(&id) else { continue };
            let ended = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            let ready = [
                ended || flags.intersects(EventFlags::IN | EventFlags::RDHUP),
                ended || flags.contains(EventFlags::OUT),
            ];
            for (slot, ready) in slots.iter_mut().zip(ready) {
                if let Some(token) = slot.take_if(|_| ready) {
                    // Not an answer: "try again".
                    out.push((token, Err(io::ErrorKind::WouldBlock.into())));
                }
            }
            if slots.iter().all(Option::is_none) {
                self.waiting.remove(&id);
            }
        }
        Ok(())
    }
}

fn send(fd: &Fd, data: &[super::Data], done: usize) -> Result<usize, Errno> {
    let mut skip = done;
    let mut pieces = Vec::with_capacity(data.len().min(1024));
    for d in data {
        let part = d.get(skip..).unwrap_or_default();
        skip = skip.saturating_sub(d.len());
        if !part.is_empty() && pieces.len() < 1024 {
            pieces.push(IoSlice::new(part));
        }
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::sendmsg(fd, &pieces, &mut SendAncillaryBuffer::default(), flags)
}

fn poll(fd: &Fd, write: bool) -> Result<usize, Errno> {
    let events = if write { PollFlags::OUT } else { PollFlags::IN };
    let ready = rustix::event::poll(&mut [PollFd::new(fd, events)], Some(&Timespec::default()))?;
    if ready == 0 { Err(Errno::AGAIN) } else { Ok(0) }
}

/// A disk request as a plain system call, for any thread.
struct DiskCall {
    fd: Arc<OwnedFd>,
    what: What,
    pieces: Vec<libc::iovec>,
}

enum What {
    Read(u64),
    Write(u64),
    Sync,
    Allocate(u32, ByteRange),
}

// SAFETY: the pointers lead into buffers of a flight. The reactor keeps it, and touches none of
// them, until the call's completion was taken in; when a shard ends it waits for its pool.
unsafe impl Send for DiskCall {}

impl DiskCall {
    fn of(flight: &mut Flight) -> Self {
        flight.list_pieces();
        let done = u64_of(flight.done);
        let what = match &flight.op {
            Op::Read { at, .. } => What::Read(at + done),
            Op::Write { at, .. } => What::Write(at + done),
            Op::Allocate { mode, range } => What::Allocate(mode.cast_unsigned(), *range),
            // Sockets never come here.
            Op::Sync { .. } | Op::Recv { .. } | Op::Send { .. } | Op::Poll { .. } => What::Sync,
        };
        Self { fd: flight.fd.shared(), what, pieces: std::mem::take(&mut flight.pieces) }
    }

    fn is_small(&self) -> bool {
        let len = self.pieces.iter().map(|p| p.iov_len).sum::<usize>();
        matches!(self.what, What::Read(_) | What::Write(_)) && len <= INLINE
    }

    fn run(&mut self) -> io::Result<usize> {
        let pieces = self.pieces.iter().map(|p| (p.iov_base.cast::<u8>(), p.iov_len));
        Ok(match self.what {
            What::Read(at) => {
                // SAFETY: each piece is that much memory of a buffer that nobody else uses now.
                let slices = pieces.map(|(p, n)| unsafe { std::slice::from_raw_parts_mut(p, n) });
                let mut slices: Vec<_> = slices.map(IoSliceMut::new).collect();
                rustix::io::preadv(&self.fd, &mut slices, at)?
            }
            What::Write(at) => {
                // SAFETY: each piece is that much memory of a buffer that nobody changes now.
                let slices =
                    pieces.map(|(p, n)| unsafe { std::slice::from_raw_parts(p.cast_const(), n) });
                let slices: Vec<_> = slices.map(IoSlice::new).collect();
                rustix::io::pwritev(&self.fd, &slices, at)?
            }
            What::Sync => {
                rustix::fs::fdatasync(&self.fd)?;
                0
            }
            What::Allocate(mode, r) => {
                rustix::fs::fallocate(
                    &self.fd,
                    FallocateFlags::from_bits_retain(mode),
                    r.start,
                    r.len(),
                )?;
                0
            }
        })
    }
}
