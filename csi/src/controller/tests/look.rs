use super::*;

async fn page(world: &World, most: i32, token: &str) -> Result<(Vec<String>, String), Fault> {
    let request = csi::ListVolumesRequest { max_entries: most, starting_token: token.to_owned() };
    let answer = world.controller().list(&request).await?;
    let ids = answer.entries.into_iter().map(|entry| entry.volume.unwrap().volume_id);
    Ok((ids.collect(), answer.next_token))
}

#[tokio::test]
async fn volumes_are_listed_in_pages_that_survive_changes_between_them() {
    let world = World::new();
    for name in ["vol-a", "vol-b", "vol-c", "vol-d"] {
        world.create(name, 1, "node-a").await.unwrap();
    }
    let (first, token) = page(&world, 2, "").await.unwrap();
    assert_eq!(first, ["vol-a", "vol-b"]);
    world.delete("vol-b").await.unwrap();
    world.create("vol-bb", 1, "node-a").await.unwrap();
    let (second, token) = page(&world, 3, &token).await.unwrap();
    assert_eq!(second, ["vol-bb", "vol-c", "vol-d"]);
    assert_eq!(token, "");
    assert_eq!(page(&world, 0, "").await.unwrap().0.len(), 4);
}

#[tokio::test]
async fn a_token_of_somebody_else_is_aborted_and_a_negative_page_refused() {
    let world = World::new();
    assert_eq!(page(&world, 0, "invalid-token").await.unwrap_err().problem, Problem::Busy);
    assert_eq!(page(&world, -1, "").await.unwrap_err().problem, Problem::Invalid);
}

#[tokio::test]
async fn a_volume_that_is_half_deleted_is_not_listed() {
    let world = World::new();
    world.create("vol-a", 1, "node-a").await.unwrap();
    world.volumes.edit(&handle("vol-a"), |object| object.spec.generation = None);
    assert_eq!(page(&world, 0, "").await.unwrap().0, Vec::<String>::new());
}

async fn capacity(world: &World, node: Option<&str>) -> Result<(i64, i64), Fault> {
    let request = csi::GetCapacityRequest {
        accessible_topology: node.map(topology),
        ..csi::GetCapacityRequest::default()
    };
    let answer = world.controller().capacity(&request).await?;
    assert_eq!(answer.minimum_volume_size, Some(1 << 20));
    Ok((answer.available_capacity >> 20, answer.maximum_volume_size.unwrap() >> 20))
}

#[tokio::test]
async fn the_space_is_that_of_the_node_or_of_all() {
    let world = World::new();
    world.create("vol-a", 30, "node-a").await.unwrap();
    assert_eq!(capacity(&world, Some("node-a")).await.unwrap(), (70, 70));
    assert_eq!(capacity(&world, Some("node-b")).await.unwrap(), (100, 100));
    assert_eq!(capacity(&world, None).await.unwrap(), (170, 100));
    assert_eq!(capacity(&world, Some("node-z")).await.unwrap(), (0, 0));
}

#[tokio::test]
async fn a_node_that_is_down_has_no_space_among_others_and_fails_alone() {
    let world = World::new();
    world.set_up("node-a", false);
    assert_eq!(capacity(&world, None).await.unwrap(), (100, 100));
    let fault = capacity(&world, Some("node-a")).await.unwrap_err();
    assert_eq!(fault.problem, Problem::Unavailable);
}

#[tokio::test]
async fn there_is_no_space_for_what_is_never_made() {
    use csi::volume_capability::{AccessMode, access_mode::Mode};
    let mut shared = capability();
    shared.access_mode = Some(AccessMode { mode: Mode::MultiNodeMultiWriter.into() });
    let request = csi::GetCapacityRequest {
        volume_capabilities: vec![shared],
        ..csi::GetCapacityRequest::default()
    };
    let answer = World::new().controller().capacity(&request).await.unwrap();
    assert_eq!(answer.available_capacity, 0);
}

#[tokio::test]
async fn capabilities_are_confirmed_or_the_reason_is_said() {
    use csi::volume_capability::{AccessMode, access_mode::Mode};
    let world = World::new();
    world.create("vol-a", 1, "node-a").await.unwrap();
    let ask = |id: &str, list: Vec<csi::VolumeCapability>| {
        let controller = world.controller();
        let request = csi::ValidateVolumeCapabilitiesRequest {
            volume_id: id.to_owned(),
            volume_capabilities: list,
            ..csi::ValidateVolumeCapabilitiesRequest::default()
        };
        async move { controller.validate(request).await }
    };
    let confirmed = ask("vol-a", vec![capability()]).await.unwrap().confirmed.unwrap();
    assert_eq!(confirmed.volume_capabilities, [capability()]);
    let mut shared = capability();
    shared.access_mode = Some(AccessMode { mode: Mode::MultiNodeMultiWriter.into() });
    let refused = ask("vol-a", vec![shared]).await.unwrap();
    assert!(refused.confirmed.is_none() && refused.message.contains("ReadWriteOnce"));
    for (id, list, problem) in [
        ("nothing", vec![capability()], Problem::NotFound),
        ("", vec![capability()], Problem::Invalid),
        ("vol-a", Vec::new(), Problem::Invalid),
    ] {
        assert_eq!(ask(id, list).await.unwrap_err().problem, problem);
    }
}
