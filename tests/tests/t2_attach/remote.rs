//! A device of an engine on another node: over TLS, and over a network that loses connections.

use std::time::Duration;

use understudy_core::engine::api::Refusal;
use understudy_core::engine::attach::api::{Attach, DeviceState, EngineAddresses};
use understudy_core::runtime::Address;
use understudy_tests::harness::attach::{Attachd, possible};
use understudy_tests::harness::certs::Authority;
use understudy_tests::harness::engine::Engine;

use crate::stage::{MIB, Stage, run};

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn tls(node: &str, port: u16) -> Address {
    format!("tls:{node}@127.0.0.1:{port}").parse().unwrap()
}

#[test]
fn a_device_of_another_node_s_engine_comes_over_tls_from_the_right_node_only() {
    if !possible("t2_attach remote") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    let (theirs, ours) = (directory.path().join("tls-a"), directory.path().join("tls-b"));
    authority.issue(&theirs, "engine/a").unwrap();
    authority.issue(&ours, "engine/b").unwrap();
    let (api, nbd) = (free_port(), free_port());
    let flags = [
        "--tls".to_owned(),
        theirs.display().to_string(),
        "--api".to_owned(),
        format!("tls:127.0.0.1:{api}"),
        "--nbd".to_owned(),
        format!("tls:127.0.0.1:{nbd}"),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let engine = Engine::start("a", directory.path(), &flags).unwrap();
    let here = directory.path().join("b");
    std::fs::create_dir_all(&here).unwrap();
    let attachd =
        Attachd::start_with(&here, &["--tls", ours.to_str().unwrap(), "--node", "b"]).unwrap();
    let mut stage = Stage::of(directory, engine, attachd, "remote", 16 * MIB);

    let engine = |node: &str| EngineAddresses { api: tls(node, api), nbd: tls(node, nbd) };
    let wanted = Attach { engine: engine("a"), ..stage.wanted() };
    let impostor = Attach { engine: engine("c"), ..stage.wanted() };
    let refused = stage.attachd.attach(&impostor).unwrap_err();
    assert!(refused.to_string().contains("engine"), "{refused}");
    stage.assert_nothing_is_left("after an impostor");

    let device = stage.attachd.attach(&wanted).unwrap();
    assert_eq!(device.state, DeviceState::Serving);
    assert!(device.session.is_some());
    run("mkfs.ext4", ["-q", "-F", &device.path.display().to_string()]);
    stage.engine.kill();
    stage.attachd.wait_for(&stage.volume, "Waiting", |d| d.state == DeviceState::Waiting).unwrap();
    stage.engine.restart().unwrap();
    stage.attachd.wait_for(&stage.volume, "Serving", |d| d.state == DeviceState::Serving).unwrap();
    run("e2fsck", ["-f", "-n", &device.path.display().to_string()]);
    stage.attachd.detach(&stage.volume).unwrap();
    stage.assert_nothing_is_left("at the end");
}

#[test]
fn plaintext_and_missing_certificates_are_refused_with_the_flag_to_pass() {
    if !possible("t2_attach plaintext") {
        return;
    }
    let stage = Stage::new("plain", MIB);
    for (address, flag) in
        [("tcp:127.0.0.1:9", "--insecure-plaintext"), ("tls:a@127.0.0.1:9", "--tls")]
    {
        let nbd: Address = address.parse().unwrap();
        let engine = EngineAddresses { api: stage.engine.api_address(), nbd };
        let refused = stage.attachd.attach(&Attach { engine, ..stage.wanted() }).unwrap_err();
        assert_eq!(refused.refusal(), Some(Refusal::WrongState), "{refused}");
        assert!(refused.to_string().contains(flag), "{refused}");
    }
    stage.assert_nothing_is_left("at the end");
}

#[test]
fn a_second_device_of_a_volume_is_refused_while_the_first_lives() {
    if !possible("t2_attach second") {
        return;
    }
    let stage = Stage::new("twice", 8 * MIB);
    let other = stage.directory().join("other");
    std::fs::create_dir_all(&other).unwrap();
    let second = Attachd::start(&other).unwrap();
    let device = stage.attach();
    let refused = second.attach(&stage.wanted()).unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::Unavailable), "{refused}");
    std::fs::write(&device.path, [3; 4096]).unwrap();
    assert_eq!(stage.attachd.device(&stage.volume).unwrap().state, DeviceState::Serving);
    stage.attachd.detach(&stage.volume).unwrap();
    // The session was closed: the next one need not wait for it to have been away for long.
    let begin = std::time::Instant::now();
    let device = second.attach(&stage.wanted()).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(std::fs::read(&device.path).unwrap()[..4096], [3; 4096]);
    second.detach(&stage.volume).unwrap();
    stage.assert_nothing_is_left("at the end");
}
