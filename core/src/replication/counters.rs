//! What a group has done since its engine opened it: counts that only grow.
//!
//! ```text
//!   primary, leg, session, checkpoint ─┐
//!   secondary, apply, record, view    ─┴─► Counters (one per group, plain cells) ─► Counts, a copy
//! ```
//! One cell and one addition each: a shard is one thread.

use std::cell::Cell;
use std::time::Duration;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The cells.
        #[derive(Default, Debug)]
        pub(crate) struct Counters {
            $($(#[doc = $doc])+ pub(crate) $name: Count,)+
        }

        /// What they were at one moment.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct Counts {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Counters {
            /// What they are now.
            pub(crate) fn now(&self) -> Counts {
                Counts { $($name: self.$name.get(),)+ }
            }
        }
    };
}

counters! {
    /// Reads of the primary's consumers.
    reads,
    /// Bytes of them.
    read_bytes,
    /// Writes of the primary's consumers, zeroes and discards too.
    writes,
    /// Bytes of them.
    write_bytes,
    /// Flushes of the primary's consumers.
    flushes,
    /// Requests that were answered with an error.
    failed,
    /// Bytes of the consumers' writes that entered the window.
    forwarded_bytes,
    /// Bytes that a resync sent.
    resync_bytes,
    /// Writes that waited for room in the window or in the peer's undo space.
    delayed,
    /// How long they did, in microseconds.
    delayed_micros,
    /// How often the window was given up because it stayed full for `max_delay`.
    overflows,
    /// Sessions with the peer that began.
    sessions,
    /// Checkpoints that completed, on either side.
    checkpoints,
    /// Epochs that were closed early because of the undo limit.
    early_cuts,
    /// From cut to completion, all checkpoints together, in microseconds.
    checkpoint_micros,
    /// Bytes of frames that the secondary applied.
    applied_bytes,
    /// Bytes of old content that it saved.
    saved_bytes,
    /// How often its undo log was made durable.
    undo_syncs,
    /// Errors that ended a session on the secondary's side.
    secondary_errors,
    /// A consumer's writes that the active disk's limit refused or held up.
    active_full,
    /// Checkpoints that were dropped to make room, as the policy allows.
    dropped_checkpoints,
}

/// A count.
#[derive(Default, Debug)]
pub(crate) struct Count(Cell<u64>);

impl Count {
    /// One more.
    pub(crate) fn one(&self) {
        self.add(1);
    }

    /// So many more.
    pub(crate) fn add(&self, n: u64) {
        self.0.set(self.0.get().wrapping_add(n));
    }

    /// So much longer, in microseconds.
    pub(crate) fn time(&self, d: Duration) {
        self.add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX));
    }

    fn get(&self) -> u64 {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_holds_what_was_counted_until_then() {
        let c = Counters::default();
        c.writes.one();
        c.write_bytes.add(4096);
        c.delayed_micros.time(Duration::from_millis(2));
        let then = c.now();
        c.writes.one();
        let expected =
            Counts { writes: 1, write_bytes: 4096, delayed_micros: 2000, ..Counts::default() };
        assert_eq!(then, expected);
        assert_eq!(c.now().writes, 2);
    }
}
