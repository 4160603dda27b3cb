//! The merge of a roll-back into the disk, step by step, each durable before the next.

use std::rc::Rc;
use std::time::Duration;

use super::{Promoted, runs};
use crate::bug::{Bug, bug};
use crate::disk::{Disk, Host, Result};
use crate::overlay::{Bitmap, CommitPosition, Stage};
use crate::runtime::Buf;
use crate::units::{BUF_PIECE, ByteOffset, ByteRange, CLUSTER, Epoch, VolumeIndex, usize_of};

/// The most held bytes merged under one lock, with one flush and one position write.
const STEP_BYTES: u64 = 4 << 20;

/// The most bytes of volume that one step locks: scattered clusters lie far apart.
const STEP_SPAN: u64 = 256 << 20;

/// How long a step waits when the VM has requests in flight: the VM goes first.
const YIELD: Duration = Duration::from_millis(1);

impl<H: Host> Promoted<H> {
    /// Merges until all is merged or it fails; says which in the superblock.
    pub(crate) async fn commit(self: Rc<Self>) {
        // One at a time: a second order while the first merges adds nothing.
        if self.committing.replace(true) {
            return;
        }
        *self.failure.borrow_mut() = None;
        let result = match self.merge_all().await {
            Ok(()) => self.finish().await,
            Err(e) => Err(e),
        };
        if let Err(e) = result {
            *self.failure.borrow_mut() = Some(format!("merging the roll-back: {e:?}"));
            // If even this can't be written, a restart resumes the commit, which is as good.
            let _ = self.store.update(|s| s.stage = Stage::FailoverFailed).await;
        }
        self.committing.set(false);
        self.changed.notify();
    }

    async fn merge_all(&self) -> Result<()> {
        if self.store.state().stage != Stage::Failover {
            self.store.update(|s| s.stage = Stage::Failover).await?;
        }
        for i in 0..self.volumes.len() {
            let v = VolumeIndex::of(i);
            while self.merge_step(v).await? {
                self.changed.notify();
                if self.busy.get() > 0 {
                    self.host.sleep(YIELD).await;
                } else {
                    crate::runtime::yield_now().await;
                }
            }
        }
        Ok(())
    }

    /// Merges the next step of a volume; `false` if nothing of it is left.
    async fn merge_step(&self, v: VolumeIndex) -> Result<bool> {
        let part = self.part(v);
        let Some(step) = next_step(&part.held.borrow()) else { return Ok(false) };
        let locked = if bug(Bug::CommitUnlocked) { ByteRange::default() } else { step };
        let _guard = part.lock.lock(locked).await;
        let Some(point) = self.point.borrow().clone() else { return Ok(false) };
        let pieces: Vec<_> =
            runs(&part.held.borrow(), step).into_iter().filter(|(_, held)| *held).collect();
        for (run, _) in pieces {
            for piece in run.pieces(BUF_PIECE) {
                let buf = Buf::new(usize_of(piece.len()));
                let (buf, r) =
                    point.read(v, &part.disk, part.disk.len(), piece.offset(), buf).await;
                r?;
                if buf.iter().all(|b| *b == 0) {
                    part.disk.write_zeroes(piece, true).await?;
                } else {
                    part.disk.write(piece.offset(), buf.freeze()).await?;
                }
            }
        }
        if !bug(Bug::PositionBeforeFlush) {
            part.disk.flush().await?;
        }
        let position = CommitPosition { volume: v, offset: ByteOffset(step.end) };
        if let Err(e) = self.store.update(|s| s.commit = position).await {
            // It may be on disk all the same, and then a restart reads this step from the disk: what
            // was written to the active disk meanwhile would be lost.
            self.unsure.set(Some((v, step)));
            return Err(e);
        }
        part.held.borrow_mut().clear(step);
        Ok(true)
    }

    async fn finish(&self) -> Result<()> {
        self.store
            .update(|s| {
                s.stage = Stage::Done;
                s.undo.clear();
                s.active = None;
                s.commit = CommitPosition::default();
            })
            .await?;
        let actives = self
            .point
            .borrow()
            .as_ref()
            .map(|p| (0..self.volumes.len()).map(|i| p.active(VolumeIndex::of(i))).collect());
        *self.point.borrow_mut() = None;
        if let Some(actives) = actives {
            self.chain.complete(Epoch(u64::MAX), actives);
        }
        Ok(())
    }
}

/// The span of the next step: from the first held cluster, as far as both limits allow.
fn next_step(held: &Bitmap) -> Option<ByteRange> {
    let first = held.next_range(0, STEP_BYTES)?;
    let mut step = first;
    let mut bytes = first.len();
    while let Some(next) = held.next_range(step.end, STEP_BYTES - bytes.min(STEP_BYTES - CLUSTER)) {
        bytes += next.len();
        if bytes > STEP_BYTES || next.end - step.start > STEP_SPAN {
            break;
        }
        step.end = next.end;
    }
    Some(step)
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_ends_at_its_byte_limit_and_at_its_span() {
        let mut held = Bitmap::new();
        assert_eq!(next_step(&held), None);
        held.set(ByteRange::new(CLUSTER, 3 * CLUSTER));
        held.set(ByteRange::new(10 * CLUSTER, 11 * CLUSTER));
        assert_eq!(next_step(&held), Some(ByteRange::new(CLUSTER, 11 * CLUSTER)));
        held.set(ByteRange::new(STEP_SPAN + 10 * CLUSTER, STEP_SPAN + 11 * CLUSTER));
        assert_eq!(next_step(&held), Some(ByteRange::new(CLUSTER, 11 * CLUSTER)));
        held.set(ByteRange::new(20 * CLUSTER, 20 * CLUSTER + 2 * STEP_BYTES));
        let step = next_step(&held).unwrap();
        assert!(step.end <= 20 * CLUSTER + STEP_BYTES, "{step:?}");
    }
}
