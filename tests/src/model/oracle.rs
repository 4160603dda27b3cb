//! What may be read: the plain model that everything is judged against.
//!
//! ```text
//!   era      a primary's life: its base (what it began with) and the writes since
//!   cut      one checkpoint, of the era that made it
//!   consumer what was written to the view, over which checkpoint
//! ```
//! A new era begins when the primary is started again (what its disk holds then is the base) and
//! with a failover (the base is the view at that moment: invariant 2).

use std::collections::BTreeMap;

use understudy_core::units::{ByteRange, SECTOR, usize_of};

use super::content::Fill;
use super::cut::{Cut, describe, hex};
use super::writes::{Moment, Write, Writes};

/// A primary's life.
#[derive(Debug)]
pub(super) struct Era {
    /// The first epoch that it can close.
    pub(super) first_epoch: u64,
    /// Its writes.
    pub(super) writes: Writes,
    /// Per volume: what was there before, and of which bytes that is known.
    pub(super) base: Vec<(Vec<u8>, Vec<bool>)>,
    /// The checkpoint whose view the base is, and what the consumer had written over it.
    origin: Option<(u64, Writes)>,
}

/// The whole model.
#[derive(Debug)]
pub(super) struct Oracle {
    pub(super) sizes: Vec<u64>,
    now: Moment,
    patterns: usize,
    /// All eras, oldest first; never none.
    pub(super) eras: Vec<Era>,
    /// The consumer of the present secondary.
    pub(super) consumer: Writes,
    pub(super) cuts: BTreeMap<u64, Cut>,
}

impl Oracle {
    /// Volumes of zeroes.
    pub(super) fn new(sizes: &[u64]) -> Self {
        let mut o = Self {
            sizes: sizes.to_vec(),
            now: 0,
            patterns: 0,
            eras: Vec::new(),
            consumer: Writes::new(sizes),
            cuts: BTreeMap::new(),
        };
        o.begin_era(1);
        o.know_base(sizes.iter().map(|s| vec![0; usize_of(*s)]).collect());
        o
    }

    /// The next moment.
    pub(super) fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    /// A new write's bytes.
    pub(super) fn pattern(&mut self) -> Fill {
        self.patterns += 1;
        Fill::Pattern(self.patterns)
    }

    /// The number of the present era.
    pub(super) fn era(&self) -> usize {
        self.eras.len() - 1
    }

    /// Whether the present era began with a failover.
    pub(super) fn is_promoted(&self) -> bool {
        self.eras.last().is_some_and(|e| e.origin.is_some())
    }

    fn unknown(&self) -> Vec<(Vec<u8>, Vec<bool>)> {
        self.sizes.iter().map(|s| (vec![0; usize_of(*s)], vec![false; usize_of(*s)])).collect()
    }

    /// The primary begins anew; what with, is not known yet.
    pub(super) fn begin_era(&mut self, first_epoch: u64) {
        let (writes, base) = (Writes::new(&self.sizes), self.unknown());
        self.eras.push(Era { first_epoch, writes, base, origin: None });
    }

    /// What the present era began with.
    pub(super) fn know_base(&mut self, base: Vec<Vec<u8>>) {
        if let Some(era) = self.eras.last_mut() {
            era.base = base.into_iter().map(|b| (b.clone(), vec![true; b.len()])).collect();
        }
    }

    /// A secondary was promoted to `checkpoint`; with what its consumer wrote, if that is kept.
    pub(super) fn promoted(&mut self, first_epoch: u64, checkpoint: u64, keep_active: bool) {
        let consumer = std::mem::replace(&mut self.consumer, Writes::new(&self.sizes));
        let consumer = if keep_active { consumer } else { Writes::new(&self.sizes) };
        let (writes, base) = (Writes::new(&self.sizes), self.unknown());
        self.eras.push(Era { first_epoch, writes, base, origin: Some((checkpoint, consumer)) });
    }

    /// What is known of checkpoint `epoch`, and of which era it is.
    pub(super) fn cut(&mut self, epoch: u64) -> (usize, &mut Cut) {
        let era = self.eras.iter().rposition(|e| e.first_epoch <= epoch).unwrap_or(0);
        let first = self.eras[era].first_epoch;
        let sizes = &self.sizes;
        if !self.cuts.contains_key(&epoch) {
            let older = self.cuts.range(first..epoch).next_back().map(|(_, c)| c);
            let cut = Cut::new(sizes, older);
            self.cuts.insert(epoch, cut);
        }
        (era, self.cuts.entry(epoch).or_insert_with(|| Cut::new(sizes, None)))
    }

    /// A read of the primary, begun at `from` and ended at `to`, returned `bytes`.
    pub(super) fn check_primary(
        &mut self,
        volume: usize,
        range: ByteRange,
        bytes: &[u8],
        (from, to): (Moment, Moment),
    ) -> Result<(), String> {
        let era = self.era();
        for (part, ids) in self.settled_parts(era, volume, range, from) {
            let skip = usize_of(part.start - range.start);
            let seen = &bytes[skip..skip + usize_of(part.len())];
            let writes = &self.eras[era].writes;
            let all = |i: &usize| &writes.all[*i];
            let hidden =
                |w: &Write| ids.iter().map(all).any(|o| w.precedes(o) && o.is_done_before(from));
            if ids.iter().any(|i| all(i).torn) {
                continue;
            }
            if ids.iter().map(all).any(|w| w.began < to && w.matches(part, seen) && !hidden(w)) {
                continue;
            }
            if ids.iter().map(all).any(|w| w.is_done_before(from)) {
                return Err(format!(
                    "primary volume {volume} at {part} reads {}, begun at {from}; writers: {}",
                    hex(seen),
                    describe(writes, &ids)
                ));
            }
            let text = describe(writes, &ids);
            self.see_base(era, volume, part, seen)
                .map_err(|e| format!("primary volume {volume} at {part}: {e}; writers: {text}"))?;
        }
        Ok(())
    }

