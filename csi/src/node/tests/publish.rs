use super::world::{engine, generation};
use super::*;

const OTHER: &str = "/kubelet/pods/u2/vol-a";

#[tokio::test]
async fn a_pod_gets_the_staged_directory_once_however_often_it_asks() {
    let world = World::served_by("node-a").await;
    world.stage(mount()).await.unwrap();
    for _ in 0..3 {
        world.publish(mount(), TARGET).await.unwrap();
    }
    assert_eq!(world.mounts.targets(), [STAGING, TARGET]);
    for _ in 0..2 {
        world.unpublish(TARGET).await.unwrap();
        assert_eq!(world.mounts.targets(), [STAGING]);
        assert!(!world.mounts.exists(TARGET));
    }
}

#[tokio::test]
async fn a_pod_gets_the_device_itself() {
    let world = World::served_by("node-a").await;
    world.stage(Access::Block).await.unwrap();
    world.publish(Access::Block, TARGET).await.unwrap();
    world.publish(Access::Block, TARGET).await.unwrap();
    assert_eq!(world.mounts.targets(), [TARGET]);
    let fault = world.unstage().await.unwrap_err();
    assert_eq!(fault.problem, Problem::WrongState, "in use: {fault}");
    world.unpublish(TARGET).await.unwrap();
    world.unstage().await.unwrap();
    assert_eq!(world.daemon.device(), None);
}

#[tokio::test]
async fn what_is_not_staged_is_not_published() {
    let world = World::served_by("node-a").await;
    for access in [Access::Block, mount()] {
        let fault = world.publish(access, TARGET).await.unwrap_err();
        assert_eq!(fault.problem, Problem::WrongState);
    }
    // Staged as a block device only.
    world.stage(Access::Block).await.unwrap();
    let fault = world.publish(mount(), TARGET).await.unwrap_err();
    assert_eq!(fault.problem, Problem::WrongState);
    assert!(fault.message.contains(STAGING), "{fault}");
}

#[tokio::test]
async fn reading_only_is_for_one_target_and_not_changed_behind_a_pods_back() {
    let world = World::served_by("node-a").await;
    world.stage(mount()).await.unwrap();
    world.publish_as(mount(), TARGET, false, true).await.unwrap();
    world.publish(mount(), OTHER).await.unwrap();
    let fault = world.publish(mount(), TARGET).await.unwrap_err();
    assert_eq!(fault.problem, Problem::Exists);
    assert_eq!(world.mounts.targets(), [STAGING, TARGET, OTHER]);
}

#[tokio::test]
async fn a_volume_for_one_pod_has_one_target() {
    for access in [Access::Block, mount()] {
        let world = World::served_by("node-a").await;
        world.stage(access.clone()).await.unwrap();
        world.publish_as(access.clone(), TARGET, true, false).await.unwrap();
        world.publish_as(access.clone(), TARGET, true, false).await.unwrap();
        let fault = world.publish_as(access.clone(), OTHER, true, false).await.unwrap_err();
        assert_eq!(fault.problem, Problem::WrongState);
        assert!(fault.message.contains(TARGET), "{fault}");
        world.unpublish(TARGET).await.unwrap();
        world.publish_as(access, OTHER, true, false).await.unwrap();
    }
}

#[tokio::test]
async fn a_new_pod_on_the_same_node_gets_the_promoted_volume_though_nothing_is_staged_anew() {
    for access in [Access::Block, mount()] {
        let world = World::served_by("node-b").await;
        world.stage(access.clone()).await.unwrap();
        world.publish(access.clone(), TARGET).await.unwrap();
        // Failover; the old pod goes, and the kubelet skips staging for the new one.
        world.move_to("node-c", 2);
        world.daemon.set_state(DeviceState::Gone);
        world.unpublish(TARGET).await.unwrap();
        world.publish(access.clone(), OTHER).await.unwrap();
        let device = world.daemon.device().unwrap();
        assert_eq!((device.generation, device.engine), (generation(2), engine("node-c")));
        let staged: &[&str] = if access == Access::Block { &[OTHER] } else { &[STAGING, OTHER] };
        assert_eq!(world.mounts.targets(), staged);
    }
}

#[tokio::test]
async fn while_the_old_pod_is_there_a_new_one_waits_for_it_to_go() {
    let world = World::served_by("node-b").await;
    world.stage(mount()).await.unwrap();
    world.publish(mount(), TARGET).await.unwrap();
    world.move_to("node-c", 2);
    world.daemon.set_state(DeviceState::Gone);
    let fault = world.publish(mount(), OTHER).await.unwrap_err();
    assert_eq!(fault.problem, Problem::WrongState);
    assert!(fault.message.contains(TARGET), "{fault}");
}

#[tokio::test]
async fn taking_away_needs_no_api_server() {
    let world = World::served_by("node-a").await;
    world.stage(mount()).await.unwrap();
    world.publish(mount(), TARGET).await.unwrap();
    // As if every look at objects failed: this volume can't be read any more.
    world.volumes.edit(&handle("vol-a"), |object| object.spec.pool = Some("?".to_owned()));
    world.unpublish(TARGET).await.unwrap();
    world.unstage().await.unwrap();
    assert_eq!(world.mounts.targets(), Vec::<String>::new());
    assert_eq!(world.daemon.device(), None);
}
