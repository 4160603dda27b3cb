//! At every door: garbage, silence, no certificate, another authority's, an expired one, a role that
//! may not come in. None is let in, each is counted in the log, and nobody else notices.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use understudy_core::engine::api::ExportKind;
use understudy_tests::harness::certs::Authority;

use super::stranger::is_let_in;
use super::{MIB, export, issued, pair, wait_for_log, write_and_read};

/// Client flags and STARTTLS, and how much the server says before TLS: greeting and answer.
const STARTTLS: (&[u8], usize) = (b"\0\0\0\x03IHAVEOPT\0\0\0\x05\0\0\0\0", 18 + 20);

/// Certificates that somebody may come with, and whether they are good for (link, NBD, API, metrics).
fn guests(authority: &Authority, dir: &Path) -> Vec<(&'static str, bool, [bool; 4])> {
    let other = Authority::new().unwrap();
    authority.issue(&dir.join("engine"), "engine/z").unwrap();
    authority.issue(&dir.join("operator"), "operator").unwrap();
    authority.issue(&dir.join("csi-controller"), "csi-controller").unwrap();
    authority.issue(&dir.join("metrics"), "metrics").unwrap();
    authority.issue(&dir.join("nobody"), "guest/x").unwrap();
    authority.issue_expired(&dir.join("expired"), "engine/z").unwrap();
    let (day, hour) = (Duration::from_hours(24), Duration::from_hours(1));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    authority.issue_between(&dir.join("early"), "engine/z", now + hour, now + day).unwrap();
    other.issue(&dir.join("other"), "engine/z").unwrap();
    vec![
        ("engine", true, [true, true, true, false]),
        ("operator", true, [false, false, true, true]),
        ("csi-controller", true, [false, false, true, false]),
        ("metrics", true, [false, false, false, true]),
        ("nobody", true, [false; 4]),
        ("expired", true, [false; 4]),
        ("early", true, [false; 4]),
        ("other", true, [false; 4]),
        ("none", false, [false; 4]),
    ]
}

#[test]
fn nobody_gets_in_without_the_right_certificate_and_nobody_else_notices() {
    let directory = tempfile::tempdir().unwrap();
    let pair = pair(directory.path(), &["--shards", "2"]);
    let (_dir, client) = issued(pair.authority().unwrap(), "engine/a");
    let b = &pair.secondary;
    let doors = [
        b.link_address(),
        b.secure_nbd().unwrap(),
        b.secure_api().unwrap(),
        b.secure_metrics().unwrap(),
    ];
    let doors = doors.map(|a| a.host_port().unwrap().to_owned());
    let stalled: Vec<TcpStream> = doors.iter().map(|at| TcpStream::connect(at).unwrap()).collect();
    let began = Instant::now();
    let guests = guests(pair.authority().unwrap(), directory.path());
    for (name, has_certificate, expected) in &guests {
        let certificate = directory.path().join(name);
        let certificate = has_certificate.then_some(certificate.as_path());
        for (door, (at, expected)) in doors.iter().zip(expected).enumerate() {
            let (first, answer) = if door == 1 { STARTTLS } else { (&b""[..], 0) };
            let is_in = is_let_in(at, certificate, first, answer);
            assert_eq!(is_in, *expected, "{name} at door {door}");
        }
    }
    for at in &doors {
        for garbage in
            [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff], &[0; 64]]
        {
            let mut socket = TcpStream::connect(at).unwrap();
            let _ = socket.write_all(garbage);
            let _ = socket.shutdown(std::net::Shutdown::Write);
            socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
            let _ = socket.read_to_end(&mut Vec::new());
        }
    }
    for what in ["links", "NBD", "the engine API"] {
        wait_for_log(b, &format!("connections for {what} refused"));
    }
    // Who says nothing is shown out in time.
    for (door, mut socket) in stalled.into_iter().enumerate() {
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let _ = socket.read_to_end(&mut Vec::new());
        assert!(began.elapsed() < Duration::from_secs(25), "door {door}: {:?}", began.elapsed());
    }
    let primary = export(&pair, &pair.primary, ExportKind::Primary);
    write_and_read(&pair.primary.secure_nbd().unwrap(), &primary, &client, MIB, 0x66);
    pair.checkpoint().unwrap();
    assert!(!b.log().contains("panicked"), "{}", b.log());
    assert!(!pair.primary.log().contains("the connection ended"), "{}", pair.primary.log());
}

#[test]
fn nothing_but_tls_is_asked_of_nbd_before_tls() {
    let directory = tempfile::tempdir().unwrap();
    let pair = pair(directory.path(), &[]);
    let at = pair.primary.secure_nbd().unwrap();
    let mut socket = TcpStream::connect(at.host_port().unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // LIST: an error that says TLS_REQD.
    socket.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x03\0\0\0\0").unwrap();
    let mut head = [0; 18 + 20];
    socket.read_exact(&mut head).unwrap();
    assert_eq!(head[30..34], 0x8000_0005_u32.to_be_bytes());
    let mut text =
        vec![0; usize::try_from(u32::from_be_bytes(*head.last_chunk().unwrap())).unwrap()];
    socket.read_exact(&mut text).unwrap();
    assert!(String::from_utf8(text).unwrap().contains("nbds://"));
    // Something behind STARTTLS, which whoever is on the way could have put there: closed.
    socket.write_all(b"IHAVEOPT\0\0\0\x05\0\0\0\0IHAVEOPT\0\0\0\x03\0\0\0\0").unwrap();
    assert_eq!(socket.read_to_end(&mut Vec::new()).unwrap_or(0), 0);
    wait_for_log(&pair.primary, "bytes behind STARTTLS");
}
