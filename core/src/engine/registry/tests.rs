//! Engines that end between any two steps of a change, and are started again over the same pool.

mod join;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Engine;
use crate::engine::api::{
    ByteLen, Generation, GroupId, Member, Policy, Refusal, Role, Stage, Start, VolumeId,
};
use crate::engine::config::{Config, Io, Limits, Log};
use crate::engine::error::EngineError;
use crate::overlay;
use crate::runtime::Address;

const MIB: u64 = 1 << 20;
const VOLUMES: [&str; 3] = ["a", "b", "c"];

fn name(text: &str) -> VolumeId {
    text.parse().unwrap()
}

fn generation(number: u64) -> Generation {
    Generation { number, id: number }
}

fn start(group: &str, number: u64, volumes: &[&str]) -> Start {
    let member = |v: &&str| Member { volume: name(v), size: ByteLen(MIB) };
    Start {
        group: name(group),
        generation: generation(number),
        role: Role::Primary,
        members: volumes.iter().map(member).collect(),
        peer: None,
        policy: Policy::default(),
        inbound: false,
        adopt: false,
    }
}

fn adopt(group: &str, number: u64, volumes: &[&str]) -> Start {
    Start { adopt: true, ..start(group, number, volumes) }
}

async fn open(pool: &Path) -> Arc<Engine> {
    let config = Config {
        pool: pool.to_owned(),
        node: "test".into(),
        api: vec![Address::Unix("unused".into())],
        nbd: Vec::new(),
        metrics: Vec::new(),
        metrics_plaintext: false,
        link: None,
        shards: 2,
        io: Io::Pool,
        log: Log::default(),
        limits: Limits::default(),
        tls: None,
        insecure_plaintext: false,
    };
    Engine::open(&config, None).await.unwrap()
}

async fn end(engine: Arc<Engine>) {
    engine.shutdown().await;
    tokio::task::spawn_blocking(move || engine.shards.stop()).await.unwrap();
}

fn disk(pool: &Path, volume: &str) -> PathBuf {
    pool.join("volumes").join(volume).join("disk")
}

/// Volumes filled with their names; group one { a } of generation 2, group two { b, c } of 4.
async fn fresh(pool: &Path) -> Arc<Engine> {
    let engine = open(pool).await;
    for v in VOLUMES {
        engine.create_replica(Member { volume: name(v), size: ByteLen(MIB) }).await.unwrap();
        std::fs::write(disk(pool, v), v.repeat(1 << 20)).unwrap();
    }
    engine.start(start("one", 2, &["a"])).await.unwrap();
    engine.start(start("two", 4, &["b", "c"])).await.unwrap();
    engine
}

async fn groups(engine: &Engine) -> Vec<(String, Vec<String>)> {
    let status = engine.status().await.unwrap();
    let members = |g: &GroupId| {
        let of = status.replicas.iter().filter(|r| r.group.as_ref() == Some(g));
        of.map(|r| r.volume.to_string()).collect::<Vec<_>>()
    };
    for g in &status.groups {
        assert_eq!(g.stage, Stage::Running, "{}", g.group);
        // The one with a peer has none that answers.
        assert!(g.error.is_none() || g.group.as_str() == "four", "{:?}", g.error);
    }
    status.groups.iter().map(|g| (g.group.to_string(), members(&g.group))).collect()
}

async fn member(engine: &Engine, group: &str, volume: &str) -> overlay::Member {
    let state = engine.live_state(&name(group)).await.unwrap();
    state.members.into_iter().find(|m| m.volume.as_str() == volume).unwrap()
}

fn content(pool: &Path, volume: &str) {
    let bytes = std::fs::read(disk(pool, volume)).unwrap();
    assert!(bytes[..1 << 20] == *volume.repeat(1 << 20).as_bytes(), "content of {volume}");
    assert!(bytes[1 << 20..].iter().all(|b| *b == 0), "new space of {volume}");
}

fn all_content(pool: &Path) {
    for volume in VOLUMES {
        content(pool, volume);
    }
}

fn shape(groups: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let owned = |v: &&str| (*v).to_owned();
    groups.iter().map(|(g, m)| ((*g).to_owned(), m.iter().map(owned).collect())).collect()
}

