//! Reading a volume as it was at a checkpoint.
//!
//! ```text
//!   request, any alignment, cut at multiples of 1 MiB
//!     ├─ nothing over it: one read of the disk, right into the caller's buffer when aligned
//!     └─ else, per cluster: active ─► first log that has it ─► disk
//!          disk parts: one read from the first to the last of them; the others are laid over it
//!
//!   then look again: a cluster that came from the disk and is in a log *now* was overwritten
//!   meanwhile, perhaps before the disk was read; the log has what it held (QEMU f8d59dfb40)
//! ```
//!
//! The looking again needs no loop: what a log holds never changes, and a cluster gets into a log
//! before the disk is overwritten.

use std::future::Future;

use futures::FutureExt;
use futures::future::{Either, join_all};

use super::super::active::{Active, ActiveState};
use super::super::undo::{Place, UndoLog};
use super::{Point, walk};
use crate::bug::{Bug, bug};
use crate::disk::{Disk, Error, Result};
use crate::runtime::Buf;
use crate::units::{ByteOffset, ByteRange, CLUSTER, VolumeIndex, u64_of, usize_of};

/// One round: its rounded-out buffer is no larger than this.
const ROUND: u64 = 1 << 20;

/// The most reads of pieces in flight at once.
const DEPTH: usize = 32;

/// Where a part of a request is to be found.
enum Source<D: Disk> {
    Disk,
    Zero,
    Active(Active<D>),
    Log(UndoLog<D>),
}

type Parts<D> = Vec<(ByteRange, Source<D>)>;

