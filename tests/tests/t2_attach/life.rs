//! One device's life: attach, use, resize, refusals, failure, detach.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use understudy_core::engine::api::{ExportKind, Policy, Refusal, Role, Start};
use understudy_core::engine::attach::api::{Attach, DeviceState, EngineAddresses};
use understudy_core::runtime::Address;
use understudy_tests::harness::attach::{attach_to, possible};
use understudy_tests::harness::direct::Direct;
use understudy_tests::harness::engines::{Engines, EnginesOptions};
use understudy_tests::harness::nbd::Client;
use understudy_tests::harness::process::Child;
use understudy_tests::harness::tools;

use crate::stage::{MIB, Mounted, Stage, generation, run};

/// Reads past the page cache.
fn read_direct(device: &std::path::Path, at: u64, len: usize) -> std::io::Result<Vec<u8>> {
    Direct::open(device, false)?.read(at, u64::try_from(len).unwrap())
}

#[test]
fn a_file_system_on_a_device_is_what_the_volume_holds_and_a_discard_gives_its_space_back() {
    if !possible("t2_attach life") {
        return;
    }
    let stage = Stage::new("life", 64 * MIB);
    let device = stage.attach();
    assert_eq!(
        (device.state, device.size.0, device.read_only),
        (DeviceState::Serving, 64 * MIB, false)
    );
    assert_eq!(stage.attach(), stage.attachd.device(&stage.volume).unwrap(), "attached once");
    assert_eq!(stage.leftovers().mounts, Vec::<String>::new(), "nothing shows on the host");

    run("mkfs.ext4", ["-q", "-F", "-E", "nodiscard", &device.path.display().to_string()]);
    let mounted = Mounted::new(&device.path, &stage.directory().join("mnt"));
    let content: Vec<u8> = (0..3 * MIB).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
    std::fs::write(mounted.0.join("file"), &content).unwrap();

    // In use: refused in words, and nothing changed.
    let refused = stage.attachd.detach(&stage.volume).unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::WrongState), "{refused}");
    assert!(refused.to_string().contains("mounted at"), "{refused}");
    assert_eq!(std::fs::read(mounted.0.join("file")).unwrap(), content);
    let other = Attach { generation: generation(4), ..stage.wanted() };
    let refused = stage.attachd.attach(&other).unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::WrongState), "{refused}");
    let loop_number = device.path.file_name().unwrap().to_string_lossy().into_owned();
    let autoclear = format!("/sys/block/{loop_number}/loop/autoclear");
    assert_eq!(std::fs::read_to_string(autoclear).unwrap().trim(), "0");
    drop(mounted);

    // The same bytes by another way.
    run("e2fsck", ["-f", "-n", &device.path.display().to_string()]);
    let export = stage.engine.export(&stage.volume, &stage.volume, ExportKind::Primary);
    let from_device = read_direct(&device.path, 0, usize::try_from(64 * MIB).unwrap()).unwrap();
    stage.attachd.detach(&stage.volume).unwrap();
    let from_engine = Client::connect(&export.unwrap()).unwrap().read(0, 64 * MIB).unwrap();
    assert!(from_device == from_engine, "the device shows something else than the volume");
    stage.assert_nothing_is_left("after a detach");

    let device = stage.attach();
    let disk = stage.engine.disk_path(&stage.volume);
    let blocks = || std::fs::metadata(&disk).unwrap().blocks() * 512;
    let before = blocks();
    assert!(before > MIB, "{before}");
    run("blkdiscard", [&device.path]);
    assert!(blocks() < before / 8, "{} of {before} bytes are still there", blocks());
    assert!(read_direct(&device.path, 0, 4 << 20).unwrap().iter().all(|byte| *byte == 0));
    run("blkdiscard", ["-z", "-l", "1048576", &device.path.display().to_string()]);
    let io = stage.attachd.device(&stage.volume).unwrap().io;
    assert!(io.discards >= 2 && io.errors == 0, "{io:?}");
    stage.attachd.detach(&stage.volume).unwrap();
    stage.attachd.detach(&stage.volume).unwrap();
    stage.assert_nothing_is_left("at the end");
}

