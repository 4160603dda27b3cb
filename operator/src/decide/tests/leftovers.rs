//! What is deleted because nobody names it, and what is only told.

use understudy_core::engine::api::Generation;
use understudy_core::units::ByteLen;

use super::Bench;
use crate::decide::leftovers::{Leftover, leftovers};
use crate::engines::Engines;
use crate::store::Store;

async fn found(bench: &Bench) -> Vec<Leftover> {
    let mut engines = std::collections::BTreeMap::new();
    for node in ["a", "b", "c"] {
        engines.insert(node.to_owned(), Engines::status(&bench.world, node).await.unwrap());
    }
    let volumes = bench.world.volumes.lock().unwrap().clone().unwrap();
    leftovers(&volumes, &bench.world.groups().await.unwrap(), &engines)
}

fn copy_to_c(bench: &Bench, from: &str) {
    let mut machines = bench.world.machines();
    let from = machines[from].clone();
    let c = machines.get_mut("c").unwrap();
    c.replicas = from.replicas;
    c.groups = from.groups;
}

#[tokio::test]
async fn nothing_that_a_volume_or_its_group_names_is_left_over() {
    let bench = Bench::cluster();
    assert_eq!(found(&bench).await, []);
    bench.run().await;
    assert_eq!(found(&bench).await, []);
}

#[tokio::test]
async fn an_older_replica_elsewhere_is_stopped_and_deleted_once_the_group_is_whole() {
    let mut bench = Bench::cluster();
    bench.run().await;
    copy_to_c(&bench, "b");
    bench.order_failover("b");
    bench.once().await;
    // The old primary may be all there is besides b.
    assert_eq!(found(&bench).await, []);
    bench.run().await;
    let left = found(&bench).await;
    let places: Vec<_> = left.iter().map(|l| (l.node.as_str(), l.volume.as_str())).collect();
    assert_eq!(places, [("c", "data"), ("c", "root")]);
    for leftover in left {
        for call in &leftover.calls {
            bench.world.run("c", call).await.unwrap();
        }
    }
    assert_eq!(found(&bench).await, []);
}

#[tokio::test]
async fn what_is_not_proven_older_is_told_and_left() {
    let bench = Bench::cluster();
    copy_to_c(&bench, "a");
    assert!(found(&bench).await.iter().all(|l| l.calls.is_empty()), "the same generation");
    for held in bench.world.machines().get_mut("c").unwrap().groups.values_mut() {
        held.generation = Generation { number: 0, id: 1 };
    }
    assert!(found(&bench).await.iter().all(|l| l.calls.len() == 1), "an older one");
    let volume = "unknown".parse().unwrap();
    bench.world.machines().get_mut("c").unwrap().replicas.clear();
    bench.world.machines().get_mut("c").unwrap().groups.clear();
    bench.world.machines().get_mut("c").unwrap().replicas.insert(volume, ByteLen(512));
    assert_eq!(found(&bench).await[0].calls, [], "no volume says anything of it");
}
