use super::*;
use understudy_core::engine::api::Refusal;

#[tokio::test]
async fn a_volume_is_born_where_the_scheduler_put_the_pod_in_a_group_of_its_own() {
    let world = World::new();
    let made = world.create("vol-a", 8, "node-b").await.unwrap();
    assert_eq!((made.volume_id.as_str(), made.capacity_bytes), ("vol-a", 8 << 20));
    let Place::Alone(alone) = world.volume("vol-a").await.unwrap().place else { panic!() };
    assert_eq!((alone.node.as_str(), alone.pool), ("node-b", world.pool("node-b")));
    assert_eq!(alone.generation.number, 1);
    assert_eq!(world.groups("node-b"), [("vol-a".to_owned(), alone.generation)]);
    assert_eq!(world.replicas("node-a"), []);
}

#[tokio::test]
async fn a_volume_is_bound_to_the_installation_and_to_no_node() {
    let made = World::new().create("vol-a", 8, "node-b").await.unwrap();
    assert_eq!(made.accessible_topology.len(), 1);
    let segments = &made.accessible_topology[0].segments;
    assert_eq!(segments.len(), 1);
    assert_eq!(segments[TOPOLOGY_INSTALLATION], "prod");
}

#[tokio::test]
async fn the_same_call_again_gives_the_same_volume() {
    let world = World::new();
    let first = world.create("vol-a", 8, "node-b").await.unwrap();
    let before = world.volume("vol-a").await;
    // Another node is wished for: the volume can be reached from there, too.
    assert_eq!(world.create("vol-a", 8, "node-a").await.unwrap(), first);
    assert_eq!(world.volume("vol-a").await, before);
    assert_eq!(world.replicas("node-a"), []);
}

#[tokio::test]
async fn the_same_name_with_another_size_is_refused() {
    let world = World::new();
    world.create("vol-a", 8, "node-b").await.unwrap();
    let fault = world.create("vol-a", 16, "node-b").await.unwrap_err();
    assert_eq!(fault.problem, Problem::Exists);
    assert!(fault.message.contains("vol-a"), "{fault}");
}

#[tokio::test]
async fn two_names_with_one_handle_are_two_volumes() {
    let world = World::new();
    let made = world.create("The Volume", 8, "node-b").await.unwrap();
    assert_eq!(world.create("The Volume", 8, "node-b").await.unwrap(), made);
    let fault = world.create(&made.volume_id, 8, "node-b").await.unwrap_err();
    assert_eq!(fault.problem, Problem::Exists);
}

#[tokio::test]
async fn killed_after_any_step_the_same_call_finishes_what_was_begun() {
    for steps in 0..10 {
        let world = World::new();
        world.light_fuse(Some(steps));
        let ended = world.create("vol-a", 8, "node-a").await.is_ok();
        world.light_fuse(None);
        world.create("vol-a", 8, "node-a").await.unwrap();
        assert_eq!(world.replicas("node-a"), [("vol-a".to_owned(), 8)], "{steps}");
        assert_eq!(world.groups("node-a").len(), 1, "{steps}");
        if ended {
            assert!(steps > 3, "nothing was asked of the engine");
            return;
        }
    }
    panic!("a call has not that many steps");
}

#[tokio::test]
async fn the_engine_hears_of_nothing_that_is_not_written_down() {
    let world = World::new();
    world.volumes.fail_after(Some(0));
    let fault = world.create("vol-a", 8, "node-a").await.unwrap_err();
    assert_eq!(fault.problem, Problem::Unavailable);
    assert_eq!(world.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn without_space_nothing_stays_behind_and_another_node_may_be_tried() {
    let world = World::new();
    let fault = world.create("vol-a", 101, "node-a").await.unwrap_err();
    assert_eq!(fault.problem, Problem::Exhausted);
    assert!(fault.message.contains("node-a"), "{fault}");
    assert_eq!(world.volume("vol-a").await, None);
    // The pool filled up between the look and the making.
    for call in ["create", "start"] {
        let world = World::new();
        world.refuse("node-a", call, Refusal::Exhausted);
        let fault = world.create("vol-a", 8, "node-a").await.unwrap_err();
        assert_eq!(fault.problem, Problem::Exhausted);
        assert_eq!(world.volume("vol-a").await, None, "{call}");
        assert_eq!(world.replicas("node-a"), [], "{call}");
        world.create("vol-a", 8, "node-b").await.unwrap();
    }
}

#[tokio::test]
async fn a_volume_that_was_there_before_is_never_taken_back() {
    let world = World::new();
    world.create("vol-a", 8, "node-a").await.unwrap();
    world.refuse("node-a", "start", Refusal::Exhausted);
    assert!(world.create("vol-a", 8, "node-a").await.is_err());
    assert!(world.volume("vol-a").await.is_some());
    assert_eq!(world.replicas("node-a"), [("vol-a".to_owned(), 8)]);
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_named() {
    let world = World::new();
    world.set_up("node-a", false);
    let fault = world.create("vol-a", 8, "node-a").await.unwrap_err();
    assert_eq!(fault.problem, Problem::Unavailable);
    assert!(fault.message.contains("node-a"), "{fault}");
    // Where nobody has chosen, one that answers will do.
    let anywhere =
        csi::CreateVolumeRequest { accessibility_requirements: None, ..request("vol-b", 8, "") };
    world.controller().create(&anywhere).await.unwrap();
    assert_eq!(world.replicas("node-b"), [("vol-b".to_owned(), 8)]);
}

#[tokio::test]
async fn an_engine_with_another_pool_is_not_given_the_volume() {
    let world = World::new();
    world.light_fuse(Some(1));
    assert!(world.create("vol-a", 8, "node-a").await.is_err());
    world.light_fuse(None);
    world.set_pool("node-a", 77);
    let fault = world.create("vol-a", 8, "node-a").await.unwrap_err();
    assert_eq!(fault.problem, Problem::WrongState);
    assert!(fault.message.contains("pool") && fault.message.contains("node-a"), "{fault}");
    assert_eq!(world.replicas("node-a"), []);
}

#[tokio::test]
async fn a_volume_that_has_joined_a_group_is_there_without_asking_engines() {
    let world = World::new();
    let made = world.create("vol-a", 8, "node-a").await.unwrap();
    world.join("vol-a", 8);
    world.set_up("node-a", false);
    assert_eq!(world.create("vol-a", 8, "node-a").await.unwrap(), made);
}

#[tokio::test]
async fn a_volume_that_is_being_deleted_is_not_made_again_over_it() {
    let world = World::new();
    world.create("vol-a", 8, "node-a").await.unwrap();
    world.volumes.edit(&handle("vol-a"), |object| object.spec.generation = None);
    let fault = world.create("vol-a", 8, "node-a").await.unwrap_err();
    assert_eq!(fault.problem, Problem::Busy);
}