#[test]
fn detach_is_refused_under_another_loop_device_and_under_an_open_file() {
    if !possible("t2_attach in use") {
        return;
    }
    let stage = Stage::new("used", 8 * MIB);
    let device = stage.attach();
    let path = device.path.display().to_string();
    // What the kubelet does with every block volume.
    let over = run("losetup", ["--find", "--show", &path]);
    let refused = stage.attachd.detach(&stage.volume).unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::WrongState), "{refused}");
    assert!(refused.to_string().contains(over.trim()), "{refused}");
    run("losetup", ["--detach", over.trim()]);

    let open = std::fs::File::open(&device.path).unwrap();
    let refused = stage.attachd.detach(&stage.volume).unwrap_err().to_string();
    assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
    drop(open);
    stage.attachd.detach(&stage.volume).unwrap();
    stage.assert_nothing_is_left("at the end");
}

#[test]
fn an_unused_device_is_replaced_by_one_of_another_generation() {
    if !possible("t2_attach replace") {
        return;
    }
    let stage = Stage::new("replaced", 8 * MIB);
    let old = stage.attach();
    // The engine serves none of it, so the new one can't come; the old one is gone all the same.
    let newer = Attach { generation: generation(4), ..stage.wanted() };
    let refused = stage.attachd.attach(&newer).unwrap_err();
    assert!(refused.refusal().is_some(), "{refused}");
    stage.assert_nothing_is_left("after an attach that failed");
    let again = stage.attach();
    assert_eq!(again.generation, old.generation);
    let read_only = Attach { read_only: true, ..stage.wanted() };
    assert_eq!(stage.attachd.attach(&read_only).unwrap_err().refusal(), Some(Refusal::Exists));
    stage.attachd.detach(&stage.volume).unwrap();
    let device = stage.attachd.attach(&read_only).unwrap();
    assert!(std::fs::write(&device.path, [1; 512]).is_err());
    stage.attachd.detach(&stage.volume).unwrap();
    stage.assert_nothing_is_left("at the end");
}

#[test]
fn a_device_grows_with_its_volume() {
    if !possible("t2_attach resize") {
        return;
    }
    let Some([nbdkit]) = tools::require("t2_attach resize", ["nbdkit"]) else { return };
    let stage = Stage::new("grows", 8 * MIB);
    // Another NBD server, which takes any export's name, over a file that is made longer.
    let image = stage.directory().join("image");
    let socket = stage.directory().join("image.sock");
    let length = |bytes| {
        std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&image)
            .unwrap()
            .set_len(bytes)
            .unwrap();
    };
    let serve = || {
        let _gone = std::fs::remove_file(&socket);
        let arguments =
            ["--foreground", "--unix", socket.to_str().unwrap(), "file", image.to_str().unwrap()];
        let mut server = Child::start("nbdkit", &nbdkit, arguments, stage.directory()).unwrap();
        let limit = std::time::Duration::from_secs(10);
        server.wait_until("its socket", limit, || socket.exists().then_some(())).unwrap();
        server
    };
    length(8 * MIB);
    let server = serve();
    let nbd = Address::Unix(socket.clone());
    let engine = EngineAddresses { api: stage.engine.api_address(), nbd };
    let device = stage.attachd.attach(&Attach { engine, ..stage.wanted() }).unwrap();
    std::fs::write(&device.path, vec![7; 8 << 20]).unwrap();
    assert_eq!(stage.attachd.resize(&stage.volume).unwrap().size.0, 8 * MIB, "as long as before");

    length(24 * MIB);
    drop(server);
    stage.attachd.wait_for(&stage.volume, "Waiting", |d| d.state == DeviceState::Waiting).unwrap();
    let refused = stage.attachd.resize(&stage.volume).unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::Unavailable), "{refused}");
    let _server = serve();
    stage.attachd.wait_for(&stage.volume, "Serving", |d| d.state == DeviceState::Serving).unwrap();
    assert_eq!(stage.attachd.device(&stage.volume).unwrap().size.0, 8 * MIB, "only when asked");
    let open = std::fs::File::options().read(true).write(true).open(&device.path).unwrap();
    assert_eq!(stage.attachd.resize(&stage.volume).unwrap().size.0, 24 * MIB);
    let bytes = run("blockdev", ["--getsize64", &device.path.display().to_string()]);
    assert_eq!(bytes.trim(), (24 * MIB).to_string());
    open.write_all_at(&[9; 4096], 24 * MIB - 4096).unwrap();
    open.sync_all().unwrap();
    drop(open);
    assert_eq!(std::fs::read(&image).unwrap()[(24 << 20) - 4096..], [9; 4096]);
    stage.attachd.detach(&stage.volume).unwrap();
    stage.assert_nothing_is_left("at the end");
}

