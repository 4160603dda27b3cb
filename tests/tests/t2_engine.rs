//! The daemon as a process: replicas, groups, restarts, failover, limits and bad input.
//!
//! ```text
//!   engine a (primary) ── link over a Unix socket ──► engine b (secondary)
//!      ▲ NBD: writes                                     ▲ NBD: the view, then the promoted volume
//! ```

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use understudy_core::engine::api::{
    ByteLen, ExportKind, Generation, LinkState, Member, Policy, Refusal, Role, Stage, Start,
};
use understudy_core::engine::client::ClientError;
use understudy_tests::harness::engine::Engine;
use understudy_tests::harness::engines::{Engines, EnginesOptions};
use understudy_tests::harness::nbd::Client;
use understudy_tests::harness::nbd_address::{Export, Socket};

const MIB: u64 = 1 << 20;
const KIB64: usize = 64 << 10;

fn member(volume: &str, size: u64) -> Member {
    Member { volume: volume.parse().unwrap(), size: ByteLen(size) }
}

fn generation(number: u64) -> Generation {
    Generation { number, id: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

fn solo(group: &str, members: Vec<Member>) -> Start {
    Start {
        group: group.parse().unwrap(),
        generation: generation(2),
        role: Role::Primary,
        members,
        peer: None,
        policy: Policy::default(),
        inbound: false,
        adopt: false,
    }
}

fn refusal(error: &anyhow::Error) -> (Refusal, String) {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Refused { refusal, message }) => (*refusal, message.clone()),
        _ => panic!("no refusal: {error:#}"),
    }
}

/// The whole path, with a clean restart and a kill of either side on the way.
fn checkpoint_restart_failover(flags: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let mut options = EnginesOptions::new(&[4 * MIB, 8 * MIB], Policy::default());
    options.flags = flags.iter().map(|f| (*f).to_owned()).collect();
    let mut pair = Engines::start(directory.path(), &options).unwrap();
    let volumes: Vec<_> = pair.members.iter().map(|m| m.volume.clone()).collect();

    let write = |pair: &Engines, byte: u8| {
        for v in &volumes {
            pair.open_primary(v).unwrap().write(MIB, &vec![byte; KIB64]).unwrap();
        }
    };
    write(&pair, 0x22);
    let before = pair.checkpoint().unwrap();

    // Each side once killed, once ended cleanly: it finds its replicas and its role again.
    pair.secondary.restart().unwrap();
    pair.primary.restart().unwrap();
    let status = pair.primary.group(&pair.group).unwrap();
    assert_eq!((status.role, status.stage), (Some(Role::Primary), Stage::Running));
    write(&pair, 0x33);
    let after = pair.checkpoint().unwrap();
    assert!(after > before, "{after} after {before}");
    for side in [&mut pair.secondary, &mut pair.primary] {
        let process = side.process().unwrap();
        process.signal("TERM").unwrap();
        let status = process.wait(Duration::from_secs(15)).unwrap();
        assert!(status.success(), "{status}: {}", side.log());
        side.restart().unwrap();
    }
    write(&pair, 0x44);
    pair.checkpoint().unwrap();

    // Written after the last checkpoint: not in the view, and gone after the failover.
    write(&pair, 0x55);
    pair.quiesce().unwrap();
    let mut view = pair.open_on_secondary(&volumes[0], ExportKind::View).unwrap();
    assert_eq!(view.read(MIB, 4096).unwrap(), vec![0x44; 4096]);

    pair.primary.kill();
    pair.failover(false).unwrap();
    assert!(view.read(MIB, 4096).is_err(), "a view of the old generation is of no more use");
    for (v, m) in volumes.iter().zip(&pair.members) {
        let mut promoted = pair.open_on_secondary(v, ExportKind::Primary).unwrap();
        let mut expected = vec![0x11; usize::try_from(m.size.0).unwrap()];
        expected[1 << 20..][..KIB64].fill(0x44);
        assert!(promoted.read(0, m.size.0).unwrap() == expected, "{v} is not the checkpoint");
        promoted.write(0, &[0x66; 4096]).unwrap();
    }
    pair.wait_for_commit().unwrap();
    pair.secondary.restart().unwrap();
    let status = pair.secondary.group(&pair.group).unwrap();
    assert_eq!((status.role, status.stage), (Some(Role::Primary), Stage::Done));
    for v in &volumes {
        let mut promoted = pair.open_on_secondary(v, ExportKind::Primary).unwrap();
        assert_eq!(promoted.read(0, 4096).unwrap(), [0x66; 4096]);
        assert_eq!(promoted.read(MIB, 4096).unwrap(), [0x44; 4096]);
    }
}

