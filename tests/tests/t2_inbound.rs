//! T2: a real QEMU primary replicates into our inbound export, and a failover gives its checkpoint.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use understudy_core::engine::api::{
    ByteLen, ExportKind, Failover, Generation, GroupId, Member, Policy, Role, Start,
};
use understudy_tests::harness::engine::Engine;
use understudy_tests::harness::nbd::Client;
use understudy_tests::harness::tools;
use understudy_tests::qemu::Primary;

const SIZE: u64 = 4 << 20;

fn filled(byte: u8) -> Vec<u8> {
    vec![byte; 1 << 20]
}

#[test]
fn a_qemu_primary_replicates_into_the_inbound_export() {
    if tools::require("inbound from QEMU", ["qemu-system-x86_64"]).is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::start("b", directory.path(), &[]).unwrap();
    let member = Member { volume: "disk0".parse().unwrap(), size: ByteLen(SIZE) };
    let group: GroupId = "vm".parse().unwrap();
    let generation = Generation { number: 2, id: 7 };
    engine.create_replica(&member).unwrap();
    let start = Start {
        group: group.clone(),
        generation,
        role: Role::Secondary,
        members: vec![member.clone()],
        peer: None,
        policy: Policy { checkpoint_interval: None, ..Policy::default() },
        inbound: true,
        adopt: false,
    };
    engine.start_group(&start).unwrap();
    let inbound = engine.export(&group, &member.volume, ExportKind::Inbound).unwrap();
    let mut qemu = Primary::start(directory.path(), SIZE, 0, &inbound).unwrap();
    let mut vm = Client::connect(&qemu.export()).unwrap();
    for mib in 0..4 {
        vm.write(mib << 20, &filled(0x11)).unwrap();
    }
    engine.checkpoint(&group, generation).unwrap();
    let view = || {
        let export = engine.export(&group, &member.volume, ExportKind::View).unwrap();
        Client::connect(&export).unwrap().read(0, SIZE).unwrap()
    };
    assert!(view().iter().all(|byte| *byte == 0x11), "the first copy");
    vm.write(1 << 20, &filled(0x22)).unwrap();
    assert!(view().iter().all(|byte| *byte == 0x11), "the view before the checkpoint");
    engine.checkpoint(&group, generation).unwrap();
    let expected = [filled(0x11), filled(0x22), filled(0x11), filled(0x11)].concat();
    assert!(view() == expected, "the view at the checkpoint");
    vm.write(0, &filled(0x33)).unwrap();
    vm.write(1 << 20, &filled(0x33)).unwrap();
    drop(vm);
    qemu.kill();
    let new = Generation { number: 4, id: 8 };
    let failover = Failover { group: group.clone(), replace: generation, new, keep_active: false };
    engine.failover(&failover).unwrap();
    let promoted = engine.export(&group, &member.volume, ExportKind::Primary).unwrap();
    let read = Client::connect(&promoted).unwrap().read(0, SIZE).unwrap();
    assert!(read == expected, "the promoted disk is not the checkpoint");
}