#[test]
fn a_device_that_was_failed_answers_with_errors_for_ever_and_can_be_replaced_when_unused() {
    if !possible("t2_attach fail") {
        return;
    }
    let mut stage = Stage::new("failed", 8 * MIB);
    let device = stage.attach();
    stage.engine.kill();
    // Somebody waits for the engine.
    let path = device.path.clone();
    let reader = std::thread::spawn(move || read_direct(&path, 0, 4096));
    stage.attachd.wait_for(&stage.volume, "a request that waits", |d| d.io.in_flight > 0).unwrap();
    let refused = stage.attachd.detach(&stage.volume).unwrap_err().to_string();
    assert!(refused.contains("requests are under way"), "{refused}");
    let wrong = stage.attachd.fail(&stage.volume, generation(9), "no").unwrap_err();
    assert_eq!(wrong.refusal(), Some(Refusal::WrongState), "{wrong}");

    let failed = stage.attachd.fail(&stage.volume, stage.generation, "replaced by 4").unwrap();
    assert_eq!((failed.state, failed.error.as_deref()), (DeviceState::Gone, Some("replaced by 4")));
    let error = reader.join().unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "{error}");
    stage.engine.restart().unwrap();
    for _ in 0..20 {
        assert!(read_direct(&device.path, 0, 4096).is_err(), "it must not come back");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let fresh = stage.attach();
    assert_eq!(fresh.state, DeviceState::Serving);
    read_direct(&fresh.path, 0, 4096).unwrap();
    stage.attachd.detach(&stage.volume).unwrap();
    stage.assert_nothing_is_left("at the end");
}

#[test]
fn an_expanded_volume_is_a_longer_device_without_an_error_on_the_way() {
    if !possible("t2_attach expand") {
        return;
    }
    let stage = Stage::new("expands", 16 * MIB);
    let device = stage.attach();
    let path = device.path.display().to_string();
    run("mkfs.ext4", ["-q", "-F", &path]);
    let open = std::fs::File::options().read(true).write(true).open(&device.path).unwrap();
    stage.expand(48 * MIB);
    open.write_all_at(&[1; 4096], 15 * MIB).unwrap();
    assert_eq!(stage.attachd.resize(&stage.volume).unwrap().size.0, 48 * MIB);
    open.write_all_at(&[2; 4096], 48 * MIB - 4096).unwrap();
    open.sync_all().unwrap();
    drop(open);
    assert_eq!(read_direct(&device.path, 48 * MIB - 4096, 4096).unwrap(), [2; 4096]);
    assert_eq!(stage.attachd.device(&stage.volume).unwrap().io.errors, 0);
    stage.attachd.detach(&stage.volume).unwrap();
    stage.assert_nothing_is_left("at the end");
}

#[test]
fn a_device_whose_volume_has_joined_a_group_is_found_under_the_groups_generation() {
    if !possible("t2_attach adopted") {
        return;
    }
    let stage = Stage::new("joins", 8 * MIB);
    let device = stage.attach();
    let open = std::fs::File::options().read(true).write(true).open(&device.path).unwrap();
    open.write_all_at(&[0x11; 4096], 0).unwrap();
    let member = understudy_core::engine::api::Member {
        volume: stage.volume.clone(),
        size: understudy_core::engine::api::ByteLen(8 * MIB),
    };
    let group = Start {
        group: format!("group.{}", stage.volume).parse().unwrap(),
        generation: generation(5),
        role: Role::Primary,
        members: vec![member],
        peer: None,
        policy: Policy::default(),
        inbound: false,
        adopt: true,
    };
    // Before the engine knows of it, nothing is returned under that name.
    let joined = Attach { generation: generation(5), ..stage.wanted() };
    let refused = stage.attachd.attach(&joined).unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::WrongState), "{refused}");
    stage.engine.start_group(&group).unwrap();
    let found = stage.attachd.attach(&joined).unwrap();
    assert_eq!((&found.path, found.session), (&device.path, device.session));
    open.write_all_at(&[0x22; 4096], 4096).unwrap();
    open.sync_all().unwrap();
    // A generation that the engine does not serve is not the device's.
    let unknown = Attach { generation: generation(6), ..stage.wanted() };
    assert!(stage.attachd.attach(&unknown).unwrap_err().to_string().contains("end what uses it"));

    stage.expand(16 * MIB);
    assert_eq!(stage.attachd.resize(&stage.volume).unwrap().size.0, 16 * MIB);
    open.write_all_at(&[0x33; 4096], 16 * MIB - 4096).unwrap();
    open.sync_all().unwrap();
    drop(open);
    assert_eq!(read_direct(&device.path, 0, 8192).unwrap()[4095..4097], [0x11, 0x22]);
    assert_eq!(stage.attachd.device(&stage.volume).unwrap().io.errors, 0);
    // Unused as well: no second one is made.
    assert_eq!(stage.attachd.attach(&joined).unwrap().path, device.path);
    stage.attachd.detach(&stage.volume).unwrap();
    assert_eq!(stage.attachd.attach(&joined).unwrap().generation, generation(5));
    stage.attachd.detach(&stage.volume).unwrap();
    stage.assert_nothing_is_left("at the end");
}

