//! A proxy in front of a listener that sends everything back.

use std::io;

use super::*;

const SOON: Duration = Duration::from_secs(10);

/// Sends back what each connection brings.
fn echo() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap().to_string());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut out = stream.try_clone().unwrap();
                // Ends with the connection.
                let _ended = io::copy(&mut &stream, &mut out);
                let _ended = out.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(&proxy.address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn read(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn hears_nothing(stream: &mut TcpStream, for_so_long: Duration) {
    stream.set_read_timeout(Some(for_so_long)).unwrap();
    let error = stream.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
    stream.set_read_timeout(Some(SOON)).unwrap();
}

#[test]
fn bytes_pass_both_ways_whole_and_the_end_passes_behind_them() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    let sent: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let mut out = stream.try_clone().unwrap();
    let all = sent.clone();
    let writer = std::thread::spawn(move || {
        out.write_all(&all).unwrap();
        out.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(got == sent);
}

#[test]
fn a_cut_ends_what_is_connected_and_refuses_the_next_until_it_is_healed() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    stream.write_all(b"one").unwrap();
    assert_eq!(read(&mut stream, 3), b"one");
    proxy.cut(true);
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "the old connection has ended");
    // It may be reset instead of ended: it has ended either way.
    assert_eq!(connect(&proxy).read(&mut [0; 1]).unwrap_or(0), 0);
    proxy.heal();
    let mut stream = connect(&proxy);
    stream.write_all(b"two").unwrap();
    assert_eq!(read(&mut stream, 3), b"two");
}

#[test]
fn silence_of_one_way_holds_its_bytes_back_and_loses_none() {
    for way in Way::BOTH {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = connect(&proxy);
        stream.write_all(b"before").unwrap();
        assert_eq!(read(&mut stream, 6), b"before");
        proxy.silence(way, true);
        stream.write_all(b"held").unwrap();
        hears_nothing(&mut stream, Duration::from_millis(100));
        proxy.heal();
        assert_eq!(read(&mut stream, 4), b"held");
    }
}

#[test]
fn a_silent_way_takes_no_more_than_its_bound() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    proxy.silence(Way::Out, true);
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut taken = 0;
    while let Ok(len) = stream.write(&vec![7; PIECE]) {
        taken += len;
        assert!(taken < QUEUE_MAX + (64 << 20), "it takes everything");
    }
    assert!(taken >= QUEUE_MAX, "only {taken}");
    proxy.heal();
    assert_eq!(read(&mut stream, 1000), [7; 1000]);
}

#[test]
fn delayed_bytes_come_that_much_later_and_in_order() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    let delay = Duration::from_millis(60);
    proxy.delay(delay);
    let begin = Instant::now();
    stream.write_all(b"a").unwrap();
    std::thread::sleep(delay / 3);
    stream.write_all(b"b").unwrap();
    assert_eq!(read(&mut stream, 2), b"ab");
    let took = begin.elapsed();
    assert!(took >= delay * 2 + delay / 3 && took < SOON, "{took:?}");
}
