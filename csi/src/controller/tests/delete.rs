use super::*;
use crate::volume::ANNOTATION_ABANDON;
use understudy_core::engine::api::Refusal;

async fn with_volume() -> World {
    let world = World::new();
    world.create("vol-a", 8, "node-a").await.unwrap();
    world
}

fn abandon(world: &World) {
    world.volumes.edit(&handle("vol-a"), |object| {
        let annotation = (ANNOTATION_ABANDON.to_owned(), "true".to_owned());
        object.metadata.annotations = Some([annotation].into());
    });
}

#[tokio::test]
async fn a_volume_goes_from_engine_and_objects_and_may_go_again() {
    let world = with_volume().await;
    world.delete("vol-a").await.unwrap();
    assert_eq!(world.volume("vol-a").await, None);
    assert_eq!(world.replicas("node-a"), []);
    assert_eq!(world.groups("node-a"), []);
    world.delete("vol-a").await.unwrap();
}

#[tokio::test]
async fn an_id_that_no_volume_can_have_is_deleted_already() {
    let world = World::new();
    for id in ["nothing-of-ours", "Not A Handle", "../../etc"] {
        world.delete(id).await.unwrap();
    }
    assert_eq!(world.delete("").await.unwrap_err().problem, Problem::Invalid);
}

#[tokio::test]
async fn a_volume_in_a_group_stays_and_the_remedy_is_named() {
    let world = with_volume().await;
    world.join("vol-a", 8);
    let fault = world.delete("vol-a").await.unwrap_err();
    assert_eq!(fault.problem, Problem::WrongState);
    assert!(fault.message.contains("kubectl delete blockreplication -n shop db"), "{fault}");
    assert_eq!(world.replicas("node-a"), [("vol-a".to_owned(), 8)]);
}

#[tokio::test]
async fn a_volume_in_use_stays_as_it_was() {
    let world = with_volume().await;
    let before = world.volume("vol-a").await;
    world.set_clients("node-a", 2);
    let fault = world.delete("vol-a").await.unwrap_err();
    assert_eq!(fault.problem, Problem::WrongState);
    assert!(fault.message.contains("in use") && fault.message.contains("node-a"), "{fault}");
    assert_eq!(world.volume("vol-a").await, before);
}

#[tokio::test]
async fn a_client_that_comes_in_between_gets_the_volume_back_as_it_was() {
    let world = with_volume().await;
    let before = world.volume("vol-a").await.unwrap().place;
    world.refuse("node-a", "delete", Refusal::WrongState);
    assert_eq!(world.delete("vol-a").await.unwrap_err().problem, Problem::WrongState);
    assert_eq!(world.volume("vol-a").await.unwrap().place, before);
}

#[tokio::test]
async fn a_volume_that_joins_a_group_at_that_moment_stays() {
    let world = with_volume().await;
    world.on_call(|call, volumes| {
        if call == "status" {
            volumes.edit(&handle("vol-a"), |o| o.spec.group = Some("shop.db".to_owned()));
        }
    });
    let fault = world.delete("vol-a").await.unwrap_err();
    assert_eq!(fault.problem, Problem::Busy);
    assert_eq!(world.replicas("node-a"), [("vol-a".to_owned(), 8)]);
}

#[tokio::test]
async fn nobody_may_adopt_a_volume_whose_replica_is_being_deleted() {
    let world = with_volume().await;
    world.on_call(|call, volumes| {
        if call == "delete" {
            volumes.edit(&handle("vol-a"), |o| assert_eq!(o.spec.generation, None));
        }
    });
    // The look at the object was an edit, too: the last step must be repeated.
    assert_eq!(world.delete("vol-a").await.unwrap_err().problem, Problem::Busy);
    world.on_call(|_, _| {});
    world.delete("vol-a").await.unwrap();
    assert_eq!(world.volume("vol-a").await, None);
}

#[tokio::test]
async fn killed_after_any_step_the_same_call_finishes_what_was_begun() {
    for steps in 0..10 {
        let world = with_volume().await;
        world.light_fuse(Some(steps));
        let ended = world.delete("vol-a").await.is_ok();
        world.light_fuse(None);
        world.delete("vol-a").await.unwrap();
        assert_eq!(world.volume("vol-a").await, None, "{steps}");
        assert_eq!(world.replicas("node-a"), [], "{steps}");
        if ended {
            break;
        }
    }
    for writes in 0..3 {
        let world = with_volume().await;
        world.volumes.fail_after(Some(writes));
        let first = world.delete("vol-a").await;
        assert_eq!(first.is_ok(), writes == 2, "{writes}: {first:?}");
        world.volumes.fail_after(None);
        world.delete("vol-a").await.unwrap();
        assert_eq!(world.volume("vol-a").await, None, "{writes}");
        assert_eq!(world.replicas("node-a"), [], "{writes}");
    }
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_waited_for_unless_a_person_gives_it_up() {
    let world = with_volume().await;
    world.set_up("node-a", false);
    let fault = world.delete("vol-a").await.unwrap_err();
    assert_eq!(fault.problem, Problem::Unavailable);
    assert!(fault.message.contains("node-a"), "{fault}");
    assert!(fault.message.contains("kubectl annotate rvol vol-a"), "{fault}");
    assert!(world.volume("vol-a").await.is_some());
    abandon(&world);
    world.delete("vol-a").await.unwrap();
    assert_eq!(world.volume("vol-a").await, None);
}

#[tokio::test]
async fn a_node_with_another_pool_is_not_the_one_that_holds_the_replica() {
    let world = with_volume().await;
    world.set_pool("node-a", 77);
    let fault = world.delete("vol-a").await.unwrap_err();
    assert_eq!(fault.problem, Problem::WrongState);
    assert!(fault.message.contains("pool"), "{fault}");
    abandon(&world);
    world.delete("vol-a").await.unwrap();
    assert_eq!(world.volume("vol-a").await, None);
}

#[tokio::test]
async fn giving_a_replica_up_does_not_delete_a_volume_that_is_in_use_or_replicated() {
    let world = with_volume().await;
    abandon(&world);
    world.set_clients("node-a", 1);
    assert_eq!(world.delete("vol-a").await.unwrap_err().problem, Problem::WrongState);
    world.join("vol-a", 8);
    assert_eq!(world.delete("vol-a").await.unwrap_err().problem, Problem::WrongState);
    assert!(world.volume("vol-a").await.is_some());
}
