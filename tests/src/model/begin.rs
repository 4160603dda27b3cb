//! The start of a pair: at once, or asked for again where it was cut off.

use understudy_core::overlay::Role;
use understudy_core::replication::LinkState;
use understudy_core::units::ByteRange;

use super::broken::Broken;
use super::plan::Kind;
use super::player::Player;
use super::world::spec;

impl Player {
    /// The primary alone, its content, the secondary, the primary with its peer.
    pub(super) async fn begin(&self) -> understudy_core::disk::Result<()> {
        let [Some(a), Some(b)] = [0, 1].map(|side| self.group(side)) else { return Ok(()) };
        let policy = &self.setting.policy;
        let mut solo = spec(Role::Primary, 1, self.generation, policy);
        solo.peer = None;
        a.start(solo).await?;
        self.fill();
        self.settle().await;
        b.start(spec(Role::Secondary, 0, self.generation, policy)).await?;
        a.start(spec(Role::Primary, 1, self.generation, policy)).await
    }

    fn fill(&self) {
        if self.setting.filled {
            for (v, size) in self.setting.sizes.iter().take(self.setting.first).enumerate() {
                self.write(v, ByteRange::new(0, *size), Kind::Data);
            }
        }
    }

    /// The same, each step asked for whatever an earlier attempt has done.
    pub(super) async fn begin_again(&mut self) {
        for side in [0, 1] {
            self.restart(side).await;
        }
        let policy = self.setting.policy.clone();
        let [Some(a), Some(b)] = [0, 1].map(|side| self.group(side)) else { return };
        if a.status().role.is_none_or(|(role, _)| role == Role::None) {
            let mut solo = spec(Role::Primary, 1, self.generation, &policy);
            solo.peer = None;
            let a = a.clone();
            let result = self.call(0, async move { a.start(solo).await }).await;
            if !self.did("started", result.as_ref()) {
                return;
            }
            self.fill();
            self.settle().await;
        }
        let as_secondary = spec(Role::Secondary, 0, self.generation, &policy);
        let result = self.call(1, async move { b.start(as_secondary).await }).await;
        if !self.did("started", result.as_ref()) {
            return;
        }
        let as_primary = spec(Role::Primary, 1, self.generation, &policy);
        let asked = a.clone();
        let result = self.call(0, async move { asked.start(as_primary).await }).await;
        // If its node died meanwhile, the restart says whether it was written.
        self.paired |= result.is_none() || a.status().link != LinkState::Solo;
        self.did("given its peer", result.as_ref());
    }

    /// Whether an operation was done; one that is refused must not be.
    fn did(&self, what: &str, result: Option<&understudy_core::disk::Result<()>>) -> bool {
        if let Some(Err(e)) = result {
            self.shared.fail(Broken::Restart, format!("a side can't be {what}: {e:?}"));
        }
        matches!(result, Some(Ok(())))
    }
}
