//! What may be read of the view: the checkpoint, and the consumer's own writes over it
//! (invariant 1).
//!
//! ```text
//!   own write, done before the read  ─► must be seen      (over the very checkpoint)
//!   own write, in flight beside it   ─► old, new, both
//!   no own write                     ─► the cut decides   (cut.rs)
//! ```

use understudy_core::units::{ByteRange, usize_of};

use super::cut::{describe, hex};
use super::oracle::Oracle;
use super::writes::{Moment, Write, Writes};

impl Oracle {
    /// A read of the view that began at `checkpoint` returned `bytes`.
    pub(super) fn check_view(
        &mut self,
        checkpoint: u64,
        volume: usize,
        range: ByteRange,
        bytes: &[u8],
        when: (Moment, Moment),
    ) -> Result<(), String> {
        let consumer = std::mem::take(&mut self.consumer);
        let r = self.check_view_of(&consumer, checkpoint, volume, range, bytes, when);
        self.consumer = consumer;
        r.map_err(|e| format!("view of checkpoint {checkpoint}: {e}"))
    }

    pub(super) fn check_view_of(
        &mut self,
        consumer: &Writes,
        checkpoint: u64,
        volume: usize,
        range: ByteRange,
        bytes: &[u8],
        (from, to): (Moment, Moment),
    ) -> Result<(), String> {
        for (part, ids) in consumer.over(volume, range, 4096) {
            let seen = &bytes[usize_of(part.start - range.start)..usize_of(part.end - range.start)];
            let over =
                |w: &&Write| w.over.0 <= checkpoint && checkpoint <= w.over.1 && w.began < to;
            let own: Vec<&Write> = ids.iter().map(|i| &consumer.all[*i]).filter(over).collect();
            if own.iter().any(|w| w.torn || w.ended.is_none_or(|e| e >= from)) {
                // In flight with the read: any mixture of old and new.
                continue;
            }
            let hidden =
                |w: &Write| own.iter().any(|o| w.precedes(o) && o.sure == Some(checkpoint));
            if own.iter().any(|w| w.matches(part, seen) && !hidden(w)) {
                continue;
            }
            if own.iter().any(|w| w.sure == Some(checkpoint)) {
                return Err(format!(
                    "volume {volume} at {part} reads {}; consumer's writers: {}",
                    hex(seen),
                    describe(consumer, &ids)
                ));
            }
            let (era, _) = self.cut(checkpoint);
            let base = &self.eras[era].base[volume];
            let cut = self.cuts.get_mut(&checkpoint).ok_or("no such cut")?;
            let e = &self.eras[era];
            if !base.1.iter().all(|k| *k) {
                // The base of a restarted or promoted replica is learnt by reading: not yet.
                continue;
            }
            cut.see(&e.writes, &base.0, volume, part, seen)?;
        }
        Ok(())
    }

    /// Whether a consumer may have written something over this checkpoint or a later one.
    pub(super) fn is_view_written(&self, checkpoint: u64) -> bool {
        self.consumer.all.iter().any(|w| w.over.1 >= checkpoint)
    }

    /// The node of the consumer died: what it did not flush is there or not.
    pub(super) fn consumer_died(&mut self) {
        for w in self.consumer.all.iter_mut().filter(|w| !w.durable) {
            w.torn = true;
        }
    }

    /// Begins with no consumer writes.
    pub(super) fn new_consumer(&mut self) {
        self.consumer = Writes::new(&self.sizes);
    }
}
