use super::world::SIZE;
use super::*;
use crate::proto::csi;
use crate::proto::csi::node_server::Node as _;
use crate::request::{Expand, Sizes, Stats};

async fn stats(world: &World, path: &str) -> Result<csi::NodeGetVolumeStatsResponse, Fault> {
    world.node().stats(Stats { volume: handle("vol-a"), path: path.into() }).await
}

async fn expand(world: &World, path: &str, least: u64) -> Result<i64, Fault> {
    let sizes = Sizes { at_least: Some(least), at_most: None };
    let expand = Expand { volume: handle("vol-a"), path: path.into(), sizes };
    Ok(world.node().expand(expand).await?.capacity_bytes)
}

#[tokio::test]
async fn a_device_tells_its_size_and_a_directory_how_full_it_is() {
    let world = World::served_by("node-a").await;
    world.stage(Access::Block).await.unwrap();
    world.publish(Access::Block, TARGET).await.unwrap();
    let usage = stats(&world, TARGET).await.unwrap().usage;
    assert_eq!((usage.len(), usage[0].total), (1, 8 << 20));
    let world = World::served_by("node-a").await;
    world.stage(mount()).await.unwrap();
    world.publish(mount(), TARGET).await.unwrap();
    let usage = stats(&world, TARGET).await.unwrap().usage;
    let units: Vec<i32> = usage.iter().map(|usage| usage.unit).collect();
    assert_eq!(units, [1, 2]);
    assert_eq!((usage[0].total, usage[0].used, usage[0].available), (100, 40, 60));
}

#[tokio::test]
async fn a_path_where_the_volume_is_not_has_no_figures() {
    let world = World::served_by("node-a").await;
    assert_eq!(stats(&world, TARGET).await.unwrap_err().problem, Problem::NotFound);
    world.stage(mount()).await.unwrap();
    for path in [TARGET, "some/path", "/dev/loop7"] {
        assert_eq!(stats(&world, path).await.unwrap_err().problem, Problem::NotFound, "{path}");
    }
}

#[tokio::test]
async fn a_device_that_is_over_is_an_abnormal_volume() {
    let world = World::served_by("node-a").await;
    world.stage(mount()).await.unwrap();
    for (state, abnormal) in
        [(DeviceState::Serving, false), (DeviceState::Waiting, true), (DeviceState::Gone, true)]
    {
        world.daemon.set_state(state);
        let condition = stats(&world, STAGING).await.unwrap().volume_condition.unwrap();
        assert_eq!(condition.abnormal, abnormal, "{state}");
    }
}

#[tokio::test]
async fn a_volume_grows_on_the_node_with_its_file_system_if_it_has_one() {
    for (access, grown) in [(Access::Block, 0), (mount(), 1)] {
        let world = World::served_by("node-a").await;
        world.stage(access.clone()).await.unwrap();
        world.publish(access, TARGET).await.unwrap();
        world.grow(2 * SIZE);
        assert_eq!(expand(&world, TARGET, 2 * SIZE).await.unwrap(), 16 << 20);
        assert_eq!(world.mounts.grown(), grown);
    }
}

#[tokio::test]
async fn a_volume_that_has_not_grown_at_its_engine_is_waited_for() {
    let world = World::served_by("node-a").await;
    world.stage(mount()).await.unwrap();
    let fault = expand(&world, STAGING, 2 * SIZE).await.unwrap_err();
    assert_eq!(fault.problem, Problem::Unavailable);
    assert_eq!(world.mounts.grown(), 0);
}

#[tokio::test]
async fn what_is_not_here_does_not_grow_here() {
    let world = World::served_by("node-a").await;
    assert_eq!(expand(&world, TARGET, 1).await.unwrap_err().problem, Problem::NotFound);
    world.stage(mount()).await.unwrap();
    assert_eq!(expand(&world, "some/path", 1).await.unwrap_err().problem, Problem::NotFound);
}

#[tokio::test]
async fn a_node_tells_its_name_its_topology_and_how_many_volumes_it_takes() {
    let world = World::served_by("node-a").await;
    let node = world.node();
    let info = node.node_get_info(tonic::Request::new(csi::NodeGetInfoRequest {}));
    let info = info.await.unwrap().into_inner();
    assert_eq!((info.node_id.as_str(), info.max_volumes_per_node), ("node-a", 7));
    let segments = info.accessible_topology.unwrap().segments;
    assert_eq!(segments[crate::TOPOLOGY_NODE], "node-a");
    assert_eq!(segments[crate::TOPOLOGY_INSTALLATION], "prod");
}
