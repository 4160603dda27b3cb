use super::world::{SIZE, engine, generation};
use super::*;
use understudy_core::engine::api::{ByteLen, Refusal};
use understudy_crds::replication_group::{GroupMember, GroupSide, Owner};
use understudy_crds::{ReplicationGroup, ReplicationGroupSpec};

#[tokio::test]
async fn a_volume_that_is_served_here_is_reached_by_unix_sockets() {
    let world = World::served_by("node-a").await;
    world.stage(Access::Block).await.unwrap();
    let device = world.daemon.device().unwrap();
    assert_eq!((device.engine, device.generation), (engine("node-a"), generation(1)));
    assert_eq!(world.mounts.targets(), Vec::<String>::new());
}

#[tokio::test]
async fn a_volume_that_another_node_serves_is_reached_there() {
    let world = World::served_by("node-b").await;
    world.stage(Access::Block).await.unwrap();
    assert_eq!(world.daemon.device().unwrap().engine, engine("node-b"));
}

#[tokio::test]
async fn in_a_group_the_group_object_says_who_serves() {
    let world = World::served_by("node-a").await;
    let side =
        |node: &str| GroupSide { node: node.to_owned(), pool: format!("{:032x}", 1), policy: None };
    let members = vec![GroupMember::new("vol-a", 8 << 20)];
    let spec = ReplicationGroupSpec {
        owner: Owner { namespace: "shop".to_owned(), name: "db".to_owned() },
        generation: generation(4).to_string(),
        members,
        primary: side("node-c"),
        secondary: Some(side("node-a")),
        left_behind: Vec::new(),
        promotion: None,
    };
    world.volumes.edit(&handle("vol-a"), |o| o.spec.group = Some("shop.db".to_owned()));
    let fault = world.stage(Access::Block).await.unwrap_err();
    assert_eq!(fault.problem, Problem::Unavailable, "no such group yet: {fault}");
    world.volumes.put_group(ReplicationGroup::new("shop.db", spec));
    world.stage(Access::Block).await.unwrap();
    let device = world.daemon.device().unwrap();
    assert_eq!((device.engine, device.generation), (engine("node-c"), generation(4)));
}

#[tokio::test]
async fn a_volume_that_joins_a_group_is_served_as_before_and_after_a_failover_when_that_is_decided()
{
    let table = [
        (Some(generation(4)), Some(("node-a", generation(1)))),
        (None, Some(("node-c", generation(4)))),
        (Some(generation(2)), None),
    ];
    for (joining, served) in table {
        let world = World::served_by("node-a").await;
        let side = |node: &str| GroupSide {
            node: node.to_owned(),
            pool: format!("{:032x}", 1),
            policy: None,
        };
        let mut member = GroupMember::new("vol-a", 8 << 20);
        member.joining = joining.map(|g| g.to_string());
        let spec = ReplicationGroupSpec {
            owner: Owner { namespace: "shop".to_owned(), name: "db".to_owned() },
            generation: generation(4).to_string(),
            members: vec![GroupMember::new("vol-b", 8 << 20), member],
            primary: side("node-c"),
            secondary: None,
            left_behind: Vec::new(),
            promotion: None,
        };
        world.volumes.put_group(ReplicationGroup::new("shop.db", spec));
        world.volumes.edit(&handle("vol-a"), |o| o.spec.group = Some("shop.db".to_owned()));
        let staged = world.stage(Access::Block).await;
        match served {
            Some((node, generation)) => {
                staged.unwrap();
                let device = world.daemon.device().unwrap();
                assert_eq!((device.engine, device.generation), (engine(node), generation));
            }
            None => assert_eq!(staged.unwrap_err().problem, Problem::Unavailable),
        }
    }
}

#[tokio::test]
async fn a_blank_volume_gets_an_ext4_once_and_is_mounted_once() {
    let world = World::served_by("node-a").await;
    for _ in 0..3 {
        world.stage(mount()).await.unwrap();
    }
    assert_eq!(world.mounts.targets(), [STAGING]);
    assert_eq!(world.mounts.formatted(), 1);
    assert_eq!(world.daemon.calls(), ["attach"]);
}

#[tokio::test]
async fn an_ext4_is_kept_an_unfinished_one_made_anew_anything_else_left_alone() {
    for (content, formatted, ok) in [
        (Content::Ext4, 0, true),
        (Content::Unfinished, 1, true),
        (Content::Foreign("an XFS"), 0, false),
    ] {
        let world = World::served_by("node-a").await;
        world.mounts.put_content("/dev/loop1", content.clone());
        let staged = world.stage(mount()).await;
        assert_eq!(staged.is_ok(), ok, "{content:?}");
        assert_eq!(world.mounts.formatted(), formatted, "{content:?}");
        if let Err(fault) = staged {
            assert_eq!(fault.problem, Problem::WrongState);
            assert!(fault.message.contains("an XFS"), "{fault}");
        }
    }
}

#[tokio::test]
async fn unstaging_takes_mount_and_device_away_and_may_be_repeated() {
    let world = World::served_by("node-a").await;
    world.stage(mount()).await.unwrap();
    for _ in 0..2 {
        world.unstage().await.unwrap();
        assert_eq!(world.mounts.targets(), Vec::<String>::new());
        assert_eq!(world.daemon.device(), None);
    }
}