#[test]
fn a_group_survives_restarts_of_both_engines_and_the_loss_of_its_primary() {
    checkpoint_restart_failover(&[]);
}

#[test]
fn and_so_it_does_over_several_shards() {
    checkpoint_restart_failover(&["--shards", "3"]);
}

#[test]
fn a_volume_is_reached_from_whichever_shard_a_client_comes_in() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::start("a", directory.path(), &["--shards", "3"]).unwrap();
    for n in 0..6 {
        let m = member(&format!("disk{n}"), MIB);
        engine.create_replica(&m).unwrap();
        engine.start_group(&solo(&format!("group{n}"), vec![m])).unwrap();
    }
    for n in 0..6_u8 {
        let (group, volume) =
            (format!("group{n}").parse().unwrap(), format!("disk{n}").parse().unwrap());
        let export = engine.export(&group, &volume, ExportKind::Primary).unwrap();
        for _ in 0..3 {
            let mut client = Client::connect(&export).unwrap();
            client.write(0, &[n; 4096]).unwrap();
            assert_eq!(client.read(0, 4096).unwrap(), [n; 4096]);
        }
    }
}

#[test]
fn replicas_come_and_go_idempotently_and_not_under_a_group_that_runs() {
    let directory = tempfile::tempdir().unwrap();
    let mut engine = Engine::start("a", directory.path(), &[]).unwrap();
    let m = member("db", MIB);
    engine.create_replica(&m).unwrap();
    let uuid = engine.status().unwrap().replica(&m.volume).unwrap().uuid;
    engine.create_replica(&m).unwrap();
    let (kind, text) = refusal(&engine.create_replica(&member("db", 2 * MIB)).unwrap_err());
    assert_eq!(kind, Refusal::Exists, "{text}");
    engine.restart().unwrap();
    assert_eq!(engine.status().unwrap().replica(&m.volume).unwrap().uuid, uuid);

    let peer = Some(engine.link_address());
    let start = Start { peer, ..solo("vm", vec![m.clone()]) };
    engine.start_group(&start).unwrap();
    engine.start_group(&start).unwrap();
    let (kind, text) = refusal(&engine.delete_replica(&m.volume).unwrap_err());
    assert_eq!(kind, Refusal::WrongState, "{text}");
    assert!(text.contains("group vm"), "{text}");
    engine.delete_replica(&"nothing".parse().unwrap()).unwrap();
}

#[test]
fn bad_input_is_refused_whole_with_its_name_and_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::start("a", directory.path(), &[]).unwrap();
    engine.create_replica(&member("db", MIB)).unwrap();
    engine.create_replica(&member("log", MIB)).unwrap();

    let cases: Vec<(Start, Refusal, &str)> = vec![
        (solo("vm", vec![member("none", MIB)]), Refusal::NotFound, "volume none"),
        (solo("vm", vec![member("db", 2 * MIB)]), Refusal::Exists, "volume db"),
        (solo("vm", vec![]), Refusal::Invalid, "members"),
        (
            solo("vm", vec![member("db", MIB), member("db", MIB)]),
            Refusal::Invalid,
            "members[1].volume",
        ),
        (
            Start {
                generation: Generation { number: 0, id: 1 },
                ..solo("vm", vec![member("db", MIB)])
            },
            Refusal::Invalid,
            "generation",
        ),
    ];
    for (start, kind, word) in cases {
        let (was, text) = refusal(&engine.start_group(&start).unwrap_err());
        assert_eq!(was, kind, "{text}");
        assert!(text.contains(word), "{text}");
        assert!(engine.status().unwrap().groups.is_empty(), "nothing is half-made");
    }
    engine.start_group(&solo("vm", vec![member("db", MIB)])).unwrap();
    let (kind, text) =
        refusal(&engine.start_group(&solo("other", vec![member("db", MIB)])).unwrap_err());
    assert_eq!(kind, Refusal::WrongState, "{text}");
    let both = solo("vm", vec![member("db", MIB), member("log", MIB)]);
    let (kind, text) = refusal(&engine.start_group(&both).unwrap_err());
    assert_eq!(kind, Refusal::Exists, "{text}");
    let vm = "vm".parse().unwrap();
    let (kind, text) = refusal(&engine.checkpoint(&vm, generation(1)).unwrap_err());
    assert_eq!(kind, Refusal::WrongState, "{text}");
    let (kind, text) =
        refusal(&engine.checkpoint(&"none".parse().unwrap(), generation(2)).unwrap_err());
    assert_eq!(kind, Refusal::NotFound, "{text}");
    let export = engine.export(&vm, &"db".parse().unwrap(), ExportKind::Primary).unwrap();
    let stale = Export { name: export.name.replace('2', "1"), ..export.clone() };
    let text = Client::connect(&stale).err().expect("a stale name is refused").to_string();
    assert!(text.contains(&export.name), "it says what there is: {text}");
}

