//! Groups that change under load: volumes taken over, leaving, growing; and who may write.
//!
//! ```text
//!   load ─► device (one export name for ever, connects again) ─► engine a ── link ──► engine b
//!                      no request may fail; only a device that is gone for good ends
//! ```

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use understudy_core::engine::api::{
    ByteLen, ExportKind, Generation, GroupId, LinkState, Member, Policy, Refusal, Role, Start,
    VolumeId,
};
use understudy_core::engine::client::ClientError;
use understudy_tests::harness::device::{BLOCK, Device, GONE, LATER, Load, PATIENCE, content};
use understudy_tests::harness::engine::Engine;
use understudy_tests::harness::engines::{Engines, EnginesOptions};
use understudy_tests::harness::nbd::Client;
use understudy_tests::harness::nbd_address::Export;

const MIB: u64 = 1 << 20;

fn member(volume: &str, size: u64) -> Member {
    Member { volume: volume.parse().unwrap(), size: ByteLen(size) }
}

fn generation(number: u64) -> Generation {
    Generation { number, id: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

fn start(group: &str, number: u64, members: &[Member]) -> Start {
    Start {
        group: group.parse().unwrap(),
        generation: generation(number),
        role: Role::Primary,
        members: members.to_vec(),
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

fn refused(export: &Export) -> String {
    match Client::connect(export) {
        Err(e) => e.to_string(),
        Ok(_) => panic!("{export} is not refused"),
    }
}

fn wait_in_sync(engine: &Engine, group: &GroupId) {
    engine
        .wait_for(group, "a peer in sync", |s| s.link == LinkState::Running && s.missing.0 == 0)
        .unwrap();
}

#[test]
fn volumes_under_load_are_taken_over_into_a_replicated_group_and_no_request_fails() {
    for flags in [&[][..], &["--shards", "3"]] {
        taken_over_under_load(flags);
    }
}

fn taken_over_under_load(flags: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let mut a = Engine::start("a", directory.path(), flags).unwrap();
    let mut b = Engine::start("b", directory.path(), flags).unwrap();
    let members = [member("pvc-1", 4 * MIB), member("pvc-2", 4 * MIB)];
    let mut loads = Vec::new();
    let mut names = Vec::new();
    for (m, number) in members.iter().zip([2, 4]) {
        a.create_replica(m).unwrap();
        a.start_group(&start(m.volume.as_str(), number, std::slice::from_ref(m))).unwrap();
        let session = a.open_session(&m.volume, generation(number)).unwrap();
        let name = format!("{}/primary@{}#{session}", m.volume, generation(number));
        loads.push(Load::begin(a.named(&name), 4 * MIB / BLOCK));
        names.push(name);
        b.create_replica(m).unwrap();
    }
    loads.iter().for_each(Load::goes_on);

    let group: GroupId = "ns.vm".parse().unwrap();
    let wanted = start("ns.vm", 6, &members);
    b.start_group(&Start { role: Role::Secondary, ..wanted.clone() }).unwrap();
    let adopt = Start { adopt: true, peer: Some(b.link_address()), ..wanted };
    a.start_group(&adopt).unwrap();
    a.start_group(&adopt).unwrap();
    loads.iter().for_each(Load::goes_on);
    let status = a.status().unwrap();
    assert_eq!(status.groups.iter().map(|g| g.group.as_str()).collect::<Vec<_>>(), ["ns.vm"]);
    let clients: Vec<u32> = status.groups[0].exports.iter().map(|e| e.clients).collect();
    assert_eq!(clients, [1, 1], "devices of the older generation are counted");
    wait_in_sync(&a, &group);
    a.checkpoint(&group, generation(6)).unwrap();

    // What is carried over is so after a restart too, on either side.
    a.restart().unwrap();
    loads.iter().for_each(Load::goes_on);
    b.restart().unwrap();
    wait_in_sync(&a, &group);
    loads.iter().for_each(Load::goes_on);

    // The end of the replication, and another group after it.
    a.stop(&group, generation(6), false).unwrap();
    a.start_group(&Start { adopt: true, ..start("later", 8, &members) }).unwrap();
    loads.iter().for_each(Load::goes_on);
    for m in &members {
        b.delete_replica(&m.volume).unwrap();
        b.create_replica(m).unwrap();
    }
    let later: GroupId = "later".parse().unwrap();
    b.start_group(&Start { role: Role::Secondary, ..start("later", 8, &members) }).unwrap();
    let again = Start { adopt: true, peer: Some(b.link_address()), ..start("later", 8, &members) };
    a.start_group(&again).unwrap();
    wait_in_sync(&a, &later);
    loads.iter().for_each(Load::goes_on);

    let mut written = Vec::new();
    for (load, name) in loads.into_iter().zip(&names) {
        let (mut device, stamps) = load.end();
        let all = device.request(|c| c.read(0, 4 * MIB)).unwrap();
        assert!(all == content(&stamps), "{name} holds what was written");
        written.push(all);
    }
    a.checkpoint(&later, generation(8)).unwrap();
    a.kill();
    let failover = understudy_core::engine::api::Failover {
        group: later.clone(),
        replace: generation(8),
        new: generation(10),
        keep_active: false,
    };
    b.failover(&failover).unwrap();
    for ((m, name), written) in members.iter().zip(&names).zip(&written) {
        // Only a fresh attach sees the promoted disk (invariant 7).
        assert!(refused(&b.named(name)).contains(GONE));
        assert!(
            refused(&b.named(&format!("{}/primary@{}", m.volume, generation(8)))).contains(GONE)
        );
        let export = b.export(&later, &m.volume, ExportKind::Primary).unwrap();
        assert!(Client::connect(&export).unwrap().read(0, 4 * MIB).unwrap() == *written);
    }
}

#[test]
fn a_running_group_grows_secondary_first_under_load() {
    let directory = tempfile::tempdir().unwrap();
    let options = EnginesOptions::new(&[2 * MIB, MIB], Policy::default());
    let mut pair = Engines::start(directory.path(), &options).unwrap();
    let volume = pair.members[0].volume.clone();
    let session = pair.primary.open_session(&volume, pair.generation).unwrap();
    let name = format!("{volume}/primary@{}#{session}", pair.generation);
    {
        // The load's own picture of its part begins with zeroes.
        let mut client = pair.open_primary(&volume).unwrap();
        client.write_zeroes(0, MIB, false).unwrap();
    }
    let load = Load::begin(pair.primary.named(&name), MIB / BLOCK);
    load.goes_on();
    let size = ByteLen(5 * MIB);
    for _ in 0..2 {
        assert_eq!(pair.secondary.expand_replica(&volume, size).unwrap(), size);
    }
    wait_in_sync(&pair.primary, &pair.group);
    pair.checkpoint().unwrap();
    load.goes_on();
    for _ in 0..2 {
        assert_eq!(pair.primary.expand_replica(&volume, size).unwrap(), size);
    }
    load.goes_on();
    let (kind, text) = refusal(&pair.primary.expand_replica(&volume, ByteLen(MIB)).unwrap_err());
    assert_eq!(kind, Refusal::WrongState, "{text}");
    wait_in_sync(&pair.primary, &pair.group);

    let (mut device, stamps) = load.end();
    device.disconnect();
    let mut all = device.request(|c| c.read(0, c.size())).unwrap();
    assert_eq!(all.len(), 5 << 20, "the device has its new size once it connects again");
    let mut expected = content(&stamps);
    expected.resize(2 << 20, 0x11);
    expected.resize(5 << 20, 0);
    assert!(all == expected, "old content, and zeroes behind it");
    device.request(|c| c.write(4 * MIB, &[0x77; 4096])).unwrap();
    all[4 << 20..][..4096].fill(0x77);
    pair.checkpoint().unwrap();
    device.request(|c| c.write(0, &[0x99; 4096])).unwrap();
    pair.quiesce().unwrap();
    let mut view = pair.open_on_secondary(&volume, ExportKind::View).unwrap();
    assert_eq!(view.size(), 5 * MIB);
    assert!(view.read(0, 5 * MIB).unwrap() == all);
    pair.primary.restart().unwrap();
    pair.secondary.restart().unwrap();
    pair.primary.kill();
    pair.failover(false).unwrap();
    let mut promoted = pair.open_on_secondary(&volume, ExportKind::Primary).unwrap();
    assert!(promoted.read(0, 5 * MIB).unwrap() == all);
}

#[test]
fn of_two_sessions_the_later_waits_for_the_earlier_and_ends_it_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let mut a = Engine::start("a", directory.path(), &[]).unwrap();
    let m = member("pvc-1", MIB);
    a.create_replica(&m).unwrap();
    a.start_group(&start("pvc-1", 2, std::slice::from_ref(&m))).unwrap();
    let plain = a.named(&format!("pvc-1/primary@{}", generation(2)));
    let session = |a: &Engine| {
        let number = a.open_session(&m.volume, generation(2)).unwrap();
        (number, a.named(&format!("pvc-1/primary@{}#{number}", generation(2))))
    };
    let ((one, first), (two, second)) = (session(&a), session(&a));
    assert!(two > one);
    let never = a.named(&format!("pvc-1/primary@{}#{}", generation(2), two + 1));
    assert!(refused(&never).contains(LATER));

    let mut tool = Client::connect(&plain).unwrap();
    tool.write(0, &[1; 4096]).unwrap();
    let mut client = Client::connect(&first).unwrap();
    client.write(0, &[2; 4096]).unwrap();
    assert!(tool.read(0, 4096).is_err(), "a tool is cut when a session is let in");
    for busy in [&second, &plain] {
        let text = refused(busy);
        assert!(text.contains(LATER) && text.contains("in use by session"), "{text}");
    }
    // A second connection of the same session is welcome.
    Client::connect(&first).unwrap().flush().unwrap();
    drop(client);
    let text = refused(&second);
    assert!(text.contains(LATER), "it may be reconnecting: {text}");
    Client::connect(&first).unwrap().write(4096, &[2; 4096]).unwrap();
    a.restart().unwrap();
    assert!(refused(&second).contains(LATER), "nor is it known after a restart");
    a.close_session(&m.volume, one).unwrap();
    let mut client = Client::connect(&second).unwrap();
    // Let in by its first request, not by its handshake.
    client.write(8192, &[3; 4096]).unwrap();
    let text = refused(&first);
    assert!(text.contains(GONE), "{text}");
    a.restart().unwrap();
    assert!(refused(&first).contains(GONE), "a session that has ended has ended for ever");
    let mut client = Client::connect(&second).unwrap();
    let expected = [[2; 8192].as_slice(), &[3; 4096]].concat();
    assert_eq!(client.read(0, 12288).unwrap(), expected);

    // Without a word of the consumer the next one waits for a while.
    drop(client);
    let (_, third) = session(&a);
    let began = Instant::now();
    let mut device = Device::new(third);
    device.request(|c| c.write(0, &[4; 4096])).unwrap();
    assert!(began.elapsed() > Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn a_volume_in_use_is_not_deleted_and_one_that_is_not_leaves_its_group() {
    let directory = tempfile::tempdir().unwrap();
    let mut a = Engine::start("a", directory.path(), &[]).unwrap();
    let members = [member("pvc-1", MIB), member("pvc-2", MIB)];
    for m in &members {
        a.create_replica(m).unwrap();
    }
    a.start_group(&start("vm", 2, &members)).unwrap();
    let [one, two]: [VolumeId; 2] = members.clone().map(|m| m.volume);
    let name = |v: &VolumeId| format!("{v}/primary@{}", generation(2));
    let load = Load::begin(a.named(&name(&two)), MIB / BLOCK);
    load.goes_on();
    let mut client = Client::connect(&a.named(&name(&one))).unwrap();
    client.write(0, &[1; 4096]).unwrap();
    let (kind, text) = refusal(&a.delete_replica(&one).unwrap_err());
    assert_eq!(kind, Refusal::WrongState, "{text}");
    assert!(text.contains("1 NBD connection"), "{text}");
    client.write(0, &[2; 4096]).unwrap();
    drop(client);
    let end = Instant::now() + PATIENCE;
    while let Err(e) = a.delete_replica(&one) {
        assert!(Instant::now() < end, "{e:#}");
        std::thread::sleep(Duration::from_millis(10));
    }
    load.goes_on();
    assert!(refused(&a.named(&name(&one))).contains(LATER));
    a.restart().unwrap();
    load.goes_on();
    let (mut device, stamps) = load.end();
    assert!(device.request(|c| c.read(0, MIB)).unwrap() == content(&stamps));
    drop(device);
    let end = Instant::now() + PATIENCE;
    while let Err(e) = a.delete_replica(&two) {
        assert!(Instant::now() < end, "{e:#}");
        std::thread::sleep(Duration::from_millis(10));
    }
    let status = a.status().unwrap();
    assert!(status.groups.is_empty() && status.replicas.is_empty(), "{status:?}");
}
