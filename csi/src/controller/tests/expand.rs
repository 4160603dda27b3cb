use super::*;
use understudy_core::engine::api::Refusal;

async fn expand(world: &World, name: &str, mib: u64) -> Result<u64, Fault> {
    let request = csi::ControllerExpandVolumeRequest {
        volume_id: name.to_owned(),
        capacity_range: Some(range(mib)),
        volume_capability: Some(capability()),
    };
    let answer = world.controller().expand(&request).await?;
    assert!(answer.node_expansion_required);
    Ok(u64::try_from(answer.capacity_bytes).unwrap() / MIB)
}

#[tokio::test]
async fn a_volume_alone_grows_at_its_engine_and_then_in_its_object() {
    let world = World::new();
    world.create("vol-a", 8, "node-a").await.unwrap();
    assert_eq!(expand(&world, "vol-a", 16).await.unwrap(), 16);
    assert_eq!(world.replicas("node-a"), [("vol-a".to_owned(), 16)]);
    assert_eq!(world.volume("vol-a").await.unwrap().size, ByteLen(16 * MIB));
    // Again, and with less: it has that, and never shrinks.
    let calls = world.calls();
    assert_eq!(expand(&world, "vol-a", 16).await.unwrap(), 16);
    assert_eq!(expand(&world, "vol-a", 4).await.unwrap(), 16);
    assert_eq!(world.calls(), calls);
}

#[tokio::test]
async fn in_a_group_the_secondary_grows_before_the_primary() {
    let world = World::new();
    world.create("vol-a", 8, "node-a").await.unwrap();
    world.join("vol-a", 8);
    assert_eq!(expand(&world, "vol-a", 16).await.unwrap(), 16);
    let calls = world.calls();
    assert_eq!(calls[calls.len() - 2..], ["node-b: expand", "node-a: expand"]);
    let group = world.volumes.group("shop.db").await.unwrap().unwrap();
    assert_eq!(group.member_size(&handle("vol-a")), Some(ByteLen(16 * MIB)));
    assert_eq!(world.volume("vol-a").await.unwrap().size, ByteLen(16 * MIB));
}

#[tokio::test]
async fn what_the_group_has_grown_to_is_what_the_volume_gets() {
    let world = World::new();
    world.create("vol-a", 8, "node-a").await.unwrap();
    world.join("vol-a", 8);
    // A call for 32 MiB that was killed before its last write; then less is asked for.
    world.volumes.fail_after(Some(1));
    expand(&world, "vol-a", 32).await.unwrap_err();
    world.volumes.fail_after(None);
    let group = world.volumes.group("shop.db").await.unwrap().unwrap();
    assert_eq!(group.member_size(&handle("vol-a")), Some(ByteLen(32 * MIB)));
    assert_eq!(expand(&world, "vol-a", 16).await.unwrap(), 32);
    assert_eq!(world.volume("vol-a").await.unwrap().size, ByteLen(32 * MIB));
    assert_eq!(world.replicas("node-a"), [("vol-a".to_owned(), 32)]);
}

#[tokio::test]
async fn the_primary_does_not_grow_while_the_secondary_is_away() {
    let world = World::new();
    world.create("vol-a", 8, "node-a").await.unwrap();
    world.join("vol-a", 8);
    world.set_up("node-b", false);
    let fault = expand(&world, "vol-a", 16).await.unwrap_err();
    assert_eq!(fault.problem, Problem::Unavailable);
    assert!(fault.message.contains("node-b"), "{fault}");
    assert_eq!(world.replicas("node-a"), [("vol-a".to_owned(), 8)]);
    world.set_up("node-b", true);
    assert_eq!(expand(&world, "vol-a", 16).await.unwrap(), 16);
}

#[tokio::test]
async fn killed_after_any_step_the_same_call_finishes_what_was_begun() {
    for writes in 0..3 {
        for steps in 0..6 {
            let world = World::new();
            world.create("vol-a", 8, "node-a").await.unwrap();
            world.join("vol-a", 8);
            world.light_fuse(Some(steps));
            world.volumes.fail_after(Some(writes));
            let _half_done = expand(&world, "vol-a", 16).await;
            world.light_fuse(None);
            world.volumes.fail_after(None);
            assert_eq!(expand(&world, "vol-a", 16).await.unwrap(), 16);
            for node in ["node-a", "node-b"] {
                assert_eq!(world.replicas(node), [("vol-a".to_owned(), 16)], "{steps}, {writes}");
            }
            let group = world.volumes.group("shop.db").await.unwrap().unwrap();
            assert_eq!(group.member_size(&handle("vol-a")), Some(ByteLen(16 * MIB)));
        }
    }
}

#[tokio::test]
async fn what_can_not_be_grown_is_refused_with_the_reason() {
    let world = World::new();
    world.create("vol-a", 8, "node-a").await.unwrap();
    assert_eq!(expand(&world, "nothing", 16).await.unwrap_err().problem, Problem::NotFound);
    assert_eq!(expand(&world, "", 16).await.unwrap_err().problem, Problem::Invalid);
    let too_large = expand(&world, "vol-a", (64 << 20) + 1).await.unwrap_err();
    assert_eq!(too_large.problem, Problem::OutOfRange);
    let mut shrink = csi::ControllerExpandVolumeRequest {
        volume_id: "vol-a".to_owned(),
        capacity_range: Some(csi::CapacityRange { required_bytes: 1, limit_bytes: 1 << 20 }),
        volume_capability: None,
    };
    let fault = world.controller().expand(&shrink).await.unwrap_err();
    assert_eq!(fault.problem, Problem::OutOfRange);
    shrink.capacity_range = None;
    assert_eq!(world.controller().expand(&shrink).await.unwrap_err().problem, Problem::Invalid);
    world.refuse("node-a", "expand", Refusal::Exhausted);
    assert_eq!(expand(&world, "vol-a", 16).await.unwrap_err().problem, Problem::Exhausted);
    assert_eq!(world.volume("vol-a").await.unwrap().size, ByteLen(8 * MIB));
}