impl<D: Disk> Point<D> {
    /// Reads `volume`, of `len` bytes and with its secondary disk `disk`, as it was at this
    /// checkpoint and with the consumer's own writes. Any offset and length. The buffer comes back
    /// also after an error, its content then undefined.
    pub fn read(
        &self,
        volume: VolumeIndex,
        disk: &D,
        len: u64,
        at: ByteOffset,
        buf: Buf,
    ) -> impl Future<Output = (Buf, Result<()>)> + 'static {
        let (point, disk) = (self.clone(), disk.clone());
        async move {
            let range = match ByteRange::at(at, u64_of(buf.len())) {
                Some(range) if range.end <= len => range,
                _ => {
                    let range = ByteRange::new(at.0, at.0.saturating_add(u64_of(buf.len())));
                    return (buf, Err(Error::beyond_end("read", range, len)));
                }
            };
            point.read_range(volume, &disk, range, buf).await
        }
    }

    async fn read_range(
        &self,
        volume: VolumeIndex,
        disk: &D,
        range: ByteRange,
        mut buf: Buf,
    ) -> (Buf, Result<()>) {
        if range.is_empty() {
            return (buf, Ok(()));
        }
        if !self.covers(volume, range) && range.is_aligned(disk.alignment()) {
            let (mut buf, result) = disk.read(range.offset(), buf).await;
            if let Err(e) = result {
                return (buf, Err(e));
            }
            let result = self.look_again(volume, range, range.start, &mut buf).await;
            return (buf, result);
        }
        for round in range.pieces(ROUND) {
            if let Err(e) = self.read_round(volume, disk, round, range.start, &mut buf).await {
                return (buf, Err(e));
            }
        }
        (buf, Ok(()))
    }

    /// Whether anything lies over a cluster that `range` touches.
    fn covers(&self, volume: VolumeIndex, range: ByteRange) -> bool {
        self.0.actives.get(volume.get()).is_some_and(|active| active.intersects(range))
            || self.logs_cover(volume, range)
    }

    fn logs_cover(&self, volume: VolumeIndex, range: ByteRange) -> bool {
        walk(&self.0.first).any(|node| node.log.intersects(volume, range))
    }

    /// Reads `range`, at most a round, into its part of `buf`, which begins at byte `base`.
    async fn read_round(
        &self,
        volume: VolumeIndex,
        disk: &D,
        range: ByteRange,
        base: u64,
        buf: &mut Buf,
    ) -> Result<()> {
        let parts = self.plan(volume, range);
        let mut from_disk = parts
            .iter()
            .filter(|(_, source)| matches!(source, Source::Disk))
            .map(|(part, _)| *part);
        if let Some(first) = from_disk.next() {
            let span = ByteRange::new(first.start, from_disk.next_back().unwrap_or(first).end);
            if u64_of(buf.len()) == span.len() && span.is_aligned(disk.alignment()) {
                // It is all of the request: no second buffer.
                let (read, result) =
                    disk.read(span.offset(), std::mem::replace(buf, Buf::new(0))).await;
                *buf = read;
                result?;
            } else {
                let wide = widened(span, disk.alignment(), disk.len());
                let (bytes, result) =
                    disk.read(wide.offset(), Buf::new(usize_of(wide.len()))).await;
                result?;
                copy(buf, base, span, &bytes, wide.start);
            }
        }
        self.lay_over(volume, &parts, base, buf).await?;
        for (part, source) in &parts {
            if matches!(source, Source::Disk) {
                self.look_again(volume, *part, base, buf).await?;
            }
        }
        Ok(())
    }

    /// `range`, which was read from the disk: what of it is in a log now comes from there.
    async fn look_again(
        &self,
        volume: VolumeIndex,
        range: ByteRange,
        base: u64,
        buf: &mut Buf,
    ) -> Result<()> {
        if !self.logs_cover(volume, range) {
            return Ok(());
        }
        let mut parts = Vec::new();
        self.plan_logs(volume, range, &mut parts);
        self.lay_over(volume, &parts, base, buf).await
    }

    /// `range` in order, each part with its source.
    fn plan(&self, volume: VolumeIndex, range: ByteRange) -> Parts<D> {
        let mut parts = Vec::new();
        let Some(active) = self.0.actives.get(volume.get()) else {
            self.plan_logs(volume, range, &mut parts);
            return parts;
        };
        for (part, state) in active.pieces(range) {
            match state {
                ActiveState::Absent => self.plan_logs(volume, part, &mut parts),
                ActiveState::Data => parts.push((part, Source::Active(active.clone()))),
                ActiveState::Zero => parts.push((part, Source::Zero)),
            }
        }
        parts
    }

    /// Adds `range` in order, from the logs alone: the first that has a cluster, oldest first.
    fn plan_logs(&self, volume: VolumeIndex, range: ByteRange, parts: &mut Parts<D>) {
        let begin = parts.len();
        parts.push((range, Source::Disk));
        let mut nodes: Vec<_> =
            walk(&self.0.first).filter(|node| node.log.intersects(volume, range)).collect();
        if bug(Bug::UndoNewestFirst) {
            nodes.reverse();
        }
        for node in nodes {
            for (part, source) in parts.split_off(begin) {
                if matches!(source, Source::Disk) {
                    parts.extend(node.log.pieces(volume, part).into_iter().map(
                        |(piece, place)| match place {
                            None => (piece, Source::Disk),
                            Some(Place::Zero) => (piece, Source::Zero),
                            Some(Place::At(_)) => (piece, Source::Log(node.log.clone())),
                        },
                    ));
                } else {
                    parts.push((part, source));
                }
            }
        }
    }

    /// Reads all parts that are not the disk's, a bounded number at once.
    async fn lay_over(
        &self,
        volume: VolumeIndex,
        parts: &[(ByteRange, Source<D>)],
        base: u64,
        buf: &mut Buf,
    ) -> Result<()> {
        for group in parts.chunks(DEPTH) {
            let mut reads = Vec::new();
            for (part, source) in group {
                let read = match source {
                    Source::Disk => continue,
                    Source::Zero => {
                        place_of(buf, base, *part).fill(0);
                        continue;
                    }
                    Source::Active(active) => {
                        let (len, alignment) = active.data_shape();
                        let wide = widened(*part, alignment, len);
                        (
                            *part,
                            wide,
                            Either::Left(
                                active.read(wide.offset(), Buf::new(usize_of(wide.len()))),
                            ),
                        )
                    }
                    Source::Log(log) => {
                        // A log holds whole clusters, also beyond the end of the volume.
                        let wide = part.round_out(CLUSTER);
                        (
                            *part,
                            wide,
                            Either::Right(log.read(volume, wide, Buf::new(usize_of(wide.len())))),
                        )
                    }
                };
                reads.push(read);
            }
            let reads = reads
                .into_iter()
                .map(|(part, wide, read)| read.map(move |read| (part, wide, read)));
            for (part, wide, (bytes, result)) in join_all(reads).await {
                result?;
                copy(buf, base, part, &bytes, wide.start);
            }
        }
        Ok(())
    }
}

/// What has to be read to get `range` from a disk of this alignment and length.
fn widened(range: ByteRange, alignment: u64, len: u64) -> ByteRange {
    let wide = range.round_out(alignment.max(CLUSTER));
    ByteRange::new(wide.start, wide.end.min(len.max(range.end)))
}

/// The part of `buf`, whose first byte is byte `base` of the volume, that `part` goes to.
fn place_of(buf: &mut Buf, base: u64, part: ByteRange) -> &mut [u8] {
    &mut buf[usize_of(part.start - base)..usize_of(part.end - base)]
}

/// Copies `part` out of `bytes`, whose first byte is byte `from` of the volume.
fn copy(buf: &mut Buf, base: u64, part: ByteRange, bytes: &[u8], from: u64) {
    let source = &bytes[usize_of(part.start - from)..usize_of(part.end - from)];
    place_of(buf, base, part).copy_from_slice(source);
}
