//! What is reached when a limit is: said, counted, and survived (invariant 8).

use std::time::Duration;

use super::pair::{G1, Pair, at, fill, pattern, policy, read, run};
use crate::disk::ErrorKind;
use crate::overlay::{Policy, UndoFull};
use crate::replication::ExportKind::{Primary, Secondary, View};
use crate::replication::LinkState;
use crate::sim::Direction;
use crate::units::{ByteRange, Epoch};

const SIZE: u64 = 2 << 20;
const ALL: ByteRange = ByteRange { start: 0, end: SIZE };
const LEN: usize = 2 << 20;
const LIMIT: u64 = 256 << 10;

#[test]
fn a_consumer_s_writes_end_at_the_active_limit_and_go_on_after_a_checkpoint() {
    run(|sim| async move {
        let pair = Pair::new(&sim, &[SIZE], Some(0x11)).await;
        pair.start(Policy { active_limit: LIMIT, ..policy() }).await;
        let v = pair.volume(View);
        fill(&v, at(0, LIMIT), 0x22).await.unwrap();
        let refused = fill(&v, at(LIMIT, 4096), 0x33).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NoSpace);
        assert!(refused.to_string().contains("ActiveFull"), "{refused}");
        // What is there may be overwritten, and zeroes take nothing.
        fill(&v, at(4096, 4096), 0x44).await.unwrap();
        crate::disk::Disk::write_zeroes(&v, at(SIZE / 2, 65536), false).await.unwrap();
        let s = pair.secondary.status();
        assert_eq!((s.active, s.limits.active, s.counts.active_full), (LIMIT, LIMIT, 1));
        // The primary goes on as if nothing were.
        fill(&pair.volume(Primary), ALL, 0x55).await.unwrap();
        pair.checkpoint().await;
        fill(&pair.volume(View), at(LIMIT, 4096), 0x33).await.unwrap();
    });
}

#[test]
fn writes_to_a_promoted_volume_wait_for_the_commit_at_the_active_limit() {
    run(|sim| async move {
        // Several steps of the commit, all in one epoch.
        let size = 16 << 20;
        let pair = Pair::new(&sim, &[size], Some(0x11)).await;
        pair.start(Policy { active_limit: LIMIT, undo_limit: 8 * size, ..policy() }).await;
        fill(&pair.volume(Primary), at(0, size), 0x22).await.unwrap();
        pair.drain().await;
        sim.set_disk_delay(Duration::from_millis(1)..Duration::from_millis(5));
        pair.failover(false).await.unwrap();
        let p = pair.promoted();
        // Where the commit comes last.
        let pieces = at(size - (1 << 20), 1 << 20).pieces(64 << 10);
        let writes: Vec<_> = pieces.map(|piece| fill(&p, piece, 0x33)).collect();
        for written in futures::future::join_all(writes).await {
            written.unwrap();
        }
        let s = pair.secondary.status();
        assert_eq!(s.counts.active_full, 12, "four of sixteen find room: {s:?}");
        pair.merged().await;
        let whole = [(0x11, 15 << 20), (0x33, 1 << 20)];
        assert_eq!(pattern(&p, at(0, size)).await, whole);
    });
}

#[test]
fn by_policy_a_full_undo_space_costs_the_checkpoint_and_the_copy_is_made_whole() {
    run(|sim| async move {
        let policy = Policy {
            undo_limit: 256 << 10,
            undo_full: UndoFull::DropCheckpoint,
            max_delay: Duration::from_millis(300),
            ..policy()
        };
        let pair = Pair::new(&sim, &[2 * SIZE], Some(0x11)).await;
        pair.start(policy).await;
        let sent = pair.primary.status().counts.resync_bytes;
        let p = pair.volume(Primary);
        sim.partition("a", "b", Direction::Both);
        sim.cut("a", "b");
        sim.pause(Duration::from_millis(100)).await;
        fill(&p, ALL, 0x22).await.unwrap();
        assert_eq!(pattern(&pair.volume(View), ALL).await, [(0x11, LEN)]);
        sim.heal("a", "b");
        pair.wait_for(|p| p.primary.status().counts.dropped_checkpoints == 1).await;
        assert_eq!(pair.primary.status().checkpoint.epoch, Epoch::NONE, "nobody may rely on it");
        pair.in_sync().await;
        pair.checkpoint().await;
        assert_eq!(pair.primary.status().link, LinkState::Running);
        let local = read(&p, ByteRange::new(0, 2 * SIZE)).await.unwrap();
        for kind in [Secondary, View] {
            assert!(read(&pair.volume(kind), ByteRange::new(0, 2 * SIZE)).await.unwrap() == local);
        }
        // What was known to be there was not sent again.
        let sent = pair.primary.status().counts.resync_bytes - sent;
        assert!(sent <= SIZE + (512 << 10), "{sent}");
        assert_eq!(pair.primary.get_error(G1).unwrap(), None);
    });
}
