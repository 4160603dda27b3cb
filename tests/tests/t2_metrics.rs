//! What engines tell Prometheus: figures that follow what happens, at doors that are guarded.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use understudy_core::engine::api::{Address, ByteLen, ExportKind, Policy};
use understudy_core::engine::client::Tls;
use understudy_tests::harness::engine::{Engine, free_port};
use understudy_tests::harness::engines::{Carrier, Engines, EnginesOptions};
use understudy_tests::harness::nbd::Client;
use understudy_tests::harness::scrape::{get, scrape};

const MIB: u64 = 1 << 20;

/// A figure of the only group.
fn of(figures: &BTreeMap<String, f64>, name: &str, group: &str) -> f64 {
    let series = format!("understudy_{name}{{group=\"{group}\"}}");
    *figures.get(&series).unwrap_or_else(|| panic!("no {series} in {figures:#?}"))
}

fn figures(engine: &Engine) -> BTreeMap<String, f64> {
    scrape(&engine.metrics_address(), None).unwrap()
}

#[test]
fn metrics_follow_what_a_group_does_on_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    let policy = Policy {
        undo_limit: Some(ByteLen(8 * MIB)),
        active_limit: Some(ByteLen(MIB)),
        ..Policy::default()
    };
    let mut pair =
        Engines::start(directory.path(), &EnginesOptions::new(&[4 * MIB], policy)).unwrap();
    let group = pair.group.to_string();
    let volume = pair.members[0].volume.clone();
    let before = figures(&pair.primary);
    let export = pair.primary.export(&pair.group, &volume, ExportKind::Primary).unwrap();
    let mut vm = Client::connect(&export).unwrap();
    for i in 0..64 {
        vm.write(i * 4096, &[0x5a; 4096]).unwrap();
    }
    vm.flush().unwrap();
    vm.read(4096, 512).unwrap();
    let epoch = pair.checkpoint().unwrap();
    let primary = figures(&pair.primary);
    let grown = |name: &str| of(&primary, name, &group) - of(&before, name, &group);
    assert!((grown("group_writes_total") - 64.0).abs() < 0.5);
    assert!((grown("group_written_bytes_total") - 64.0 * 4096.0).abs() < 0.5);
    assert!((grown("group_forwarded_bytes_total") - 64.0 * 4096.0).abs() < 0.5);
    assert!(grown("group_reads_total") > 0.5 && grown("group_flushes_total") > 0.5);
    assert!(grown("group_checkpoints_total") > 0.5);
    assert!((of(&primary, "group_checkpoint_epoch", &group) - number(epoch.0)).abs() < 0.5);
    assert!((of(&primary, "group_undo_limit_bytes", &group) - number(8 * MIB)).abs() < 0.5);
    assert!(of(&primary, "group_at_risk_bytes", &group) < 0.5);
    let state = |role: &str, link: &str| {
        format!(
            "understudy_group_state{{group=\"{group}\",role=\"{role}\",stage=\"running\",link=\"{link}\"}}"
        )
    };
    assert!(primary.contains_key(&state("primary", "running")), "{primary:#?}");
    let secondary = figures(&pair.secondary);
    assert!(secondary.contains_key(&state("secondary", "running")), "{secondary:#?}");
    assert!(of(&secondary, "group_saved_bytes_total", &group) > 64.0 * 4096.0 - 0.5);
    assert!(of(&secondary, "group_undo_syncs_total", &group) > 0.5);
    let pool = "understudy_pool_available_bytes";
    assert!(secondary[pool] > 0.0 && secondary[pool] <= secondary["understudy_pool_size_bytes"]);
    // The active disk's limit, over a real socket.
    let export = pair.secondary.export(&pair.group, &volume, ExportKind::View).unwrap();
    let mut consumer = Client::connect(&export).unwrap();
    consumer.write(0, &vec![1; 1 << 20]).unwrap();
    let refused = consumer.write(2 * MIB, &[1; 4096]).unwrap_err().to_string();
    assert!(refused.contains("space") || refused.contains("28"), "{refused}");
    let secondary = figures(&pair.secondary);
    assert!((of(&secondary, "group_active_full_total", &group) - 1.0).abs() < 0.5);
    assert!((of(&secondary, "group_active_bytes", &group) - number(MIB)).abs() < 0.5);
    // The secondary is lost: the primary says so, and what is written counts.
    pair.secondary.kill();
    let end = Instant::now() + Duration::from_secs(10);
    while !figures(&pair.primary).contains_key(&state("primary", "degraded")) {
        assert!(Instant::now() < end, "{:#?}", figures(&pair.primary));
        std::thread::sleep(Duration::from_millis(20));
    }
    vm.write(MIB, &[0x77; 8192]).unwrap();
    let primary = figures(&pair.primary);
    assert!((of(&primary, "group_missing_bytes", &group) - 8192.0).abs() < 0.5);
    assert!((of(&primary, "group_at_risk_bytes", &group) - 8192.0).abs() < 0.5);
}

#[allow(clippy::cast_precision_loss, reason = "small")]
fn number(n: u64) -> f64 {
    n as f64
}

#[test]
fn a_scraper_with_its_certificate_reads_metrics_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = EnginesOptions::new(&[MIB], Policy::default());
    options.carrier = Carrier::Tls;
    let pair = Engines::start(directory.path(), &options).unwrap();
    let own = tempfile::tempdir().unwrap();
    pair.authority().unwrap().issue(own.path(), "metrics").unwrap();
    let tls = Tls::open(own.path(), None).unwrap();
    let at = pair.primary.secure_metrics().unwrap();
    let figures = scrape(&at, Some(&tls)).unwrap();
    assert!(figures.keys().any(|series| series.starts_with("understudy_build{")), "{figures:#?}");
    let (status, _) = get(&at, "/", Some(&tls)).unwrap();
    assert_eq!(status, 404);
    // A stranger is counted.
    std::net::TcpStream::connect(at.host_port().unwrap()).unwrap();
    let refused = "understudy_refused_connections_total{purpose=\"metrics\"}";
    let end = Instant::now() + Duration::from_secs(15);
    while scrape(&at, Some(&tls)).unwrap()[refused] < 0.5 {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn plain_http_for_metrics_has_to_be_allowed_and_opens_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let at = format!("tcp:127.0.0.1:{}", free_port().unwrap());
    let flags = ["--metrics", &at];
    let refused = Engine::start("a", directory.path(), &flags).err().unwrap();
    assert!(format!("{refused:#}").contains("--metrics-plaintext"), "{refused:#}");
    let flags = ["--metrics", &at, "--metrics-plaintext"];
    let engine = Engine::start("b", directory.path(), &flags).unwrap();
    let address: Address = at.parse().unwrap();
    assert!(!scrape(&address, None).unwrap().is_empty());
    drop(engine);
    let flags = ["--nbd", "tcp:127.0.0.1:0", "--metrics-plaintext"];
    let refused = Engine::start("c", directory.path(), &flags).err().unwrap();
    assert!(format!("{refused:#}").contains("insecure-plaintext"), "{refused:#}");
}
