//! The engine is killed and started again under load: a wait, and not an error.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use understudy_core::engine::api::ExportKind;
use understudy_core::engine::attach::api::DeviceState;
use understudy_tests::harness::attach::possible;
use understudy_tests::harness::nbd::Client;
use understudy_tests::harness::tools;

use crate::stage::{MIB, Stage};

const KILLS: u32 = 20;

#[test]
fn fio_verifies_without_an_error_while_the_engine_is_killed_twenty_times() {
    if !possible("t2_attach restarts") {
        return;
    }
    let Some([fio]) = tools::require("t2_attach restarts", ["fio"]) else { return };
    let mut stage = Stage::new("restarts", 64 * MIB);
    let device = stage.attach();
    // Reads back what it wrote, all the time; ends by itself, well after the last kill.
    let load = Command::new(fio)
        .args(["--name=load", "--ioengine=libaio", "--direct=1", "--rw=randwrite"])
        .args(["--bsrange=512-128k", "--blockalign=512", "--iodepth=16", "--fsync=64"])
        .args(["--verify=crc32c", "--verify_backlog=128", "--verify_fatal=1", "--randrepeat=0"])
        .arg("--verify_state_save=0")
        .args(["--loops=100000", "--size=64M", "--runtime=25", "--output-format=json"])
        .arg(format!("--filename={}", device.path.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    let mut kills = 0;
    while kills < KILLS {
        std::thread::sleep(Duration::from_millis(200 + u64::from(kills % 5) * 70));
        stage.engine.kill();
        std::thread::sleep(Duration::from_millis(u64::from(kills % 3) * 150));
        stage.engine.restart().unwrap();
        kills += 1;
    }
    let took = begin.elapsed();
    let output = load.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{text}\n{}", stage.attachd.log());
    assert!(text.contains("\"error\" : 0"), "{text}");
    let device = stage
        .attachd
        .wait_for(&stage.volume, "Serving", |d| d.state == DeviceState::Serving)
        .unwrap();
    assert_eq!(device.io.errors, 0, "{device:#?}");
    assert!(device.reconnects >= u64::from(KILLS) / 2, "{device:#?}");
    assert!(device.io.writes > 1000, "{device:#?}");
    println!(
        "{KILLS} kills in {took:.1?}: {} writes, {} reads, {} reconnects, longest stall {:?}",
        device.io.writes, device.io.reads, device.reconnects, device.longest_stall
    );

    let from_device = std::fs::read(&device.path).unwrap();
    let export = stage.engine.export(&stage.volume, &stage.volume, ExportKind::Primary).unwrap();
    stage.attachd.detach(&stage.volume).unwrap();
    let from_engine = Client::connect(&export).unwrap().read(0, 64 * MIB).unwrap();
    assert!(from_device == from_engine, "the device shows something else than the volume");
    stage.assert_nothing_is_left("at the end");
}

#[test]
fn a_clean_restart_of_the_engine_is_a_wait_too() {
    if !possible("t2_attach clean restart") {
        return;
    }
    let mut stage = Stage::new("clean", 8 * MIB);
    let device = stage.attach();
    let path = device.path.clone();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let load = std::thread::spawn(move || {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options().write(true).open(path).unwrap();
        let mut writes = 0_u64;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            file.write_all_at(&[u8::try_from(writes % 251).unwrap(); 4096], writes % 512 * 4096)?;
            file.sync_data()?;
            writes += 1;
        }
        Ok::<u64, std::io::Error>(writes)
    });
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(200));
        let process = stage.engine.process().unwrap();
        process.signal("TERM").unwrap();
        process.wait(Duration::from_secs(15)).unwrap();
        stage.engine.restart().unwrap();
    }
    drop(stop);
    let writes = load.join().unwrap().unwrap_or_else(|e| panic!("{e}\n{}", stage.attachd.log()));
    assert!(writes > 10);
    let device = stage.attachd.device(&stage.volume).unwrap();
    assert_eq!(device.io.errors, 0, "{device:#?}");
}
