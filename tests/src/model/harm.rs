//! Faults of disks that a history asks for, and what both sides must say of themselves.

use std::time::Duration;

use understudy_core::disk::{Error, ErrorKind};
use understudy_core::replication::LinkState;
use understudy_core::sim::{Failure, Held, Operation};
use understudy_core::units::ByteRange;

use super::broken::Broken;
use super::plan::Death;
use super::player::Player;
use super::world::Side;

/// A batch of an undo log that later ones prove to have been durable: where a byte of it is.
struct Victim {
    path: String,
    at: u64,
    byte: u8,
}

impl Player {
    /// The next flush of a disk fails.
    pub(super) fn flush_error(&mut self, side: usize, volume: usize) {
        if self.sides[side].slot.is_empty() {
            return;
        }
        self.shared.injected.set(true);
        self.poisoned[side] = true;
        let path = format!("volumes/v{volume}/disk");
        self.sides[side].host.inject(&path, Operation::Flush, Failure::Nth(0));
    }

    /// The pool of a side runs full: of the requests that may take space these find none.
    pub(super) fn pool_full(&mut self, side: usize, failure: Failure) {
        self.full[side] = failure != Failure::Never;
        self.shared.ran_full.set(self.shared.ran_full.get() || self.full[side]);
        let host = &self.sides[side].host;
        let refuse = |path: &str, operation| {
            host.inject_kind(path, operation, failure, ErrorKind::NoSpace);
        };
        for file in 0..8 {
            refuse(&format!("groups/g/undo-{file}"), Operation::Create);
        }
        for v in 0..self.setting.sizes.len() {
            for file in ["disk", "active-0", "active-1", "active-map-0", "active-map-1"] {
                refuse(&format!("volumes/v{v}/{file}"), Operation::Write);
            }
        }
    }

    /// A side is given another policy, the other side not.
    pub(super) async fn set_policy(&mut self, side: usize, which: usize) {
        let Some(policy) = self.setting.policies.get(which).cloned() else { return };
        let Some(group) = self.group(side).filter(|_| !self.frozen[side]) else { return };
        if side == self.primary {
            self.setting.policy = policy.clone();
        }
        let generation = self.generation;
        let r = self.call(side, async move { group.set_policy(generation, policy).await }).await;
        if let Some(Err(e)) = r
            && !matches!(e.kind(), ErrorKind::Stale | ErrorKind::NotPermitted)
        {
            self.shared.fail(Broken::Bounded, format!("a policy can't be set: {e:?}"));
        }
    }

    /// No request of a side's disks fails any more, once they are opened anew.
    pub(super) fn heal_disks(&mut self, side: usize) {
        self.poisoned[side] = false;
        for v in 0..self.setting.sizes.len() {
            let path = format!("volumes/v{v}/disk");
            for operation in [Operation::Write, Operation::Flush] {
                self.sides[side].host.inject(&path, operation, Failure::Never);
            }
        }
    }

    /// Both sides name one checkpoint when the link has been up for a while and nothing is under way:
    /// a record whose answer was lost is learnt from the next hello (invariant 3). Silence is taken for
    /// life for 5 s, so it may take 10.
    pub(super) async fn agree(&self) {
        let (mut calm, mut seen) = (0, None);
        for _ in 0..1500 {
            let both = [self.primary, self.secondary()].map(|side| self.status(side));
            let [Some(p), Some(s)] = both else { return };
            let up = [&p, &s].iter().all(|side| side.link == LinkState::Running);
            if !up || self.frozen != [false; 2] || self.poisoned != [false; 2] || self.partitioned {
                return;
            }
            let now = (p.checkpoint.epoch, s.checkpoint.epoch, p.epoch);
            if now.0 == now.1 {
                return;
            }
            calm = if seen == Some(now) { calm + 1 } else { 0 };
            seen = Some(now);
            if calm == 500 {
                let text = format!(
                    "the link is up, yet the primary says checkpoint {}, the secondary {}",
                    now.0, now.1
                );
                return self.shared.fail(Broken::Checkpoint, text);
            }
            self.sim.pause(Duration::from_millis(20)).await;
        }
    }

    /// The secondary is killed, a byte of a durable batch rots, it is started again. Either it says
    /// so, or nothing needs that batch. Said so, the byte is put back.
    pub(super) async fn rot(&mut self, place: u64) {
        let side = self.secondary();
        if !self.paired {
            return;
        }
        self.die(side, Death::Kill);
        // What the killed process had in flight has landed by then.
        self.sim.pause(Duration::from_millis(700)).await;
        let Some(victim) = self.victim(side, place) else { return self.restart(side).await };
        let host = self.sides[side].host.clone();
        host.poke(&victim.path, victim.at, &[victim.byte ^ 0x10]);
        let said: fn(&Error) -> bool = |e| e.kind() == ErrorKind::Corrupt;
        match Side::reopen(&self.sim, side, |_| {}).await {
            Err(e) if said(&e) => {
                self.sim.kill(super::world::NAMES[side]);
                host.poke(&victim.path, victim.at, &[victim.byte]);
                self.restart(side).await;
            }
            Err(e) => {
                let text = format!("side {side} can't be opened after rot: {e:?}");
                self.shared.fail(Broken::Restart, text);
            }
            Ok(Some(new)) => {
                self.deaths[side] = None;
                self.opened_again(side, new);
                self.verify_view().await;
            }
            Ok(None) => {
                self.deaths[side] = Some(Death::Crash);
                host.poke(&victim.path, victim.at, &[victim.byte]);
            }
        }
    }

    /// A byte in the first batch of some log that has a second one.
    fn victim(&self, side: usize, place: u64) -> Option<Victim> {
        let host = &self.sides[side].host;
        let block =
            |path: &str, at: u64| host.peek(path, ByteRange::new(at, at + 4096), Held::Volatile);
        let word = |block: &[u8], at: usize| {
            block.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
        };
        let mut found = Vec::new();
        for number in 0..8 {
            let path = format!("groups/g/undo-{number}");
            let Some(first) = block(&path, 0) else { break };
            let header_len = word(&first, 64) & u64::from(u32::MAX);
            let second_at = header_len.saturating_add(word(&first, 72));
            if word(&first, 40) != 1 || header_len % 4096 != 0 || second_at > 1 << 20 {
                continue;
            }
            let Some(second) = block(&path, second_at) else { continue };
            let same = first.get(..8) == second.get(..8) && first.get(16..32) == second.get(16..32);
            if same && word(&second, 40) == 2 {
                let at = place % second_at;
                let byte = block(&path, at / 4096 * 4096)?
                    .get(usize::try_from(at % 4096).ok()?)
                    .copied()?;
                found.push(Victim { path, at, byte });
            }
        }
        let pick = usize::try_from(place >> 32).unwrap_or(0).checked_rem(found.len())?;
        Some(found.swap_remove(pick))
    }
}
