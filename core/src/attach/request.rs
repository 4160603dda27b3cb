//! What a block device asks of its volume, on its way from the device's threads to the shard.
//!
//! ```text
//!   back end's thread ── Requests::begin(Request { what, done }) ──► shard ── line ──► engine
//!          ▲                                                                            │
//!          └────────────────────── done(answer), on the shard's thread ◄────────────────┘
//! ```

use std::sync::Arc;

use super::counters::{Counters, Kind};
use super::line;
use crate::runtime::ShardHandle;
use crate::units::{ByteRange, u64_of};

/// Takes the answer; runs on the shard's thread, so it must not block for long.
type Done<T> = Box<dyn FnOnce(Result<T, Failure>) + Send>;

/// Takes what was read.
type DoneReading = Box<dyn FnOnce(Result<&[u8], Failure>) + Send>;

/// How a request failed, as far as a block device can tell its user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// `EIO`.
    Io,
    /// `ENOSPC`.
    NoSpace,
    /// `EINVAL`.
    Invalid,
}

/// One request of a device's user.
pub(super) enum Request {
    /// Bytes of the volume, at most [`crate::runtime::BUF_MAX`].
    Read(ByteRange, DoneReading),
    /// Bytes for the volume, at most [`crate::runtime::BUF_MAX`], and where.
    Write(u64, Vec<u8>, Done<()>),
    /// Zeroes; with `true` the space may be given back.
    Zero(ByteRange, bool, Done<()>),
    /// What was completed before is durable afterwards.
    Flush(Done<()>),
}

impl Request {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Read(range, _) => Kind::Read(range.len()),
            Self::Write(_, data, _) => Kind::Write(u64_of(data.len())),
            Self::Zero(..) => Kind::Zero,
            Self::Flush(_) => Kind::Flush,
        }
    }
}

/// Where a back end sends what its device is asked. Clones are the same place.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    shard: ShardHandle,
    counters: Arc<Counters>,
}

impl Requests {
    /// To the line of this shard.
    pub(super) fn new(shard: ShardHandle, counters: Arc<Counters>) -> Self {
        Self { shard, counters }
    }

    /// Begins a request: any number may be under way, and they end in any order.
    pub(super) fn begin(&self, request: Request) {
        self.counters.begun();
        // The future only tells when it is done; dropping it lets the request run on.
        drop(self.shard.run(move |_| async move { line::serve(request).await }));
    }
}
