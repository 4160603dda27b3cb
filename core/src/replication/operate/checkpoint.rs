//! Checkpoint on demand: asked of the primary, or cut for an inbound writer.

use super::super::checkpoint;
use super::super::group::Group;
use super::super::inbound::stage_begin_epoch;
use super::super::machine::Operation;
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
        // One at a time: two would name the same epoch.
        let _turn = self.turn().await?;
        stage_begin_epoch(&s).await
    }
}
