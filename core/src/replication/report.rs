//! What a group says of itself, gathered.

use super::group::{Group, Part};
use super::status::{Checkpoint, GroupStatus, Limits, LinkState};
use crate::disk::Host;
use crate::units::{Epoch, VolumeCount};

impl<H: Host> Group<H> {
    /// Its state now.
    pub fn status(&self) -> GroupStatus {
        let s = self.state();
        let mut out = GroupStatus {
            role: Some((s.role, s.stage)),
            generation: s.generation,
            link: LinkState::Solo,
            epoch: s.epoch,
            checkpoint: Checkpoint {
                epoch: s.record,
                cut: s.record_cut,
                done: s.record_done,
                bytes: s.record_bytes,
            },
            limits: Limits {
                window: s.policy.window,
                undo: s.policy.undo_limit,
                active: s.policy.active_limit,
            },
            counts: self.0.counters.now(),
            volumes: VolumeCount::of(s.members.len()),
            joined: s.joined,
            intent_syncs: self.0.intent.borrow().as_ref().map_or(0, |i| i.commits()),
            ..GroupStatus::default()
        };
        drop(s);
        out.error = self.error();
        match &*self.0.part.borrow() {
            Part::Idle => {}
            Part::Primary(p, promoted) => {
                if let Some(q) = promoted {
                    out.commit = q.progress();
                }
                let Some(peer) = &*p.peer.borrow() else {
                    // Without a peer there is nothing to join.
                    out.joined = out.volumes;
                    return out;
                };
                out.joined = peer.leg.joined();
                out.undo = peer.leg.peer_undo();
                out.epoch = peer.leg.open_epoch();
                out.checkpoint = peer.last.get();
                out.at_risk = peer.leg.at_risk_bytes();
                out.missing = peer.leg.missing_bytes();
                out.resync_rate = peer.resync_rate.get();
                let now =
                    peer.trouble.borrow().clone().filter(|now| out.error.as_ref() != Some(now));
                if let Some(now) = now {
                    // The first error is what is to be looked into, the last one what to do now.
                    let first = out.error.take().map(|e| format!("; before that: {e}"));
                    out.error = Some(now + &first.unwrap_or_default());
                }
                out.undo_full = peer.leg.is_undo_full();
                if out.undo_full {
                    // What a person has to do goes first, whatever else went wrong before.
                    let before = out.error.take().map(|e| format!("; before that: {e}"));
                    out.error = Some(format!(
                        "UndoFull: what the peer lacks does not fit into its undo logs; \
                         raise the undo limit, or start anew{}",
                        before.unwrap_or_default()
                    ));
                }
                if let Some(w) = peer.leg.window() {
                    out.window = w.bytes();
                    out.frames = (w.last_queued(), w.acknowledged(), w.applied());
                }
                out.link = if peer.leg.promotable.get()
                    && peer.leg.holding_up() == 0
                    && peer.leg.is_up()
                {
                    LinkState::Running
                } else if !peer.leg.promotable.get() && peer.leg.is_up() {
                    LinkState::Syncing
                } else {
                    LinkState::Degraded
                };
            }
            Part::Secondary(s) => {
                out.epoch = s.open_epoch.get();
                out.checkpoint = s.last.get();
                out.undo = s.undo_bytes();
                out.active = s.active_bytes();
                out.frames = (s.received.get(), s.received.get(), s.applied.get());
                let is_connected = s.session.borrow().is_some() || self.state().inbound;
                out.link = match (is_connected, s.last.get().epoch) {
                    (true, Epoch::NONE) => LinkState::Syncing,
                    (true, _) => LinkState::Running,
                    (false, _) => LinkState::Degraded,
                };
            }
        }
        out
    }
}
