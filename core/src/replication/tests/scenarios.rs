//! The life of a pair, step by step.

use super::pair::{G2, Pair, at, fill, pattern, policy};
use crate::disk::Disk;
use crate::replication::ExportKind::{Primary, Secondary, View};
use crate::sim::Sim;
use crate::units::{Epoch, VolumeIndex};

const MIB: u64 = 1 << 20;

#[test]
fn a_secondary_shows_the_last_checkpoint_and_fails_over_to_it() {
    let sim = Sim::new(Sim::seed_or(1));
    let s = sim.clone();
    sim.block_on(async move {
        let pair = Pair::new(&s, &[4 * MIB], Some(0x11)).await;
        pair.start(policy()).await;
        let (p, view, disk) = (pair.volume(Primary), pair.volume(View), pair.volume(Secondary));
        let half = 2 * MIB;
        assert_eq!(pattern(&view, at(0, 4 * MIB)).await, [(0x11, 4 << 20)]);
        fill(&p, at(half, half), 0x22).await.unwrap();
        pair.drain().await;
        assert_eq!(pattern(&disk, at(0, 4 * MIB)).await, [(0x11, 2 << 20), (0x22, 2 << 20)]);
        assert_eq!(pattern(&view, at(0, 4 * MIB)).await, [(0x11, 4 << 20)]);
        let n = pair.checkpoint().await;
        assert_eq!(n, Epoch(2));
        assert_eq!(pattern(&view, at(0, 4 * MIB)).await, [(0x11, 2 << 20), (0x22, 2 << 20)]);
        fill(&p, at(0, MIB), 0x33).await.unwrap();
        fill(&view, at(MIB, 4096), 0x44).await.unwrap();
        pair.drain().await;
        let n = pair.failover(true).await.unwrap();
        assert_eq!(n, Epoch(2));
        let now = pair.secondary.volume(VolumeIndex(0), Primary).unwrap();
        let want = [(0x11, 1 << 20), (0x44, 4096), (0x11, (1 << 20) - 4096), (0x22, 2 << 20)];
        assert_eq!(pattern(&now, at(0, 4 * MIB)).await, want);
        assert!(
            view.read(crate::units::ByteOffset(0), crate::runtime::Buf::new(512)).await.1.is_err()
        );
        pair.wait_for(|p| p.secondary.status().role.unwrap().1 == crate::overlay::Stage::Done)
            .await;
        assert_eq!(pattern(&now, at(0, 4 * MIB)).await, want);
        assert_eq!(pair.secondary.get_error(G2).unwrap(), None);
        fill(&now, at(0, 512), 0x55).await.unwrap();
        assert_eq!(pattern(&now, at(0, 1024)).await, [(0x55, 512), (0x11, 512)]);
    });
}
