//! When a status is worth a write: pure.
//!
//! What somebody waits for or acts upon is written at once. Figures that move with every checkpoint
//! are written now and then; live ones are in the engines' metrics.

use std::time::Duration;

use understudy_crds::BlockReplicationStatus;

/// How long "seen last at" may lag while nothing else changes.
const SEEN_INTERVAL: Duration = Duration::from_mins(1);

/// Whether the status is to be written now, `since` after it was last written.
pub fn is_due(
    written: &BlockReplicationStatus,
    now: &BlockReplicationStatus,
    since: Duration,
    interval: Duration,
) -> bool {
    if essence(written) != essence(now) {
        return true;
    }
    if since < interval {
        return false;
    }
    without_times(written) != without_times(now) || (since >= SEEN_INTERVAL && written != now)
}

/// The status without what moves by itself.
fn essence(status: &BlockReplicationStatus) -> BlockReplicationStatus {
    let mut status = without_times(status);
    // Whether there is one is news; which one is a figure.
    if let Some(checkpoint) = &mut status.checkpoint {
        (checkpoint.epoch, checkpoint.bytes) = (0, 0);
        (checkpoint.cut_time, checkpoint.completion_time) = (None, None);
    }
    status.epoch = None;
    status.bytes_at_risk = None;
    for joining in &mut status.joining {
        joining.sent_percent = None;
    }
    for replica in &mut status.replicas {
        replica.checkpoint = replica.checkpoint.map(|n| n.min(1));
        replica.missing_bytes = None;
        replica.missing_seconds = None;
        replica.undo_bytes = None;
        replica.merged_bytes = None;
    }
    for condition in &mut status.conditions {
        // Messages count figures; what changes in kind changes its reason.
        condition.message.retain(|c| !c.is_ascii_digit());
    }
    status
}

fn without_times(status: &BlockReplicationStatus) -> BlockReplicationStatus {
    let mut status = status.clone();
    for replica in &mut status.replicas {
        replica.observed_time = None;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_crds::block_replication_status::{CheckpointStatus, State};

    #[test]
    fn a_change_of_state_is_written_at_once_and_a_checkpoint_when_its_time_has_come() {
        let interval = Duration::from_secs(10);
        let checkpoint =
            |epoch| CheckpointStatus { epoch, cut_time: None, completion_time: None, bytes: epoch };
        let before = BlockReplicationStatus {
            state: Some(State::Running),
            checkpoint: Some(checkpoint(4)),
            ..BlockReplicationStatus::default()
        };
        let later = BlockReplicationStatus { checkpoint: Some(checkpoint(5)), ..before.clone() };
        assert!(!is_due(&before, &later, Duration::from_secs(9), interval));
        assert!(is_due(&before, &later, Duration::from_secs(10), interval));
        let degraded = BlockReplicationStatus { state: Some(State::Degraded), ..before.clone() };
        assert!(is_due(&before, &degraded, Duration::ZERO, interval));
        let none = BlockReplicationStatus { checkpoint: None, ..before.clone() };
        assert!(is_due(&none, &before, Duration::ZERO, interval), "the first checkpoint");
        assert!(!is_due(&before, &before, Duration::from_hours(1), interval));
    }
}
