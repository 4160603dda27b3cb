//! An inbound writer's frames: they come from an NBD client, not by a link, and each is done only
//! when it is applied.

use std::rc::Rc;

use super::primary::Payload;
use super::secondary::Secondary;
use super::staging::{Item, Staged};
use crate::disk::{Error, ErrorKind, Host, Result};
use crate::units::{BUF_PIECE, ByteRange, Epoch, VolumeCount, VolumeIndex, usize_of};

fn ended(before: &str) -> Error {
    Error::own(ErrorKind::Stale, format!("the role ended before the {before}"))
}

impl<H: Host> Secondary<H> {
    /// The number of a frame that came by no link.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.received.set(self.received.get() + 1);
        self.received.get()
    }

    /// A foreign primary's write: complete when it is applied.
    pub(crate) async fn inbound_write(
        &self,
        volume: VolumeIndex,
        range: ByteRange,
        payload: Payload,
    ) -> Result<()> {
        let mut waits = Vec::new();
        for piece in range.pieces(BUF_PIECE) {
            if let Some(e) = &*self.failed.borrow() {
                return Err(Error::own(ErrorKind::Io, e.clone()));
            }
            let item = match &payload {
                Payload::Data(d) => {
                    let part =
                        usize_of(piece.start - range.start)..usize_of(piece.end - range.start);
                    Item::Write(volume, piece, d.slice(part))
                }
                Payload::Zero { punch, .. } => Item::Zero { volume, range: piece, punch: *punch },
            };
            let (done, wait) = futures::channel::oneshot::channel();
            let sequence = self.next_sequence();
            let staged = Staged::new(sequence, item, Some(done));
            if !self.staging.push(staged, || self.ended.get()).await {
                return Err(ended("write was staged"));
            }
            waits.push(wait);
        }
        for wait in waits {
            wait.await.map_err(|_| ended("write was applied"))??;
        }
        Ok(())
    }
}

/// An inbound writer's epoch ends here: everything that it was told is done is in it.
pub(crate) async fn stage_begin_epoch<H: Host>(s: &Rc<Secondary<H>>) -> Result<Epoch> {
    let next = s.open_epoch.get().next();
    let all = VolumeCount::of(s.volumes.len());
    let (done, wait) = futures::channel::oneshot::channel();
    let sequence = s.next_sequence();
    let begin = Staged::new(sequence, Item::BeginEpoch(next, s.host.wall(), all), Some(done));
    if !s.staging.push(begin, || s.ended.get()).await {
        return Err(ended("checkpoint was cut"));
    }
    wait.await.map_err(|_| ended("checkpoint was complete"))??;
    s.changed
        .wait_until(|| {
            s.failed.borrow().is_some() || s.last.get().epoch >= next.previous() || s.ended.get()
        })
        .await;
    if let Some(e) = &*s.failed.borrow() {
        return Err(Error::own(ErrorKind::Io, e.clone()));
    }
    Ok(s.last.get().epoch)
}