/// Runs `change` over and over, dying one step later each time; `half` looks at what the next
/// engine finds, then the change is asked for again, and `whole` looks at that.
async fn at_every_step<C, F>(
    change: C,
    half: impl AsyncFn(&Engine, &Path),
    whole: impl AsyncFn(&Engine, &Path),
) -> usize
where
    C: Fn(Arc<Engine>) -> F,
    F: Future<Output = Result<(), EngineError>>,
{
    for n in 1.. {
        let dir = tempfile::tempdir().unwrap();
        let engine = fresh(dir.path()).await;
        engine.crash.at(n);
        let done = change(engine.clone()).await;
        let died = engine.crash.steps() >= n && done.is_err();
        end(engine).await;
        let engine = open(dir.path()).await;
        if died {
            half(&engine, dir.path()).await;
            change(engine.clone()).await.unwrap();
        } else {
            done.unwrap();
        }
        change(engine.clone()).await.unwrap();
        whole(&engine, dir.path()).await;
        end(engine).await;
        let engine = open(dir.path()).await;
        whole(&engine, dir.path()).await;
        end(engine).await;
        if !died {
            return n - 1;
        }
    }
    0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_taken_over_have_one_group_at_every_step_and_lose_nothing() {
    let before = shape(&[("one", &["a"]), ("two", &["b", "c"])]);
    let after = shape(&[("ns.vm", &["a", "b"]), ("two", &["c"])]);
    let steps = at_every_step(
        |engine| async move { engine.start(adopt("ns.vm", 6, &["a", "b"])).await },
        async |engine, pool| {
            let found = groups(engine).await;
            assert!(found == before || found == after, "{found:?}");
            all_content(pool);
        },
        async |engine, pool| {
            assert_eq!(groups(engine).await, after);
            assert_eq!(member(engine, "ns.vm", "a").await.carried, [generation(2)]);
            assert_eq!(member(engine, "ns.vm", "b").await.carried, [generation(4)]);
            assert!(member(engine, "two", "c").await.carried.is_empty());
            all_content(pool);
        },
    )
    .await;
    assert!(steps >= 7, "only {steps} steps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_there_takes_more_volumes_at_every_step() {
    let after = shape(&[("two", &["a", "b", "c"])]);
    let steps = at_every_step(
        |engine| async move { engine.start(adopt("two", 6, &["c", "a", "b"])).await },
        async |engine, pool| {
            let found = groups(engine).await;
            assert!(found.len() == 2 || found == after, "{found:?}");
            all_content(pool);
        },
        async |engine, pool| {
            assert_eq!(groups(engine).await, after);
            assert_eq!(member(engine, "two", "a").await.carried, [generation(2)]);
            assert_eq!(member(engine, "two", "c").await.carried, [generation(4)]);
            all_content(pool);
        },
    )
    .await;
    assert!(steps >= 5, "only {steps} steps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_member_leaves_its_group_and_the_last_takes_it_along_at_every_step() {
    for (volume, after) in
        [("b", shape(&[("one", &["a"]), ("two", &["c"])])), ("a", shape(&[("two", &["b", "c"])]))]
    {
        let steps = at_every_step(
            |engine| async move { engine.delete_replica(name(volume)).await },
            async |engine, pool| {
                let found = groups(engine).await;
                let gone = found == after;
                assert!(gone || found == shape(&[("one", &["a"]), ("two", &["b", "c"])]));
                all_content(pool);
            },
            async |engine, pool| {
                assert_eq!(groups(engine).await, after);
                assert!(!disk(pool, volume).exists());
                for other in VOLUMES.into_iter().filter(|v| *v != volume) {
                    content(pool, other);
                }
            },
        )
        .await;
        assert!(steps >= 3, "only {steps} steps");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expanded_replica_has_the_old_size_or_the_new_one_at_every_step() {
    let size = async |engine: &Engine, volume: &str| {
        let status = engine.status().await.unwrap();
        let size = status.replica(&name(volume)).unwrap().size;
        let member = member(engine, "two", volume).await.size;
        assert_eq!(size.0, member);
        member
    };
    let steps = at_every_step(
        |engine| async move {
            engine.expand_replica(name("b"), ByteLen(3 * MIB)).await.map(|size| {
                assert_eq!(size, ByteLen(3 * MIB));
            })
        },
        async |engine, pool| {
            assert!([MIB, 3 * MIB].contains(&size(engine, "b").await));
            all_content(pool);
        },
        async |engine, pool| {
            assert_eq!(size(engine, "b").await, 3 * MIB);
            assert_eq!(size(engine, "c").await, MIB);
            assert_eq!(std::fs::metadata(disk(pool, "b")).unwrap().len(), 3 * MIB);
            all_content(pool);
            let error = engine.expand_replica(name("b"), ByteLen(2 * MIB)).await.unwrap_err();
            assert_eq!(error.refusal, Refusal::WrongState, "{error}");
        },
    )
    .await;
    assert!(steps >= 2, "only {steps} steps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_t_be_taken_over_is_refused_by_name_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path()).await;
    let d = Member { volume: name("d"), size: ByteLen(MIB) };
    engine.create_replica(d.clone()).await.unwrap();
    let peer = Some(Address::Unix("/nowhere.sock".into()));
    engine.start(Start { peer: peer.clone(), ..start("four", 2, &["d"]) }).await.unwrap();
    let before = groups(&engine).await;
    let cases = [
        (adopt("t", 3, &["a", "b"]), Refusal::WrongState, "group two is of generation 4-"),
        (adopt("t", 6, &["a", "d"]), Refusal::WrongState, "replicates to unix:/nowhere.sock"),
        (adopt("two", 6, &["a", "b"]), Refusal::Exists, "volume c"),
        (adopt("t", 6, &["a", "none"]), Refusal::NotFound, "volume none"),
        (start("t", 6, &["a", "b"]), Refusal::WrongState, "belongs to group one"),
        (Start { peer, ..adopt("four", 4, &["d", "a"]) }, Refusal::WrongState, "replicates to"),
    ];
    for (start, refusal, word) in cases {
        let error = engine.start(start).await.unwrap_err();
        assert_eq!(error.refusal, refusal, "{error}");
        assert!(error.message.contains(word), "{error}");
        assert_eq!(groups(&engine).await, before);
    }
    // A volume that a group is to lose goes to another one first.
    engine.start(adopt("c", 5, &["c"])).await.unwrap();
    engine.start(adopt("two", 6, &["a", "b"])).await.unwrap();
    let expected = shape(&[("c", &["c"]), ("four", &["d"]), ("two", &["a", "b"])]);
    assert_eq!(groups(&engine).await, expected);
    // And the same members go on in a later generation.
    engine.start(adopt("two", 8, &["a", "b"])).await.unwrap();
    assert_eq!(member(&engine, "two", "b").await.carried, [generation(4), generation(6)]);
    end(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_numbers_grow_over_restarts_and_generations_that_are_carried() {
    let dir = tempfile::tempdir().unwrap();
    let engine = fresh(dir.path()).await;
    let b = name("b");
    assert_eq!(engine.open_session(b.clone(), generation(4)).await.unwrap(), 1);
    end(engine).await;
    let engine = open(dir.path()).await;
    assert_eq!(engine.open_session(b.clone(), generation(4)).await.unwrap(), 2);
    engine.start(adopt("t", 6, &["b"])).await.unwrap();
    assert_eq!(engine.open_session(b.clone(), generation(4)).await.unwrap(), 3);
    assert_eq!(engine.open_session(b.clone(), generation(6)).await.unwrap(), 4);
    for (number, refusal) in [(2, Refusal::WrongState), (7, Refusal::Unavailable)] {
        let error = engine.open_session(b.clone(), generation(number)).await.unwrap_err();
        assert_eq!(error.refusal, refusal, "{error}");
    }
    let nobody = engine.open_session(name("none"), generation(6)).await.unwrap_err();
    assert_eq!(nobody.refusal, Refusal::NotFound);
    engine.close_session(b.clone(), 4).await.unwrap();
    engine.close_session(b, 99).await.unwrap();
    engine.close_session(name("none"), 1).await.unwrap();
    end(engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_closed_for_a_change_is_waited_for_and_never_left_out() {
    let pool = tempfile::tempdir().unwrap();
    let engine = fresh(pool.path()).await;
    let structure = engine.structure.clone().lock_owned().await;
    let paused = engine.pause(vec![name("two")], None).await.unwrap();
    let asked = tokio::spawn({
        let engine = engine.clone();
        async move { engine.status().await.map(|status| status.groups.len()) }
    });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(!asked.is_finished(), "half of the truth was told");
    engine.settle(paused.names().to_vec()).await.unwrap();
    drop(paused);
    drop(structure);
    assert_eq!(asked.await.unwrap().unwrap(), 2);

    // Not without limit: then it is said, and nothing else.
    let structure = engine.structure.clone().lock_owned().await;
    let paused = engine.pause(vec![name("two")], None).await.unwrap();
    let late = engine.status().await.unwrap_err();
    assert_eq!(late.refusal, Refusal::Unavailable);
    assert!(late.message.contains("two is closed for a change"), "{}", late.message);
    engine.settle(paused.names().to_vec()).await.unwrap();
    drop((paused, structure));
    end(engine).await;
}
