//! One operation a volume: whoever comes second is told to try again.
//!
//! ```text
//!   take(volume) ─► Guard ── dropped, however the call ended ─► free
//!        └─ taken ─► ABORTED
//! ```

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use understudy_core::engine::api::VolumeId;

use crate::fault::{Fault, Problem};

/// The volumes that have an operation under way. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Guards {
    taken: Arc<Mutex<HashSet<VolumeId>>>,
}

impl Guards {
    /// The right to work on a volume.
    pub fn take(&self, volume: &VolumeId) -> Result<Guard, Fault> {
        if self.lock().insert(volume.clone()) {
            return Ok(Guard { guards: self.clone(), volume: volume.clone() });
        }
        let text = format!("another operation on volume {volume} is under way: try again later");
        Err(Fault::new(Problem::Busy, text))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<VolumeId>> {
        // Nothing that could panic happens under the lock.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to work on a volume, until it is dropped.
#[derive(Debug)]
pub struct Guard {
    guards: Guards,
    volume: VolumeId,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.guards.lock().remove(&self.volume);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_operation_on_a_volume_is_told_to_try_again() {
        let guards = Guards::default();
        let (a, b) = ("vol-a".parse().unwrap(), "vol-b".parse().unwrap());
        let first = guards.take(&a).unwrap();
        let refused = guards.take(&a).unwrap_err();
        assert_eq!(refused.problem, Problem::Busy);
        assert!(refused.message.contains("vol-a"), "{refused}");
        let _other = guards.take(&b).unwrap();
        drop(first);
        let _again = guards.take(&a).unwrap();
    }

    #[test]
    fn a_volume_is_free_again_after_a_panic() {
        let guards = Guards::default();
        let volume: VolumeId = "vol-a".parse().unwrap();
        let inner = guards.clone();
        let name = volume.clone();
        let crashed = std::thread::spawn(move || {
            let _guard = inner.take(&name).unwrap();
            panic!("as a bug would");
        });
        assert!(crashed.join().is_err());
        let _again = guards.take(&volume).unwrap();
    }
}
