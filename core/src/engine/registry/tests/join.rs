//! Volumes that join a group with a peer, and stay behind, with an engine that dies at any step.

use super::*;

/// No engine answers there: nothing is ever covered by a checkpoint.
fn with_peer(start: Start) -> Start {
    Start { peer: Some(Address::Unix("/nowhere.sock".into())), ..start }
}

fn as_secondary(number: u64, volumes: &[&str]) -> Start {
    Start { role: Role::Secondary, ..start("two", number, volumes) }
}

/// Which volumes are in which group, as its superblock and the engine's list say alike.
async fn found(engine: &Engine) -> Vec<(String, Vec<String>)> {
    let status = engine.status().await.unwrap();
    let mut all = Vec::new();
    for g in &status.groups {
        let state = engine.live_state(&g.group).await.unwrap();
        let members: Vec<_> = state.members.iter().map(|m| m.volume.to_string()).collect();
        let mut listed: Vec<_> = status
            .replicas
            .iter()
            .filter(|r| r.group.as_ref() == Some(&g.group))
            .map(|r| r.volume.to_string())
            .collect();
        let mut sorted = members.clone();
        (sorted.sort(), listed.sort());
        assert_eq!(sorted, listed, "group {}", g.group);
        all.push((g.group.to_string(), members));
    }
    all
}

async fn joining(engine: &Engine) -> Vec<VolumeId> {
    let status = engine.status().await.unwrap();
    status.groups.into_iter().find(|g| g.group == name("two")).unwrap().joining
}

/// Group two gets a peer, then volume a of group one joins it.
async fn join(engine: Arc<Engine>) -> Result<(), EngineError> {
    if engine.live_state(&name("two")).await.is_ok_and(|s| s.members.len() == 2) {
        engine.start(with_peer(start("two", 4, &["b", "c"]))).await?;
    }
    engine.start(with_peer(adopt("two", 4, &["b", "c", "a"]))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_joins_a_primary_has_one_group_at_every_step_and_its_devices_go_on() {
    let before = shape(&[("one", &["a"]), ("two", &["b", "c"])]);
    let after = shape(&[("two", &["b", "c", "a"])]);
    let steps = at_every_step(
        join,
        async |engine, pool| {
            let now = found(engine).await;
            assert!(now == before || now == after, "{now:?}");
            all_content(pool);
        },
        async |engine, pool| {
            assert_eq!(found(engine).await, after);
            assert_eq!(joining(engine).await, [name("a")]);
            assert_eq!(member(engine, "two", "a").await.carried, [generation(2)]);
            assert!(member(engine, "two", "b").await.carried.is_empty());
            // A device that is bound to the old generation gets its next session here.
            assert!(engine.open_session(name("a"), generation(2)).await.unwrap() > 0);
            all_content(pool);
        },
    )
    .await;
    assert!(steps >= 5, "only {steps} steps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_joins_a_secondary_at_every_step() {
    let steps = at_every_step(
        |engine| async move {
            if engine.live_state(&name("two")).await.is_ok_and(|s| s.generation.number == 4) {
                engine.start(as_secondary(6, &["b", "c"])).await?;
            }
            engine.create_replica(Member { volume: name("d"), size: ByteLen(MIB) }).await?;
            engine.start(as_secondary(6, &["b", "c", "d"])).await
        },
        async |engine, pool| {
            let now = found(engine).await;
            assert!(now[1].1.starts_with(&["b".to_owned(), "c".to_owned()]), "{now:?}");
            all_content(pool);
        },
        async |engine, _| {
            let after = shape(&[("one", &["a"]), ("two", &["b", "c", "d"])]);
            assert_eq!(found(engine).await, after);
            assert_eq!(joining(engine).await, [] as [VolumeId; 0], "the first record covers all");
        },
    )
    .await;
    assert!(steps >= 3, "only {steps} steps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_primary_keeps_what_was_joining_in_no_group_at_every_step() {
    let steps = at_every_step(
        |engine| async move {
            if engine.live_state(&name("two")).await.is_ok_and(|s| s.generation.number == 4) {
                if engine.live_state(&name("one")).await.is_ok() {
                    join(engine.clone()).await?;
                }
                // Nobody knows more of it than this replica: what it holds stays.
                assert!(engine.start(as_secondary(6, &["b"])).await.is_err());
            }
            engine.start(as_secondary(6, &["b", "c"])).await
        },
        async |_, pool| all_content(pool),
        async |engine, pool| {
            assert_eq!(found(engine).await, shape(&[("two", &["b", "c"])]));
            let status = engine.status().await.unwrap();
            assert_eq!(status.replica(&name("a")).unwrap().group, None);
            content(pool, "a");
            engine.delete_replica(name("none")).await.unwrap();
        },
    )
    .await;
    assert!(steps >= 7, "only {steps} steps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_t_join_is_refused_by_name_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path()).await;
    engine.start(with_peer(start("two", 4, &["b", "c"]))).await.unwrap();
    for (volume, group, number) in [("d", "four", 2), ("e", "five", 5)] {
        engine.create_replica(Member { volume: name(volume), size: ByteLen(MIB) }).await.unwrap();
        let started = start(group, number, &[volume]);
        let started = if volume == "d" { with_peer(started) } else { started };
        engine.start(started).await.unwrap();
    }
    let before = found(&engine).await;
    let cases = [
        (start("two", 4, &["b", "c", "a"]), Refusal::WrongState, "belongs to group one"),
        (adopt("two", 4, &["b", "c", "d"]), Refusal::WrongState, "replicates to"),
        (adopt("two", 4, &["b", "c", "e"]), Refusal::WrongState, "of generation 5-"),
        (adopt("two", 4, &["b", "c", "none"]), Refusal::NotFound, "volume none"),
        (adopt("two", 4, &["a", "b", "c"]), Refusal::WrongState, "replicates to"),
        (as_secondary(6, &["b"]), Refusal::Exists, "has the volumes b, c"),
    ];
    for (start, refusal, word) in cases {
        let error = engine.start(with_peer(start)).await.unwrap_err();
        assert_eq!(error.refusal, refusal, "{error}");
        assert!(error.message.contains(word), "{error}");
        assert_eq!(found(&engine).await, before);
    }
    end(engine).await;
}