    /// The parts of a range that have one writer each for a read begun at `from`: what is being
    /// written meanwhile may be old in one sector and new in the next.
    fn settled_parts(
        &self,
        era: usize,
        volume: usize,
        range: ByteRange,
        from: Moment,
    ) -> Vec<(ByteRange, Vec<usize>)> {
        let writes = &self.eras[era].writes;
        let mut parts = Vec::new();
        for (part, ids) in writes.over(volume, range, 4096) {
            let busy = ids.iter().any(|i| writes.all[*i].ended.is_none_or(|e| e >= from));
            let unit = if busy { SECTOR } else { 4096 };
            parts.extend(part.pieces(unit).map(|p| (p, ids.clone())));
        }
        parts
    }

    /// After a crash of the primary that ended `era`: what its disk holds now. What was flushed must
    /// be there; if it was only killed, what was completed.
    pub(super) fn check_after_crash(
        &mut self,
        era: usize,
        volume: usize,
        bytes: &[u8],
        only_killed: bool,
    ) -> Result<(), String> {
        let range = ByteRange::new(0, self.sizes[volume]);
        let parts = self.eras[era].writes.over(volume, range, SECTOR);
        for (part, ids) in parts {
            let seen = &bytes[usize_of(part.start)..usize_of(part.end)];
            let writes = &self.eras[era].writes;
            let all = |i: &usize| &writes.all[*i];
            if ids.iter().any(|i| all(i).torn) {
                continue;
            }
            let stays = |w: &Write| !w.torn && w.ended.is_some() && (w.durable || only_killed);
            let hidden = |w: &Write| ids.iter().map(all).any(|o| w.precedes(o) && stays(o));
            if ids.iter().map(all).any(|w| w.matches(part, seen) && !hidden(w)) {
                continue;
            }
            if ids.iter().map(all).any(stays) {
                return Err(format!(
                    "after a crash volume {volume} at {part} reads {}, which is not what was flushed; writers: {}",
                    hex(seen),
                    describe(writes, &ids)
                ));
            }
            // Torn within a sector is possible only where a request is smaller than one.
            if part.is_aligned(SECTOR) || ids.is_empty() {
                self.see_base(era, volume, part, seen)
                    .map_err(|e| format!("after a crash volume {volume} at {part}: {e}"))?;
            }
        }
        Ok(())
    }

    fn see_base(
        &mut self,
        era: usize,
        volume: usize,
        part: ByteRange,
        seen: &[u8],
    ) -> Result<(), String> {
        let at = usize_of(part.start)..usize_of(part.end);
        let (base, known) = &self.eras[era].base[volume];
        for (i, byte) in seen.iter().enumerate() {
            if known[at.start + i] && base[at.start + i] != *byte {
                return Err(format!("byte {} of {} changed to {}", i, hex(&base[at]), hex(seen)));
            }
        }
        if known[at.clone()].iter().all(|k| *k) {
            return Ok(());
        }
        if let Some((checkpoint, consumer)) = self.eras[era].origin.take() {
            let seen_at = (Moment::MAX, Moment::MAX);
            let r = self.check_view_of(&consumer, checkpoint, volume, part, seen, seen_at);
            self.eras[era].origin = Some((checkpoint, consumer));
            r.map_err(|e| format!("promoted to checkpoint {checkpoint}: {e}"))?;
        }
        let (base, known) = &mut self.eras[era].base[volume];
        base[at.clone()].copy_from_slice(seen);
        known[at].fill(true);
        Ok(())
    }

    /// Every checkpoint holds what the one before it held.
    pub(super) fn check_cuts(&self) -> Result<usize, String> {
        for (i, era) in self.eras.iter().enumerate() {
            let end = self.eras.get(i + 1).map_or(u64::MAX, |e| e.first_epoch.max(era.first_epoch));
            let mut last: Option<(&u64, &Cut)> = None;
            for (n, cut) in self.cuts.range(era.first_epoch..end) {
                let older = last.map_or(cut, |(_, c)| c);
                if let Some(w) = older.conflict(cut, &era.writes) {
                    let write = era.writes.all[w];
                    return Err(format!(
                        "checkpoint {n} lacks write {write:?}, which an older one has"
                    ));
                }
                last = Some((n, cut));
            }
        }
        Ok(self.cuts.len())
    }

    /// A checkpoint that was asked for at `from` is complete at `to`: it holds what was done before,
    /// nothing that began later, and is on the primary's disk.
    pub(super) fn completed(&mut self, epoch: u64, from: Moment, to: Moment) -> Result<(), String> {
        let (era, cut) = self.cut(epoch);
        cut.after(from);
        cut.before(to);
        let cut = cut.clone();
        let writes = &mut self.eras[era].writes;
        for w in writes.all.iter_mut().filter(|w| w.is_done_before(from)) {
            w.durable = true;
        }
        match cut.conflict(&cut, writes) {
            Some(i) => {
                Err(format!("checkpoint {epoch}: write {:?} is in it and is not", writes.all[i]))
            }
            None => Ok(()),
        }
    }
}