#[test]
fn after_a_failover_the_old_device_fails_for_good_and_a_fresh_one_shows_the_promoted_volume() {
    if !possible("t2_attach failover") {
        return;
    }
    let stage = Stage::new("unused", MIB);
    let directory = tempfile::tempdir().unwrap();
    let options = EnginesOptions::new(&[8 * MIB], Policy::default());
    let mut pair = Engines::start(directory.path(), &options).unwrap();
    let volume = pair.members[0].volume.clone();
    let old = attach_to(&pair.primary, &volume, pair.generation);
    let device = stage.attachd.attach(&old).unwrap();
    std::fs::write(&device.path, vec![0x77; 4096]).unwrap();
    pair.checkpoint().unwrap();
    let open = std::fs::File::options().read(true).write(true).open(&device.path).unwrap();
    open.write_all_at(&[0x88; 4096], 0).unwrap();
    open.sync_all().unwrap();

    // The node loses its power; a request waits for its engine.
    pair.primary.kill();
    let path = device.path.clone();
    let waiting = std::thread::spawn(move || read_direct(&path, 4096, 4096));
    stage.attachd.wait_for(&volume, "Waiting", |d| d.state == DeviceState::Waiting).unwrap();
    pair.failover(false).unwrap();
    // It returns, and learns that it was replaced when it is made the secondary.
    pair.primary.restart().unwrap();
    pair.primary
        .start_group(&Start {
            group: pair.group.clone(),
            generation: pair.generation,
            role: Role::Secondary,
            members: pair.members.clone(),
            peer: None,
            policy: Policy::default(),
            inbound: false,
            adopt: false,
        })
        .unwrap();
    let gone = stage.attachd.wait_for(&volume, "Gone", |d| d.state == DeviceState::Gone).unwrap();
    assert!(gone.error.is_some(), "{gone:#?}");
    // That request may have been served before the engine knew better; none after it is.
    drop(waiting.join().unwrap());
    for _ in 0..10 {
        let error = read_direct(&device.path, 4096, 4096).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5), "{error}");
        assert!(open.write_all_at(&[0x99; 4096], 0).is_ok_and(|()| open.sync_all().is_err()));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Neither does it come back with the daemon's help, while somebody holds it.
    let promoted = attach_to(&pair.secondary, &volume, pair.generation);
    let refused = stage.attachd.attach(&promoted).unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::WrongState), "{refused}");
    assert!(refused.to_string().contains("end what uses it"), "{refused}");
    drop(open);
    let fresh = stage.attachd.attach(&promoted).unwrap();
    assert_eq!(read_direct(&fresh.path, 0, 4096).unwrap(), vec![0x77; 4096]);
    stage.attachd.detach(&volume).unwrap();

    // An old generation at the engine that serves the new one: gone for good.
    let stale = Attach { generation: old.generation, ..promoted };
    let refused = stage.attachd.attach(&stale).unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::WrongState), "{refused}");
    stage.assert_nothing_is_left("at the end");
}

#[test]
fn the_commands_list_and_health_say_how_it_stands() {
    if !possible("t2_attach commands") {
        return;
    }
    let mut stage = Stage::new("told", 8 * MIB);
    let device = stage.attach();
    let attachd = tools::own("understudy-attachd").unwrap();
    let socket = stage.directory().join("attach.sock");
    let ask = |command: &str| {
        let output =
            Command::new(&attachd).arg(command).arg("--socket").arg(&socket).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
    };
    assert!(ask("health").0);
    let (good, text) = ask("list");
    assert!(good && text.contains(stage.volume.as_str()), "{text}");
    assert!(
        text.contains(&device.path.display().to_string()) && text.contains("Serving"),
        "{text}"
    );
    stage.attachd.kill();
    let (good, text) = ask("health");
    assert!(!good && text.contains("is understudy-attachd running?"), "{text}");
}
