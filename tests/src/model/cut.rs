//! Whether what was seen of a checkpoint is a consistent cut through the writes (invariant 4).
//!
//! ```text
//!   seen X at a place     ─► X is in, and so is all that ended before X began
//!   Y lies over X there   ─► Y is out, and so is all that began after Y ended
//!   asked for at t0, complete at t1 ─► ended before t0: in;  began after t1: out
//! ```
//! Legal exactly if no write is both: "ended before it began" is an interval order, so two moments
//! hold both closures.

use std::collections::BTreeSet;

use understudy_core::units::{ByteRange, u64_of, usize_of};

use super::writes::{Moment, Write, Writes};

/// What is known of one checkpoint.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// All that ended before this is in.
    inside: Moment,
    /// All that began after this is out.
    outside: Moment,
    ins: BTreeSet<usize>,
    outs: BTreeSet<usize>,
    /// Per volume: the bytes seen, and which were.
    image: Vec<(Vec<u8>, Vec<bool>)>,
}

impl Cut {
    /// Nothing is known, but that it holds whatever `older`, a checkpoint of the same era, holds.
    pub(super) fn new(sizes: &[u64], older: Option<&Self>) -> Self {
        let image = sizes.iter().map(|s| (vec![0; usize_of(*s)], vec![false; usize_of(*s)]));
        Self {
            inside: older.map_or(0, |o| o.inside),
            outside: Moment::MAX,
            ins: older.map_or_else(BTreeSet::new, |o| o.ins.clone()),
            outs: BTreeSet::new(),
            image: image.collect(),
        }
    }

    /// It was made after `from`.
    pub(super) fn after(&mut self, from: Moment) {
        self.inside = self.inside.max(from);
    }

    /// It was made before `to`.
    pub(super) fn before(&mut self, to: Moment) {
        self.outside = self.outside.min(to);
    }

    fn is_in(&self, id: usize, w: &Write) -> bool {
        self.ins.contains(&id) || w.is_done_before(self.inside)
    }

    fn is_out(&self, id: usize, w: &Write) -> bool {
        !w.torn && (self.outs.contains(&id) || w.began > self.outside)
    }

    /// A write that would have to be both in this and out of `other`, this one or a later one.
    pub(super) fn conflict(&self, other: &Self, writes: &Writes) -> Option<usize> {
        (0..writes.all.len()).find(|i| {
            let w = &writes.all[*i];
            self.is_in(*i, w) && other.is_out(*i, w)
        })
    }

    /// Sees `bytes` at `range`. `base`: what was there before all writes of the era.
    pub(super) fn see(
        &mut self,
        writes: &Writes,
        base: &[u8],
        volume: usize,
        range: ByteRange,
        bytes: &[u8],
    ) -> Result<(), String> {
        self.compare(volume, range, bytes)?;
        for (part, ids) in writes.over(volume, range, 4096) {
            let skip = usize_of(part.start - range.start);
            let seen = &bytes[skip..skip + usize_of(part.len())];
            if ids.iter().any(|i| writes.all[*i].torn) {
                continue;
            }
            let is_base = base[usize_of(part.start)..usize_of(part.end)] == *seen;
            let mut fitting = ids.iter().copied().filter(|i| writes.all[*i].matches(part, seen));
            match (fitting.next(), fitting.next(), is_base) {
                (None, _, true) => self.outs.extend(ids),
                (Some(x), None, false) => {
                    let w = writes.all[x];
                    self.ins.insert(x);
                    self.inside = self.inside.max(w.began);
                    for over in ids.into_iter().filter(|i| w.precedes(&writes.all[*i])) {
                        self.outs.insert(over);
                        self.before(writes.all[over].ended.unwrap_or(Moment::MAX));
                    }
                }
                (None, _, false) => {
                    return Err(format!(
                        "volume {volume} at {part}: bytes that nobody wrote there ({}); writers: {}",
                        hex(seen),
                        describe(writes, &ids)
                    ));
                }
                // Two that look alike at this place: it tells nothing.
                (Some(_), _, _) => {}
            }
        }
        for i in self.outs.clone() {
            if let Some(e) = writes.all[i].ended {
                self.before(e);
            }
        }
        if let Some(i) = self.conflict(self, writes) {
            return Err(format!(
                "seeing {range} of volume {volume}: write {i} {:?} is in the cut and is not: inside {}, outside {}",
                writes.all[i], self.inside, self.outside
            ));
        }
        Ok(())
    }

    /// What was seen once stays (invariant 1).
    fn compare(&mut self, volume: usize, range: ByteRange, bytes: &[u8]) -> Result<(), String> {
        let (image, known) = &mut self.image[volume];
        for (i, byte) in bytes.iter().enumerate() {
            let at = usize_of(range.start) + i;
            if known[at] && image[at] != *byte {
                return Err(format!(
                    "volume {volume} at {at}: the view of a checkpoint changed from {:#04x} to {byte:#04x}",
                    image[at]
                ));
            }
            image[at] = *byte;
            known[at] = true;
        }
        Ok(())
    }
}

/// The first bytes, for a message.
pub(super) fn hex(bytes: &[u8]) -> String {
    let head = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
    format!("{head} of {} bytes", u64_of(bytes.len()))
}

/// Writes, for a message.
pub(super) fn describe(writes: &Writes, ids: &[usize]) -> String {
    ids.iter().map(|i| format!("{i}: {:?}", writes.all[*i])).collect::<Vec<_>>().join("; ")
}
