//! Many clients, and bad ones: nothing they do is felt by a good one.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use understudy_core::disk::{Disk, Memory};
use understudy_core::nbd::Client;
use understudy_core::nbd::client::Options;
use understudy_core::nbd::server::Limits;
use understudy_core::runtime::{Address, Data, Env, ShardConfig, block_on};
use understudy_core::units::ByteOffset;

use super::server::Server;

/// How many connections come.
const CROWD: usize = 1500;
/// How many of them are let in.
const MOST: usize = 1000;

fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let enough = limit.current.is_none_or(|n| n > 2 * 1500 + 200);
    assert!(enough, "this test needs 3,200 open files: raise the hard limit with ulimit -Hn");
}

fn connect(server: &Server) -> UnixStream {
    let stream = UnixStream::connect(&server.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Bytes until the server closes.
fn until_closed(stream: &mut UnixStream) -> usize {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        Err(e) => panic!("not closed: {e}"),
    }
    all.len()
}

/// A client that needs its answers; says how long they took.
fn good_client(server: &Server) -> Duration {
    let address = Address::Unix(server.socket.clone());
    let begun = Instant::now();
    block_on(&ShardConfig::default(), |env| async move {
        let stream = env.connect(&address).await.unwrap();
        let client = Client::connect(&env, stream, "disk", &Options::default()).await.unwrap();
        for n in 0..50 {
            client.write(ByteOffset(n * 4096), Data::zeroes(4096)).await.unwrap();
        }
        client.flush().await.unwrap();
    })
    .unwrap();
    begun.elapsed()
}

fn server(handshake: Duration) -> Server {
    let limits = Limits { handshake, ..Limits::default() };
    Server::start(limits, MOST, false, |_| std::future::ready(Memory::new(1 << 20, 0)))
}

#[test]
fn a_crowd_is_let_in_up_to_the_limit_and_then_served_again() {
    raise_file_limit();
    let server = server(Duration::from_mins(1));
    let mut crowd: Vec<_> = (0..MOST).map(|_| connect(&server)).collect();
    for stream in &mut crowd {
        stream.read_exact(&mut [0; 18]).unwrap();
    }
    for mut late in (MOST..CROWD).map(|_| connect(&server)) {
        assert_eq!(until_closed(&mut late), 0, "one too many is closed at once");
    }
    drop(crowd.split_off(MOST / 2));
    std::thread::sleep(Duration::from_millis(200));
    good_client(&server);
}

#[test]
fn clients_that_stall_are_closed_and_a_good_one_does_not_notice() {
    raise_file_limit();
    let server = server(Duration::from_secs(1));
    let mut crowd: Vec<_> = (0..500).map(|_| connect(&server)).collect();
    // Some say half a word.
    for stream in crowd.iter_mut().step_by(2) {
        stream.write_all(&[0, 0]).unwrap();
    }
    assert!(good_client(&server) < Duration::from_secs(10));
    for stream in &mut crowd {
        assert_eq!(until_closed(stream), 18, "the greeting and no more");
    }
}

#[test]
fn garbage_and_absurd_lengths_close_one_connection_only() {
    raise_file_limit();
    let server = server(Duration::from_secs(10));
    let absurd_option =
        [&[0, 0, 0, 3][..], b"IHAVEOPT", &[0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff]].concat();
    let noise: Vec<u8> =
        (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]).collect();
    for bytes in [&absurd_option[..], &noise, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &[0xff; 64]] {
        for _ in 0..50 {
            let mut stream = connect(&server);
            // The server may have closed before all is written.
            let _ = stream.write_all(bytes);
            assert!(until_closed(&mut stream) >= 18 || bytes.len() > 1000);
        }
    }
    good_client(&server);
}

#[test]
fn a_client_that_closes_its_sending_half_is_answered_and_gone() {
    let server = server(Duration::from_secs(10));
    let mut stream = connect(&server);
    stream.write_all(&[0, 0, 0, 3]).unwrap();
    stream.write_all(&[&b"IHAVEOPT"[..], &[0, 0, 0, 3, 0, 0, 0, 0]].concat()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let answered = until_closed(&mut stream);
    assert!(answered > 18 + 20, "the list came: {answered} bytes");
    good_client(&server);
}
