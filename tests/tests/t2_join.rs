//! A volume joins a running pair of real engines, under load; a failover keeps it, or leaves it behind.
//!
//! ```text
//!   load ─► pvc-1 ─┐                                        ┌─ record covers it ─► failover has both
//!   load ─► pvc-2 ─┴─► group on a ── link ──► group on b ───┤
//!           (solo before)          b is killed meanwhile    └─ not yet ─► failover has pvc-1
//! ```

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use understudy_core::engine::api::{
    ByteLen, ExportKind, Failover, Generation, GroupId, GroupStatus, LinkState, Member, Policy,
    Role, Start, VolumeId,
};
use understudy_tests::harness::device::{BLOCK, Load, content};
use understudy_tests::harness::engine::Engine;
use understudy_tests::harness::nbd::Client;

const MIB: u64 = 1 << 20;

/// The part of each volume that is under load; the rest is filled.
const LOADED: u64 = MIB;

/// What joins: so much of it is filled that the resync takes its time.
const LARGE: u64 = 24 * MIB;

fn generation(number: u64) -> Generation {
    Generation { number, id: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

fn member(volume: &str, size: u64) -> Member {
    Member { volume: volume.parse().unwrap(), size: ByteLen(size) }
}

struct Stage {
    a: Engine,
    b: Engine,
    group: GroupId,
    /// Those of the group; the second one joins.
    members: [Member; 2],
    policy: Policy,
    /// The session of each volume's consumer.
    exports: [String; 2],
    _directory: tempfile::TempDir,
}

impl Stage {
    /// pvc-1 in a pair of generation 4, pvc-2 alone on a in generation 2, filled with 0x22.
    fn new(ceiling: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let a = Engine::start("a", directory.path(), &[]).unwrap();
        let b = Engine::start("b", directory.path(), &[]).unwrap();
        let policy = Policy {
            checkpoint_interval: Some(Duration::from_millis(50)),
            resync_ceiling: Some(ByteLen(ceiling)),
            ..Policy::default()
        };
        let members = [member("pvc-1", LOADED), member("pvc-2", LARGE)];
        let stage = |exports| Self {
            a,
            b,
            group: "ns.vm".parse().unwrap(),
            members,
            policy,
            exports,
            _directory: directory,
        };
        let mut stage = stage([String::new(), String::new()]);
        stage.begin();
        stage
    }

    fn begin(&mut self) {
        let [first, second] = self.members.clone();
        for m in [&first, &second] {
            self.a.create_replica(m).unwrap();
        }
        self.b.create_replica(&first).unwrap();
        self.b.start_group(&self.start(Role::Secondary, 1)).unwrap();
        self.a.start_group(&self.start(Role::Primary, 1)).unwrap();
        let alone = Start {
            group: second.volume.clone(),
            generation: generation(2),
            members: vec![second.clone()],
            peer: None,
            adopt: false,
            ..self.start(Role::Primary, 1)
        };
        self.a.start_group(&alone).unwrap();
        let export = self.a.export(&second.volume, &second.volume, ExportKind::Primary).unwrap();
        let mut client = Client::connect(&export).unwrap();
        for at in 1..LARGE / MIB {
            client.write(at * MIB, &vec![0x22; 1 << 20]).unwrap();
        }
        drop(client);
        for (i, (m, number)) in [(first, 4), (second, 2)].into_iter().enumerate() {
            let session = self.a.open_session(&m.volume, generation(number)).unwrap();
            self.exports[i] = format!("{}/primary@{}#{session}", m.volume, generation(number));
        }
        self.wait("a", "a peer", |s| s.link == LinkState::Running && s.record.0 > 0);
    }

    /// The start of the first so many members in generation 4.
    fn start(&self, role: Role, count: usize) -> Start {
        let peer = (role == Role::Primary).then(|| self.b.link_address());
        Start {
            group: self.group.clone(),
            generation: generation(4),
            role,
            members: self.members[..count].to_vec(),
            peer,
            policy: self.policy.clone(),
            inbound: false,
            adopt: role == Role::Primary,
        }
    }

    fn loads(&self) -> [Load; 2] {
        self.exports.clone().map(|name| Load::begin(self.a.named(&name), LOADED / BLOCK))
    }

    fn engine(&self, node: &str) -> &Engine {
        if node == "a" { &self.a } else { &self.b }
    }

    fn wait(&self, node: &str, what: &str, holds: impl Fn(&GroupStatus) -> bool) {
        self.engine(node).wait_for(&self.group, what, holds).unwrap();
    }

    fn joining(&self, node: &str) -> Vec<VolumeId> {
        self.engine(node).group(&self.group).unwrap().joining
    }

    /// pvc-2 joins, secondary first; each is asked twice.
    fn join(&self) {
        self.b.create_replica(&self.members[1]).unwrap();
        for _ in 0..2 {
            self.b.start_group(&self.start(Role::Secondary, 2)).unwrap();
        }
        for _ in 0..2 {
            self.a.start_group(&self.start(Role::Primary, 2)).unwrap();
        }
    }

    fn failover(&self) {
        let group = self.group.clone();
        let (replace, new) = (generation(4), generation(6));
        self.b.failover(&Failover { group, replace, new, keep_active: false }).unwrap();
    }

    fn promoted(&self, v: usize) -> Vec<u8> {
        let export = self.b.export(&self.group, &self.members[v].volume, ExportKind::Primary);
        let mut client = Client::connect(&export.unwrap()).unwrap();
        client.read(0, client.size()).unwrap()
    }
}

/// What a volume holds whose first part was under load.
fn expected(stamps: &[u64], size: u64) -> Vec<u8> {
    let mut all = content(stamps);
    all.resize(usize::try_from(size).unwrap(), 0x22);
    all
}

#[test]
fn a_volume_joins_under_load_while_the_secondary_dies_and_the_failover_has_it() {
    let mut stage = Stage::new(8 * MIB);
    let loads = stage.loads();
    loads.iter().for_each(Load::goes_on);
    stage.join();
    loads.iter().for_each(Load::goes_on);
    let second = stage.members[1].volume.clone();
    assert_eq!(stage.joining("a"), std::slice::from_ref(&second));
    assert_eq!(stage.joining("b"), std::slice::from_ref(&second));
    // Meanwhile checkpoints complete.
    let before = stage.a.group(&stage.group).unwrap().record;
    stage.wait("a", "checkpoints", |s| s.link == LinkState::Running && s.record.0 > before.0 + 3);
    assert_eq!(stage.joining("a"), std::slice::from_ref(&second), "it joined too fast to be seen");
    let view = format!("{second}/view@{}", generation(4));
    let refused = Client::connect(&stage.b.named(&view)).err().unwrap().to_string();
    assert!(refused.contains("is joining its group"), "{refused}");

    stage.b.kill();
    loads.iter().for_each(Load::goes_on);
    stage.b.restart().unwrap();
    assert_eq!(stage.joining("b"), std::slice::from_ref(&second), "a restart covers nothing");
    for node in ["b", "a"] {
        stage.wait(node, "a checkpoint that covers it", |s| s.joining.is_empty());
    }
    loads.iter().for_each(Load::goes_on);
    assert!(Client::connect(&stage.b.named(&view)).is_ok());
    stage.a.restart().unwrap();
    loads.iter().for_each(Load::goes_on);

    let mut written = Vec::new();
    for (load, m) in loads.into_iter().zip(&stage.members) {
        let (mut device, stamps) = load.end();
        let all = device.request(|c| c.read(0, m.size.0)).unwrap();
        assert!(all == expected(&stamps, m.size.0), "{} holds what was written", m.volume);
        written.push(all);
    }
    stage.wait("a", "a peer", |s| s.link == LinkState::Running);
    stage.a.checkpoint(&stage.group, generation(4)).unwrap();
    stage.a.kill();
    stage.failover();
    for (v, written) in written.iter().enumerate() {
        assert!(stage.promoted(v) == *written, "volume {v} is what the checkpoint holds");
    }
}

#[test]
fn a_failover_before_the_record_leaves_the_volume_behind_and_the_old_node_keeps_it() {
    let mut stage = Stage::new(512 << 10);
    let loads = stage.loads();
    stage.join();
    loads.iter().for_each(Load::goes_on);
    let [(_, first), (_, second)] = loads.map(Load::end);
    stage.a.checkpoint(&stage.group, generation(4)).unwrap();
    let [one, two] = stage.members.clone();
    assert_eq!(stage.joining("b"), std::slice::from_ref(&two.volume));
    stage.a.kill();
    stage.failover();
    assert!(stage.promoted(0) == expected(&first, LOADED));
    let group_of = |engine: &Engine, m: &Member| {
        engine.status().unwrap().replica(&m.volume).unwrap().group.clone()
    };
    assert_eq!(group_of(&stage.b, &one), Some(stage.group.clone()));
    assert_eq!(group_of(&stage.b, &two), None, "left behind");
    assert_eq!(stage.joining("b"), [] as [VolumeId; 0]);
    stage.b.restart().unwrap();
    assert_eq!(group_of(&stage.b, &two), None, "after a restart too");

    // The old node comes back without it, and serves the only good copy once more.
    stage.a.restart().unwrap();
    let back = Start {
        generation: generation(6),
        peer: None,
        adopt: false,
        ..stage.start(Role::Secondary, 1)
    };
    for _ in 0..2 {
        stage.a.start_group(&back).unwrap();
    }
    assert_eq!(group_of(&stage.a, &two), None);
    let alone = Start {
        group: two.volume.clone(),
        generation: generation(8),
        members: vec![two.clone()],
        peer: None,
        ..stage.start(Role::Primary, 1)
    };
    stage.a.start_group(&alone).unwrap();
    let export = stage.a.export(&two.volume, &two.volume, ExportKind::Primary).unwrap();
    let all = Client::connect(&export).unwrap().read(0, LARGE).unwrap();
    assert!(all == expected(&second, LARGE), "nobody wrote over it");

    // And the pair comes together again.
    let again = Start {
        generation: generation(6),
        peer: Some(stage.a.link_address()),
        ..stage.start(Role::Primary, 1)
    };
    let began = Instant::now();
    while let Err(e) = stage.b.start_group(&again) {
        assert!(began.elapsed() < Duration::from_secs(20), "{e:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
    stage.wait("b", "a peer", |s| s.link == LinkState::Running && s.record.0 > 0);
}
