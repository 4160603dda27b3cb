//! Writing a new file with zeroes while it is already in use.
//!
//! ```text
//!   0 ───────── next ──────────────────────────── end
//!     filled or │chunk│    [written]   [written]
//!     written     ▲ in flight   └──────────┴── ranges that somebody wrote: skipped
//! ```
//!
//! The fill never overwrites what somebody wrote: a write says at its call which range it takes.
//! What of it lies before `next` is not touched again, what lies behind is skipped, and only a write
//! that meets the chunk in flight (1 MiB) waits for that to end.

use std::cell::RefCell;
use std::future::Future;
use std::rc::{Rc, Weak};

use super::file::Inner;
use super::{Disk, File};
use crate::runtime::{Data, Env, Signal};
use crate::units::{ByteRange, usize_of};

/// Written at once, in bytes.
const CHUNK: u64 = 1 << 20;

/// Filled before a new file is handed out, in bytes: the first appends of a log.
pub(super) const FIRST: u64 = 4 << 20;

/// How far a file is filled.
#[derive(Debug)]
pub(super) struct Fill {
    state: RefCell<State>,
    changed: Signal,
}

#[derive(Debug)]
struct State {
    /// Nothing before it will be written by the fill, save the chunk in flight.
    next: u64,
    end: u64,
    chunk: ByteRange,
    /// What others wrote behind `next`: sorted, without overlaps.
    written: Vec<ByteRange>,
}

impl Fill {
    fn new(from: u64, end: u64) -> Self {
        let state = State { next: from, end, chunk: ByteRange::default(), written: Vec::new() };
        Self { state: RefCell::new(state), changed: Signal::new() }
    }

    /// Takes `range` for a writer. Whether it has to wait for the chunk in flight.
    fn claim(&self, range: ByteRange) -> bool {
        let state = &mut *self.state.borrow_mut();
        let mut ours = range.intersect(ByteRange::new(state.next, state.end));
        if !ours.is_empty() {
            // Those that touch it become part of it.
            let from = state.written.partition_point(|w| w.end < ours.start);
            let to = state.written.partition_point(|w| w.start <= ours.end);
            if let (Some(first), Some(last)) =
                (state.written.get(from), to.checked_sub(1).and_then(|i| state.written.get(i)))
                && from < to
            {
                ours = ByteRange::new(ours.start.min(first.start), ours.end.max(last.end));
            }
            state.written.splice(from..to, [ours]);
        }
        state.chunk.overlaps(range)
    }

    /// Takes the next chunk for the fill; `None` at the end.
    fn advance(&self) -> Option<ByteRange> {
        let state = &mut *self.state.borrow_mut();
        while let Some(first) = state.written.first().copied().filter(|w| w.start <= state.next) {
            state.next = state.next.max(first.end);
            state.written.remove(0);
        }
        let limit = state.written.first().map_or(state.end, |w| w.start.min(state.end));
        let chunk = ByteRange::new(state.next, limit.min(state.next + CHUNK));
        state.chunk = chunk;
        state.next = chunk.end;
        (!chunk.is_empty()).then_some(chunk)
    }

    fn landed(&self) {
        self.state.borrow_mut().chunk = ByteRange::default();
        self.changed.notify();
    }

    fn overlaps_chunk(&self, range: ByteRange) -> bool {
        self.state.borrow().chunk.overlaps(range)
    }
}

impl File {
    /// Takes `range` from a fill that is under way; a future if the writer has to wait for it.
    pub(super) fn behind_fill(
        &self,
        range: ByteRange,
    ) -> Option<impl Future<Output = ()> + use<> + 'static> {
        let fill = self.0.fill.borrow().clone()?;
        fill.claim(range).then_some(async move {
            fill.changed.wait_until(|| !fill.overlaps_chunk(range)).await;
        })
    }

    /// Fills what lies behind `from`, as a task of the shard, until the file is closed.
    pub(super) fn fill_behind(&self, from: u64) {
        let end = self.len();
        if from < end {
            let fill = Rc::new(Fill::new(from, end));
            *self.0.fill.borrow_mut() = Some(fill.clone());
            self.0.env.spawn("fill", run(self.downgrade(), fill));
        }
    }
}

async fn run(file: Weak<Inner>, fill: Rc<Fill>) {
    let mut failed = false;
    while !failed && let Some(file) = file.upgrade().map(File) {
        let Some(chunk) = fill.advance() else { break };
        let zeroes = vec![Data::zeroes(usize_of(chunk.len()))];
        let written = file.write_now(chunk, zeroes).await;
        fill.landed();
        if let Err(e) = written {
            // Nothing is lost: the rest reads as zeroes too, it is only slower to write.
            tracing::warn!(error = ?e, "a new file could not be filled in advance");
            failed = true;
        }
    }
    if let Some(file) = file.upgrade().map(File) {
        file.0.fill.borrow_mut().take();
        if !failed {
            // Its own error, and the next request's: the disk is poisoned then.
            let _ = file.flush().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fill_skips_what_was_written_and_covers_all_else() {
        let fill = Fill::new(0, 4 * CHUNK);
        assert!(!fill.claim(ByteRange::new(100, 200)));
        assert!(!fill.claim(ByteRange::new(CHUNK - 50, CHUNK + 50)));
        assert!(!fill.claim(ByteRange::new(150, 300)));
        let mut chunks = Vec::new();
        while let Some(c) = fill.advance() {
            fill.landed();
            chunks.push(c);
        }
        assert_eq!(chunks.first(), Some(&ByteRange::new(0, 100)));
        assert_eq!(chunks.get(1), Some(&ByteRange::new(300, CHUNK - 50)));
        assert_eq!(chunks.get(2), Some(&ByteRange::new(CHUNK + 50, 2 * CHUNK + 50)));
        assert_eq!(chunks.last().map(|c| c.end), Some(4 * CHUNK));
    }

    #[test]
    fn only_a_write_that_meets_the_chunk_in_flight_waits() {
        let fill = Fill::new(0, 4 * CHUNK);
        fill.advance();
        assert!(fill.claim(ByteRange::new(CHUNK - 1, CHUNK + 1)));
        assert!(!fill.claim(ByteRange::new(CHUNK + 1, CHUNK + 2)));
        fill.landed();
        assert!(!fill.claim(ByteRange::new(0, 1)));
        assert_eq!(fill.advance(), Some(ByteRange::new(CHUNK + 2, 2 * CHUNK + 2)));
    }
}
