//! New certificates, a new authority even, while a link is busy.

use std::time::{Duration, Instant};

use understudy_core::engine::api::{ExportKind, LinkState};
use understudy_core::engine::client::{EngineClient, Tls};
use understudy_tests::harness::certs::Authority;

use super::{MIB, export, issued, pair, wait_for_log, write_and_read};

#[test]
fn new_certificates_are_used_by_new_connections_and_old_ones_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let pair = pair(directory.path(), &[]);
    let (_old, old) = issued(pair.authority().unwrap(), "engine/a");
    let primary = export(&pair, &pair.primary, ExportKind::Primary);
    let nbd = pair.primary.secure_nbd().unwrap();

    // A bad set first: refused, with a line in the log, and the old one stays.
    let file = pair.primary.certificates().join("tls.key");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, "no key").unwrap();
    wait_for_log(&pair.primary, "the new certificates are refused, the old ones stay in use");
    write_and_read(&nbd, &primary, &old, 0, 0x77);
    std::fs::write(&file, good).unwrap();

    let next = Authority::new().unwrap();
    for (engine, name) in [(&pair.primary, "engine/a"), (&pair.secondary, "engine/b")] {
        next.issue(&engine.certificates(), name).unwrap();
    }
    let (_new, new) = issued(&next, "engine/a");
    let end = Instant::now() + Duration::from_secs(20);
    let mut byte = 0;
    // Under traffic: who comes with the new authority's certificate is let in soon.
    while super::with_nbd(&nbd, &primary, Some(&new), async |_| ()).is_err() {
        assert!(Instant::now() < end, "{}", pair.primary.log());
        let mut client = pair.open_primary(&pair.members[0].volume).unwrap();
        client.write(MIB, &vec![byte; 64 << 10]).unwrap();
        byte = byte.wrapping_add(1);
    }
    wait_for_log(&pair.primary, "new certificates in use");
    wait_for_log(&pair.secondary, "new certificates in use");
    write_and_read(&nbd, &primary, &new, 0, 0x78);
    let refused = super::with_nbd(&nbd, &primary, Some(&old), async |_| ()).unwrap_err();
    assert!(refused.contains("not in our ca.crt"), "{refused}");
    // The link of the old certificates has gone on all the while.
    assert_eq!(pair.primary.group(&pair.group).unwrap().link, LinkState::Running);
    assert!(!pair.primary.log().contains("the connection ended"), "{}", pair.primary.log());
    pair.checkpoint().unwrap();
}

#[test]
fn a_client_of_the_api_uses_the_certificates_of_the_time() {
    let directory = tempfile::tempdir().unwrap();
    let pair = pair(directory.path(), &[]);
    let dir = tempfile::tempdir().unwrap();
    let stranger = Authority::new().unwrap();
    stranger.issue(dir.path(), "operator").unwrap();
    let tls = Tls::open(dir.path(), None).unwrap();
    let api = pair.primary.secure_api().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = EngineClient::lazy_with(&api, Some(&tls)).unwrap();
        let error = client.status().await.unwrap_err().to_string();
        assert!(error.contains("not in our ca.crt"), "{error}");
        pair.authority().unwrap().issue(dir.path(), "operator").unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while let Err(e) = client.status().await {
            assert!(Instant::now() < end, "{e}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
}