#[tokio::test]
async fn a_volume_that_a_pod_still_uses_is_not_unstaged() {
    let world = World::served_by("node-a").await;
    world.stage(mount()).await.unwrap();
    world.publish(mount(), TARGET).await.unwrap();
    let fault = world.unstage().await.unwrap_err();
    assert_eq!(fault.problem, Problem::WrongState);
    assert!(fault.message.contains(TARGET), "{fault}");
    assert!(world.daemon.device().is_some());
}

#[tokio::test]
async fn a_mount_whose_device_is_no_longer_known_is_taken_away() {
    let world = World::served_by("node-a").await;
    world.stage(mount()).await.unwrap();
    world.daemon.forget();
    world.stage(mount()).await.unwrap();
    assert_eq!(world.mounts.targets(), [STAGING]);
    world.daemon.forget();
    world.unstage().await.unwrap();
    assert_eq!(world.mounts.targets(), Vec::<String>::new());
}

#[tokio::test]
async fn after_a_failover_an_unused_device_is_replaced() {
    let world = World::served_by("node-a").await;
    world.stage(mount()).await.unwrap();
    world.move_to("node-b", 2);
    world.stage(mount()).await.unwrap();
    let device = world.daemon.device().unwrap();
    assert_eq!((device.generation, device.engine), (generation(2), engine("node-b")));
    assert_eq!(world.mounts.targets(), [STAGING]);
}

#[tokio::test]
async fn after_a_failover_a_device_that_a_pod_uses_stays_and_the_pod_is_named() {
    let world = World::served_by("node-a").await;
    world.stage(mount()).await.unwrap();
    world.publish(mount(), TARGET).await.unwrap();
    world.move_to("node-b", 2);
    world.daemon.set_state(DeviceState::Gone);
    let fault = world.stage(mount()).await.unwrap_err();
    assert_eq!(fault.problem, Problem::WrongState);
    assert!(fault.message.contains(TARGET) && fault.message.contains("node-b"), "{fault}");
    assert_eq!(world.daemon.device().unwrap().generation, generation(1));
}

#[tokio::test]
async fn a_device_whose_volume_has_joined_a_group_at_the_same_engine_goes_on() {
    let world = World::served_by("node-a").await;
    world.stage(mount()).await.unwrap();
    world.move_to("node-a", 2);
    world.stage(mount()).await.unwrap();
    assert_eq!(world.daemon.calls(), ["attach"]);
    assert_eq!(world.daemon.device().unwrap().generation, generation(1));
}

#[tokio::test]
async fn what_waits_for_a_replaced_engine_fails_before_it_is_unmounted() {
    let world = World::served_by("node-b").await;
    world.stage(mount()).await.unwrap();
    world.daemon.set_state(DeviceState::Waiting);
    // The engine may come back: nothing is failed.
    let again = World::served_by("node-b").await;
    again.stage(mount()).await.unwrap();
    again.daemon.set_state(DeviceState::Waiting);
    again.unstage().await.unwrap();
    assert_eq!(again.daemon.calls(), ["attach", "detach"]);
    // It was replaced.
    world.move_to("node-c", 2);
    world.unstage().await.unwrap();
    assert_eq!(world.daemon.calls(), ["attach", "fail", "detach"]);
}

#[tokio::test]
async fn a_volume_that_grew_while_it_was_not_used_has_its_size_at_once() {
    let world = World::served_by("node-a").await;
    world.stage(Access::Block).await.unwrap();
    world.grow(2 * SIZE);
    world.stage(Access::Block).await.unwrap();
    assert_eq!(world.daemon.device().unwrap().size, ByteLen(2 * SIZE));
}

#[tokio::test]
async fn failures_are_told_apart() {
    let world = World::served_by("node-a").await;
    let stage = Stage { volume: handle("vol-z"), staging: STAGING.into(), access: Access::Block };
    assert_eq!(world.node().stage(&stage).await.unwrap_err().problem, Problem::NotFound);
    for (refusal, problem) in [
        (Refusal::Unimplemented, Problem::WrongState),
        (Refusal::Unavailable, Problem::Unavailable),
        (Refusal::NotFound, Problem::Unavailable),
    ] {
        world.daemon.set_refusal(Some(refusal));
        assert_eq!(world.stage(Access::Block).await.unwrap_err().problem, problem);
    }
    world.daemon.set_refusal(None);
    world.move_to("node-z", 2);
    let fault = world.stage(Access::Block).await.unwrap_err();
    assert_eq!(fault.problem, Problem::Unavailable);
    assert!(fault.message.contains("node-z"), "{fault}");
    world.volumes.edit(&handle("vol-a"), |object| object.spec.generation = None);
    let fault = world.stage(Access::Block).await.unwrap_err();
    assert_eq!(fault.problem, Problem::WrongState, "{fault}");
}

#[tokio::test]
async fn one_operation_on_a_volume_at_a_time() {
    let world = World::served_by("node-a").await;
    let node = world.node();
    let _busy = node.guards.take(&handle("vol-a")).unwrap();
    let stage = Stage { volume: handle("vol-a"), staging: STAGING.into(), access: mount() };
    assert_eq!(node.stage(&stage).await.unwrap_err().problem, Problem::Busy);
}