#[test]
fn a_damaged_superblock_or_label_is_listed_and_refused_and_the_rest_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let mut engine = Engine::start("a", directory.path(), &[]).unwrap();
    for v in ["good", "bad", "lost"] {
        engine.create_replica(&member(v, MIB)).unwrap();
    }
    engine.start_group(&solo("sound", vec![member("good", MIB)])).unwrap();
    engine.start_group(&solo("broken", vec![member("bad", MIB)])).unwrap();
    engine.kill();
    let pool = directory.path().join("a/pool");
    spoil(&pool.join("groups/broken/superblock"));
    spoil(&pool.join("volumes/lost/label"));
    std::fs::create_dir(pool.join("volumes/.new-half")).unwrap();
    engine.restart().unwrap();

    let status = engine.status().unwrap();
    let broken = status.group(&"broken".parse().unwrap()).unwrap();
    assert!(broken.error.as_ref().is_some_and(|e| e.contains("broken")), "{:?}", broken.error);
    assert!(status.replica(&"lost".parse().unwrap()).is_none());
    let (kind, text) =
        refusal(&engine.start_group(&solo("broken", vec![member("bad", MIB)])).unwrap_err());
    assert_eq!(kind, Refusal::DataLoss, "{text}");
    let (kind, text) = refusal(&engine.delete_replica(&"bad".parse().unwrap()).unwrap_err());
    assert_eq!(kind, Refusal::WrongState, "{text}");
    let (kind, text) = refusal(&engine.create_replica(&member("lost", MIB)).unwrap_err());
    assert_eq!(kind, Refusal::DataLoss, "{text}");
    assert!(!pool.join("volumes/.new-half").exists(), "leftovers are swept");
    let (group, volume) = ("sound".parse().unwrap(), "good".parse().unwrap());
    let export = engine.export(&group, &volume, ExportKind::Primary).unwrap();
    assert_eq!(Client::connect(&export).unwrap().read(0, 4096).unwrap(), [0; 4096]);
}

/// Flips a bit in the middle of each 4 KiB of a file.
fn spoil(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    for block in bytes.chunks_mut(4096) {
        block[20] ^= 1;
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_second_engine_on_a_pool_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = Engine::start("a", directory.path(), &[]).unwrap();
    let program = understudy_tests::harness::tools::own("understudyd").unwrap();
    let out = std::process::Command::new(program)
        .arg("--pool")
        .arg(directory.path().join("a/pool"))
        .arg("--api")
        .arg(format!("unix:{}", directory.path().join("second.sock").display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && text.contains("in use by another engine"), "{text}");
    assert!(text.contains(&first.process().unwrap().pid().to_string()), "{text}");
}

#[test]
fn strangers_garbage_and_crowds_hurt_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::start("a", directory.path(), &[]).unwrap();
    let m = member("db", MIB);
    engine.create_replica(&m).unwrap();
    engine.start_group(&solo("vm", vec![m.clone()])).unwrap();
    let group = "vm".parse().unwrap();
    let export = engine.export(&group, &m.volume, ExportKind::Primary).unwrap();
    let Socket::Unix(nbd) = export.socket.clone() else { panic!("not a Unix socket") };
    let link = nbd.with_file_name("link.sock");
    let mut client = Client::connect(&export).unwrap();

    // Garbage is closed, whatever it claims.
    for path in [&nbd, &link] {
        for garbage in [vec![0xff; 4096], b"USLK\x01\x01\xff\xff".repeat(600), vec![0; 1]] {
            let mut s = UnixStream::connect(path).unwrap();
            let _ = s.write_all(&garbage);
            let _ = s.shutdown(std::net::Shutdown::Write);
            s.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let _ = s.read_to_end(&mut Vec::new());
        }
    }
    // A crowd that says nothing: some hold a place for a while, the others are closed at once.
    let began = Instant::now();
    for path in [&nbd, &link] {
        let mut crowd = Vec::new();
        for i in 0..5000 {
            let s = UnixStream::connect(path).unwrap_or_else(|e| panic!("connection {i}: {e}"));
            if i % 10 == 0 {
                crowd.push(s);
            }
        }
        client.write(4096, &[7; 4096]).unwrap();
        assert_eq!(client.read(4096, 4096).unwrap(), [7; 4096]);
        engine.group(&group).unwrap();
    }
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    // Once the crowd has gone there is room again.
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match Client::connect(&export) {
            Ok(_) => break,
            Err(e) if Instant::now() > end => panic!("no room for a new client: {e}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    assert_eq!(engine.group(&group).unwrap().link, LinkState::Solo);
}
