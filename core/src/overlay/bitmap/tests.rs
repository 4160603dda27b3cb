use super::*;
use crate::overlay::tests::Random;
use std::collections::BTreeSet;

fn of_clusters(first: u64, end: u64) -> ByteRange {
    ByteRange::new(first * CLUSTER, end * CLUSTER)
}

#[test]
fn what_is_not_aligned_is_rounded_out() {
    let mut set = Bitmap::new();
    assert_eq!(set.set(ByteRange::new(4000, 4100)), 2);
    assert_eq!(set.set(ByteRange::new(0, 1)), 0);
    assert_eq!(set.set(ByteRange::new(9000, 9000)), 0);
    assert!(set.intersects(ByteRange::new(8000, 9000)));
    assert!(!set.intersects(ByteRange::new(8192, 9000)));
    assert_eq!(set.clear(ByteRange::new(4096, 4097)), 1);
    assert_eq!(set.ranges().collect::<Vec<_>>(), [of_clusters(0, 1)]);
}

#[test]
fn a_whole_large_volume_is_set_and_cleared_fast() {
    let mut set = Bitmap::new();
    assert_eq!(set.set(ByteRange::new(0, 1 << 40)), 1 << 28);
    assert_eq!(set.next_range(0, u64::MAX), Some(ByteRange::new(0, 1 << 40)));
    assert_eq!(set.next_range(5, 8192), Some(ByteRange::new(0, 8192)));
    assert_eq!(set.clear(ByteRange::new(4096, 8192)), 1);
    assert_eq!(set.next_range(4096, 1), Some(ByteRange::new(8192, 12288)));
    assert_eq!(set.clear(ByteRange::new(0, u64::MAX)), (1 << 28) - 1);
    assert_eq!(set, Bitmap::new());
}

#[test]
fn it_is_the_set_that_a_tree_of_clusters_would_be() {
    let mut random = Random::from_environment("bitmap");
    for _ in 0..60 {
        let (mut set, mut model) = (Bitmap::new(), BTreeSet::new());
        let (mut other, mut other_model) = (Bitmap::new(), BTreeSet::new());
        for _ in 0..60 {
            let first = random.below(3 * CHUNK);
            let long = if random.below(4) == 0 { 2 * CHUNK } else { 70 };
            let end = first + random.below(long);
            let range = of_clusters(first, end);
            match random.below(4) {
                0 => {
                    let before = model.len();
                    model.retain(|c| !(first..end).contains(c));
                    assert_eq!(set.clear(range), u64_of(before - model.len()));
                }
                1 => {
                    other.set(range);
                    other_model.extend(first..end);
                }
                _ => {
                    let before = model.len();
                    model.extend(first..end);
                    assert_eq!(set.set(range), u64_of(model.len() - before));
                }
            }
            assert_eq!(set.clusters(), u64_of(model.len()));
            let probe = random.below(5 * CHUNK);
            assert_eq!(set.contains(ClusterIndex(probe)), model.contains(&probe));
            let window = of_clusters(probe, probe + random.below(200));
            let hit = model.range(probe..window.end / CLUSTER).next().is_some();
            assert_eq!(set.intersects(window), hit && !window.is_empty());
            let next = model.range(probe..).next().copied();
            let found = set.next_range(probe * CLUSTER, 64 * CLUSTER);
            assert_eq!(found.map(|f| f.start / CLUSTER), next);
            if let Some(found) = found {
                assert!(found.len() <= 64 * CLUSTER);
                assert!(found.clusters().all(|c| model.contains(&c.0)));
                let whole = found.len() == 64 * CLUSTER || !model.contains(&(found.end / CLUSTER));
                assert!(whole, "{found:?} stops too early");
            }
            if !window.is_empty() {
                let (on, run) = set.run(window);
                assert!(run.clusters().all(|c| model.contains(&c.0) == on));
                assert!(run.end == window.end || model.contains(&(run.end / CLUSTER)) != on);
            }
        }
        let listed: Vec<u64> = set.ranges().flat_map(ByteRange::clusters).map(|c| c.0).collect();
        assert_eq!(listed, model.iter().copied().collect::<Vec<_>>());
        set.union_with(&other);
        model.extend(&other_model);
        let mut rebuilt = Bitmap::new();
        for cluster in &model {
            rebuilt.set(ClusterIndex(*cluster).range());
        }
        assert_eq!(set, rebuilt);
    }
}
