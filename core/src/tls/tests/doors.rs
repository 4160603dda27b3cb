//! Handshakes in memory: each identity at each door.

use std::io::{self, Read, Write};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};

use super::certs::Authority;
use super::issued;
use crate::tls::explain::fault;
use crate::tls::{Door, Fault, Identity, Tls};

/// Moves what one end has written to the other; the fault that the other finds in it.
fn pass(wrote: &mut Vec<u8>, take: impl FnOnce(&mut dyn Read) -> io::Result<()>) -> io::Result<()> {
    let bytes = std::mem::take(wrote);
    take(&mut bytes.as_slice())
}

/// What each end makes of the other.
fn meet(client: &Tls, server: &Tls, door: Door, node: Option<&str>) -> [Option<Fault>; 2] {
    let config = client.current().client(door, node).unwrap();
    let name = ServerName::try_from("engine.understudy.dev").unwrap();
    let mut client = ClientConnection::new(config, name).unwrap();
    let mut server = ServerConnection::new(server.current().server(door)).unwrap();
    let mut faults = [None, None];
    for _ in 0..4 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let taken = pass(&mut wire, |mut bytes| {
            while server.read_tls(&mut bytes)? > 0 {
                if let Err(e) = server.process_new_packets() {
                    faults[1].get_or_insert(fault(&e));
                    break;
                }
            }
            Ok(())
        });
        taken.unwrap();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let taken = pass(&mut wire, |mut bytes| {
            while client.read_tls(&mut bytes)? > 0 {
                if let Err(e) = client.process_new_packets() {
                    faults[0].get_or_insert(fault(&e));
                    break;
                }
            }
            Ok(())
        });
        taken.unwrap();
    }
    if faults == [None, None] {
        client.writer().write_all(b"x").unwrap();
        assert!(!client.is_handshaking() && !server.is_handshaking());
    }
    faults
}

#[test]
fn every_identity_is_let_in_exactly_where_the_table_says() {
    let authority = Authority::new().unwrap();
    let (_dir, server) = issued(&authority, "engine/b");
    for (who, doors) in [
        ("engine/a", &[Door::Link, Door::Nbd, Door::Api][..]),
        ("operator", &[Door::Api, Door::Metrics]),
        ("csi-controller", &[Door::Api]),
        ("metrics", &[Door::Metrics]),
    ] {
        let (_dir, client) = issued(&authority, who);
        let identity: Identity = who.parse().unwrap();
        for door in Door::ALL {
            let expected = doors.contains(&door);
            assert_eq!(door.admits(&identity), expected, "{who} at {door}");
            let [of_client, of_server] = meet(&client, &server, door, Some("b"));
            assert_eq!(of_server.is_none(), expected, "{who} at {door}: {of_server:?}");
            if !expected {
                let text = of_server.unwrap().to_string();
                assert!(text.contains(who) && text.contains("may not"), "{text}");
                assert!(matches!(of_client, Some(Fault::RefusedUs(_))), "{of_client:?}");
            }
        }
    }
}

#[test]
fn the_wrong_node_another_authority_and_no_engine_are_refused_by_the_client() {
    let (authority, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let (_a, client) = issued(&authority, "engine/a");
    let (_b, server) = issued(&authority, "engine/b");
    let [of_client, _] = meet(&client, &server, Door::Link, Some("c"));
    assert!(of_client.unwrap().to_string().contains("of engine/b, not of engine/c"));
    let (_o, operator) = issued(&authority, "operator");
    let [of_client, _] = meet(&client, &operator, Door::Link, None);
    assert!(of_client.unwrap().to_string().contains("is no engine"));
    let (_x, stranger) = issued(&other, "engine/b");
    let [of_client, _] = meet(&client, &stranger, Door::Link, Some("b"));
    assert!(of_client.unwrap().to_string().contains("not in our ca.crt"));
    let [of_client, of_server] = meet(&stranger, &server, Door::Api, None);
    assert!(of_client.is_some() || of_server.is_some());
    assert_eq!(meet(&client, &server, Door::Link, Some("b")), [None, None]);
    assert_eq!(meet(&client, &server, Door::Nbd, None), [None, None]);
}

#[test]
fn a_certificate_that_expires_in_use_is_refused_by_both_ends() {
    let authority = Authority::new().unwrap();
    let (_a, good) = issued(&authority, "engine/a");
    let dir = tempfile::tempdir().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let soon = now + Duration::from_secs(2);
    authority.issue_between(dir.path(), "engine/b", Duration::from_hours(24), soon).unwrap();
    let short = Tls::open(dir.path(), None).unwrap();
    assert_eq!(meet(&good, &short, Door::Link, Some("b")), [None, None]);
    // A second more: certificates count whole ones.
    std::thread::sleep(Duration::from_secs(4));
    let [of_client, _] = meet(&good, &short, Door::Link, Some("b"));
    assert!(of_client.unwrap().to_string().contains("its certificate has expired"));
    let [of_client, of_server] = meet(&short, &good, Door::Link, Some("a"));
    assert!(of_server.unwrap().to_string().contains("its certificate has expired"));
    let told = of_client.unwrap().to_string();
    assert!(told.contains("refused our certificate: it has expired"), "{told}");
}
