//! The first stage: the old content of what a batch will change, each cluster once an epoch.

use std::rc::Rc;

use futures::future::join_all;

use super::super::secondary::Secondary;
use super::super::staging::{Item, Staged};
use crate::bug::{Bug, bug};
use crate::disk::{Disk, Host, Result};
use crate::overlay::{Content, Saved};
use crate::runtime::Buf;
use crate::units::{BUF_PIECE, ByteRange, CLUSTER, VolumeIndex, usize_of};

/// The old content of every cluster that the batch will change and no log of this epoch holds.
pub(super) async fn read_old<H: Host>(
    s: &Rc<Secondary<H>>,
    batch: &[Staged],
) -> Result<Vec<Saved>> {
    let mut wanted: Vec<(VolumeIndex, ByteRange, bool)> = Vec::new();
    for b in batch {
        // What nobody can be rolled back to is not saved.
        if let Some((v, range)) = b.item.place().filter(|(v, _)| s.saving.get().covers(*v)) {
            let is_zero = matches!(b.item, Item::Zero { .. });
            if is_zero && bug(Bug::DiscardNotSaved) {
                continue;
            }
            claim(s, v, range, |r| wanted.push((v, r, is_zero)));
        }
    }
    // All reads are in flight together.
    let reads: Vec<_> = wanted
        .into_iter()
        .flat_map(|(v, range, is_zero)| range.pieces(BUF_PIECE).map(move |r| (v, r, is_zero)))
        .map(|(v, range, is_zero)| read_one(s, v, range, is_zero))
        .collect();
    let mut saved = Vec::new();
    for part in join_all(reads).await {
        saved.extend(part?);
    }
    Ok(saved)
}

/// Resync often sends what is here already (its bitmaps are coarse after a crash). Such a frame is
/// neither saved nor written, unless another frame of the batch touches the same place.
pub(super) fn spare_equal<H: Host>(
    s: &Secondary<H>,
    batch: &mut [Staged],
    mut saved: Vec<Saved>,
) -> Vec<Saved> {
    for i in 0..batch.len() {
        let Some(Staged { item: Item::Resync(v, range, data), .. }) = batch.get(i) else {
            continue;
        };
        let (v, range) = (*v, *range);
        let others =
            batch.iter().enumerate().filter(|(j, _)| *j != i).filter_map(|(_, b)| b.item.place());
        let is_alone =
            !others.clone().any(|(ov, or)| ov == v && or.round_out(CLUSTER).overlaps(range));
        let old: Vec<_> =
            saved.iter().filter(|o| o.volume == v && o.range.overlaps(range)).collect();
        let covered: u64 = old.iter().map(|o| o.range.len()).sum();
        if !is_alone || covered != range.len() || !old.iter().all(|o| is_equal(o, range, data)) {
            continue;
        }
        saved.retain(|o| o.volume != v || !o.range.overlaps(range));
        if let Some(claimed) = s.claimed.borrow_mut().get_mut(v.get()) {
            claimed.clear(range);
        }
        if let Some(b) = batch.get_mut(i) {
            b.item = Item::Spared;
        }
    }
    saved
}

fn is_equal(old: &Saved, range: ByteRange, data: &[u8]) -> bool {
    let Content::Data(old_data) = &old.content else { return false };
    let Some(start) = old.range.start.checked_sub(range.start).map(usize_of) else { return false };
    data.get(start..start + old_data.len()).is_some_and(|new| new == &old_data[..])
}

/// Claims the clusters of `range` that are not saved yet, in runs.
fn claim<H: Host>(
    s: &Secondary<H>,
    v: VolumeIndex,
    range: ByteRange,
    mut run: impl FnMut(ByteRange),
) {
    let mut claimed = s.claimed.borrow_mut();
    let Some(claimed) = claimed.get_mut(v.get()) else { return };
    let mut open: Option<ByteRange> = None;
    for c in range.clusters() {
        let cluster = c.range();
        if claimed.contains(c) {
            open.take().into_iter().for_each(&mut run);
        } else {
            claimed.set(cluster);
            open = Some(open.map_or(cluster, |o| ByteRange::new(o.start, cluster.end)));
        }
    }
    open.into_iter().for_each(&mut run);
}

fn read_one<H: Host>(
    s: &Secondary<H>,
    v: VolumeIndex,
    range: ByteRange,
    is_zero: bool,
) -> impl Future<Output = Result<Vec<Saved>>> + use<H> {
    let disk = s.volume(v).map(|vol| vol.disk.clone());
    async move {
        let disk = disk?;
        if !is_zero {
            let (buf, r) = disk.read(range.offset(), Buf::new(usize_of(range.len()))).await;
            r?;
            return Ok(vec![Saved { volume: v, range, content: Content::Data(buf.freeze()) }]);
        }
        // A discard of what is not allocated saves a line instead of the zeroes.
        let mut out = Vec::new();
        for (part, allocated) in disk.allocation(range).await? {
            let part = if allocated { part.round_out(CLUSTER) } else { part.round_in(CLUSTER) }
                .intersect(range);
            let part = ByteRange::new(
                part.start.max(out.last().map_or(range.start, |s: &Saved| s.range.end)),
                part.end,
            );
            if part.is_empty() {
                continue;
            }
            let content = if allocated {
                let (buf, r) = disk.read(part.offset(), Buf::new(usize_of(part.len()))).await;
                r?;
                Content::Data(buf.freeze())
            } else {
                Content::Zero
            };
            out.push(Saved { volume: v, range: part, content });
        }
        Ok(out)
    }
}
