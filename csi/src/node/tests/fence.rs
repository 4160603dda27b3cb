use super::*;

async fn looked_after(state: DeviceState, node: &str, number: u64) -> Vec<String> {
    let world = World::served_by("node-b").await;
    world.stage(Access::Block).await.unwrap();
    world.daemon.set_state(state);
    world.move_to(node, number);
    world.node().fence_once().await.unwrap();
    world.daemon.calls()
}

#[tokio::test]
async fn a_device_that_waits_for_a_replaced_engine_fails() {
    let calls = looked_after(DeviceState::Waiting, "node-c", 2).await;
    assert_eq!(calls, ["attach", "fail"]);
}

#[tokio::test]
async fn every_other_device_is_left_alone() {
    for (state, node, number) in [
        // Its engine restarts.
        (DeviceState::Waiting, "node-b", 1),
        // Its engine restarts, and the volume has joined a group there.
        (DeviceState::Waiting, "node-b", 2),
        // An object from before: a restored etcd.
        (DeviceState::Waiting, "node-c", 0),
        // Its engine answers, and will tell it.
        (DeviceState::Serving, "node-c", 2),
        (DeviceState::Gone, "node-c", 2),
    ] {
        let calls = looked_after(state, node, number).await;
        assert_eq!(calls, ["attach"], "{state} {node} {number}");
    }
}

#[tokio::test]
async fn a_volume_that_can_not_be_read_fails_nothing() {
    let world = World::served_by("node-b").await;
    world.stage(Access::Block).await.unwrap();
    world.daemon.set_state(DeviceState::Waiting);
    world.volumes.edit(&handle("vol-a"), |object| object.spec.generation = Some("?".to_owned()));
    world.node().fence_once().await.unwrap();
    assert_eq!(world.daemon.calls(), ["attach"]);
}
