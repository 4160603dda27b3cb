//! The operations of the filter: start, checkpoint, get_error, stop, failover. One at a time.
//!
//! Each is: is it allowed (`machine`)? ─► everything that can fail, without a trace ─► one write of
//! the superblock ─► the new part. So an operation that fails leaves what was.

mod checkpoint;
mod failover;
mod start;
mod stop;

pub use failover::FailoverSpec;
pub use start::StartSpec;

use super::group::{Group, Part};
use super::machine::{Operation, Verdict, decide};
use crate::disk::{Error, ErrorKind, Host, Result};
use crate::overlay::{HISTORY_MAX, Policy, RangeGuard};
use crate::units::{ByteRange, Epoch, Generation, Uuid};

impl<H: Host> Group<H> {
    fn allow(&self, operation: Operation) -> Result<bool> {
        let (verdict, name) = {
            let s = self.state();
            (decide(s.role, s.stage, s.record != Epoch::NONE, operation), s.group.clone())
        };
        match verdict {
            Verdict::Go => Ok(true),
            Verdict::Ignore => Ok(false),
            Verdict::Refuse(why) => {
                Err(Error::own(ErrorKind::NotPermitted, format!("group {name}: {why}")))
            }
        }
    }

    /// Refuses a generation that is not the group's.
    fn check_generation(&self, asked: Generation) -> Result<()> {
        let s = self.state();
        if asked == s.generation {
            return Ok(());
        }
        Err(Error::own(
            ErrorKind::Stale,
            format!("group {} is of generation {}, the call is for {asked}", s.group, s.generation),
        ))
    }

    /// Waits for the operations before this one; an error if the group was closed meanwhile.
    async fn turn(&self) -> Result<RangeGuard> {
        let turn = self.0.turn.lock(ByteRange::new(0, 1)).await;
        if self.0.closed.get() {
            let text = format!("group {} is being changed: try again", self.state().group);
            return Err(Error::own(ErrorKind::Disconnected, text));
        }
        Ok(turn)
    }

    fn new_active_id(&self, slot: u128) -> Uuid {
        let random = u128::from(self.0.host.random()) << 64 | u128::from(self.0.host.random());
        Uuid((random & !1) | slot)
    }

    fn end_part(&self) {
        match std::mem::replace(&mut *self.0.part.borrow_mut(), Part::Idle) {
            Part::Idle => {}
            Part::Primary(p, _) => p.end(),
            Part::Secondary(s) => s.end(),
        }
    }

    /// Changes interval, limits and mode of a running group.
    pub async fn set_policy(&self, generation: Generation, policy: Policy) -> Result<()> {
        let _turn = self.turn().await?;
        self.check_generation(generation)?;
        self.0.store.update(|s| s.policy = policy.clone()).await?;
        self.0.logs.set_limit(policy.undo_limit);
        if let Some((p, _)) = self.primary() {
            if let Some(peer) = &*p.peer.borrow() {
                peer.leg.set_policy(&policy);
            }
            *p.policy.borrow_mut() = policy;
        }
        self.0.changed.notify();
        Ok(())
    }

    /// The first error that no later checkpoint has cleared.
    pub fn get_error(&self, generation: Generation) -> Result<Option<String>> {
        if !self.allow(Operation::GetError)? {
            return Ok(None);
        }
        self.check_generation(generation)?;
        Ok(self.error())
    }

    pub(crate) fn error(&self) -> Option<String> {
        match &*self.0.part.borrow() {
            Part::Idle => None,
            Part::Primary(p, promoted) => {
                let failed = promoted.as_ref().and_then(|q| q.failure.borrow().clone());
                failed.or_else(|| {
                    p.peer.borrow().as_ref().and_then(|peer| peer.error.borrow().clone())
                })
            }
            Part::Secondary(s) => {
                s.error.borrow().clone().or_else(|| self.0.inbound_error.borrow().clone())
            }
        }
    }
}

pub(super) fn set_generation(
    current: &mut Generation,
    history: &mut Vec<Generation>,
    new: Generation,
) {
    if *current == new {
        return;
    }
    if current.number != 0 {
        history.push(*current);
        let surplus = history.len().saturating_sub(HISTORY_MAX);
        history.drain(..surplus);
    }
    *current = new;
}
