//! Checkpoint on demand: asked of the primary, or cut for an inbound writer.

use std::rc::Rc;

use super::super::checkpoint;
use super::super::group::Group;
use super::super::machine::Operation;
use super::super::secondary::{Item, Secondary, Staged};
use crate::disk::{Error, ErrorKind, Host, Result};
use crate::units::{Epoch, Generation};

impl<H: Host> Group<H> {
    /// Closes the open epoch and waits until its checkpoint is complete; says its number.
    pub async fn checkpoint(&self, generation: Generation) -> Result<Epoch> {
        if !self.allow(Operation::Checkpoint)? {
            return Ok(self.state().record);
        }
        self.check_generation(generation)?;
        if let Some((p, _)) = self.primary() {
            let peer = p.peer.borrow().clone();
            let peer = peer.ok_or_else(|| {
                Error::own(
                    ErrorKind::NotPermitted,
                    "this primary is solo: start it with a peer to make checkpoints",
                )
            })?;
            return checkpoint::ask(&p, &peer).await;
        }
        let s = self
            .running_secondary()
            .ok_or_else(|| Error::own(ErrorKind::NotPermitted, "the group plays no role here"))?;
        if !self.state().inbound {
            return Err(Error::own(
                ErrorKind::NotPermitted,
                "checkpoints are cut by the primary: ask it",
            ));
        }
        if let Some(e) = &*self.0.inbound_error.borrow() {
            return Err(Error::own(
                ErrorKind::Io,
                format!("no checkpoint before a new start and full copy: {e}"),
            ));
        }
        stage_begin_epoch(&s).await
    }
}

/// An inbound writer's epoch ends here: everything that it was told is done is in it.
async fn stage_begin_epoch<H: Host>(s: &Rc<Secondary<H>>) -> Result<Epoch> {
    let next = s.open_epoch.get().next();
    let (done, wait) = futures::channel::oneshot::channel();
    let sequence = s.next_sequence();
    s.staging.push(Staged::new(sequence, Item::BeginEpoch(next, s.host.wall()), Some(done))).await;
    wait.await.map_err(|_| {
        Error::own(ErrorKind::Stale, "the role ended while the checkpoint was under way")
    })??;
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
