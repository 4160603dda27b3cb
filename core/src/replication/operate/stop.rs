//! Stop: the replication ends, and both replicas keep its last checkpoint.

use super::super::checkpoint;
use super::super::group::Group;
use super::super::machine::Operation;
use crate::disk::{Error, ErrorKind, Host, Result};
use crate::overlay::{Role, Stage};
use crate::units::{Epoch, Generation};

/// How long a stop waits for the secondary's word that it has stopped too.
const STOP_MAX: std::time::Duration = std::time::Duration::from_secs(10);

impl<H: Host> Group<H> {
    /// Ends replication: a last checkpoint, then both replicas keep it and go solo. With
    /// `abandon_peer` at once and without the other side; a secondary gives its copy up then.
    pub async fn stop(&self, generation: Generation, abandon_peer: bool) -> Result<()> {
        let _turn = self.turn().await?;
        if !self.allow(Operation::Stop)? {
            return Ok(());
        }
        self.check_generation(generation)?;
        let Some((p, _)) = self.primary() else { return self.stop_secondary(abandon_peer).await };
        let Some(peer) = p.peer.borrow().clone() else { return Ok(()) };
        if !abandon_peer {
            peer.leg.closing.set(true);
            let ended = match checkpoint::ask(&p, &peer).await {
                Ok(epoch) => checkpoint::last(&p, &peer, epoch, STOP_MAX).await,
                Err(e) => Err(e),
            };
            peer.leg.closing.set(false);
            if let Err(e) = ended {
                // The replication goes on; what was written meanwhile is missing and gets sent.
                peer.leg.acknowledged();
                return Err(e);
            }
        }
        self.0
            .store
            .update(|s| {
                s.peer_address = None;
                s.anew = false;
                s.record = s.record.max(peer.last.get().epoch);
                s.joined = peer.leg.joined();
            })
            .await?;
        *p.peer.borrow_mut() = None;
        peer.end_tasks();
        self.0.changed.notify();
        Ok(())
    }

    async fn stop_secondary(&self, abandon_peer: bool) -> Result<()> {
        if !abandon_peer {
            return Err(Error::own(
                ErrorKind::NotPermitted,
                "a replication is stopped at its primary; to give this copy up, stop it with abandon_peer",
            ));
        }
        // What is under way ends first: nothing of this role may reach the next one.
        let running = self.running_secondary();
        if let Some(s) = &running {
            s.cut();
            s.quiet().await;
        }
        let open = running.as_ref().map_or(Epoch::NONE, |s| s.open_epoch.get());
        self.0
            .store
            .update(|s| {
                s.role = Role::None;
                s.stage = Stage::None;
                s.record = Epoch::NONE;
                s.all_joined();
                s.epoch = s.epoch.max(open);
                s.inbound = false;
            })
            .await?;
        self.end_part();
        if let Some(s) = running {
            // The files of its logs are free once the last reader of its view is gone.
            s.chain.complete(Epoch(u64::MAX), s.blank_actives(s.active_id()));
        }
        Ok(())
    }
}
