//! Clients that ask for too much, say nonsense, or nothing.

use super::*;

#[test]
fn a_write_that_is_too_long_is_refused_and_the_next_request_is_served() {
    let world = World::default();
    let s = memory(&world);
    s.go();
    let length = REQUEST_MAX + 512;
    s.ask(command::WRITE, 1, 0, length, &vec![1; usize_of(length.into())]);
    assert_eq!(s.reply(), (1, crate::nbd::errno::ENOSPC));
    s.ask(command::READ, 2, 0, 1, &[]);
    assert_eq!(s.reply(), (2, 0));
    assert_eq!(s.receive(1), [0x11]);
}

#[test]
fn a_write_of_absurd_length_ends_the_connection() {
    let world = World::default();
    let s = memory(&world);
    s.go();
    s.ask(command::WRITE, 1, 0, u32::MAX, &[]);
    let end = s.ended();
    assert!(matches!(end, End::Garbage(_)), "{end}");
    assert_eq!(world.tasks(), 0);
}

#[test]
fn garbage_ends_the_connection_with_a_word_about_it() {
    for after_go in [false, true] {
        let world = World::default();
        let s = memory(&world);
        if after_go {
            s.go();
        }
        s.send(&[b'x'; 64]);
        let end = s.ended();
        assert!(matches!(end, End::Garbage(_)), "{end}");
        assert_eq!(world.tasks(), 0);
    }
}

#[test]
fn a_handshake_that_stalls_ends_after_ten_seconds() {
    for sent in [0, 3, 4, 15] {
        let world = World::default();
        let s = memory(&world);
        let option = OptionHeader::encode(option::LIST, &[]);
        s.send(&[&[0, 0, 0, 3][..], &option].concat()[..sent]);
        let end = s.ended();
        assert!(matches!(end, End::Stalled(_)), "{end}");
        assert_eq!(world.now().0, Duration::from_secs(10));
        assert_eq!(world.tasks(), 0);
    }
}

#[test]
fn a_client_that_fetches_no_replies_is_held_back() {
    let world = World::default();
    let disk = slow(&world, 4 * MIB, 0x11);
    let s = start(&world, One::new(disk.clone()), 1 << 14);
    s.go();
    for cookie in 0..10_000 {
        s.ask(command::READ, cookie, 0, 4096, &[]);
    }
    world.settle();
    assert!(s.end.borrow().is_none());
    assert!(world.tasks() > 9_000 / 28, "the server read on: {} tasks", world.tasks());
    assert_eq!(disk.load().0, 0);
    // Once it fetches them, all come.
    for _ in 0..300 {
        assert_eq!(s.reply().1, 0);
        s.receive(4096);
    }
    s.client.shutdown();
    world.settle();
    assert!(s.end.borrow().is_some());
}

#[test]
fn at_most_128_requests_are_in_flight() {
    let world = World::default();
    let disk = slow(&world, MIB, 0x11);
    let s = start(&world, One::new(disk.clone()), 1 << 20);
    s.go();
    disk.delay(Duration::from_secs(1));
    for cookie in 0..500 {
        s.ask(command::FLUSH, cookie, 0, 0, &[]);
    }
    let mut seen: Vec<_> = (0..500).map(|_| s.reply()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..500).map(|c| (c, 0)).collect::<Vec<_>>());
    assert_eq!(disk.load(), (0, 128));
}

#[test]
fn large_reads_hold_at_most_64_mib() {
    let world = World::default();
    let disk = slow(&world, u64::from(REQUEST_MAX), 0x11);
    let s = start(&world, One::new(disk.clone()), 64 << 20);
    s.go();
    disk.delay(Duration::from_secs(1));
    for cookie in 0..4 {
        s.ask(command::READ, cookie, 0, REQUEST_MAX, &[]);
    }
    for _ in 0..4 {
        assert_eq!(s.reply().1, 0);
        let mut left = usize_of(REQUEST_MAX.into());
        let client = s.client.clone();
        world.run(async move {
            while left > 0 {
                let len = left.min(BUF_MAX);
                left -= client.recv(Buf::new(len), 0).await.1.unwrap();
            }
        });
    }
    assert_eq!(disk.load(), (0, 64));
}

#[test]
fn random_bytes_never_hurt_the_server() {
    let mut random = Random(seed() | 1);
    for _ in 0..300 {
        let world = World::default();
        let s = memory(&world);
        if random.below(2) == 0 {
            s.go();
            for _ in 0..random.below(20) {
                let command = u16::try_from(random.below(9)).unwrap();
                let (offset, length) = (random.below(2 * MIB), random.below(70_000));
                let data = random.bytes(if command == 1 { length } else { 0 });
                s.ask(command, random.next(), offset, u32::try_from(length).unwrap(), &data);
            }
        } else {
            s.send(&[0, 0, 0, 3]);
            for _ in 0..random.below(70) {
                let (code, len) = (u32::try_from(random.below(12)).unwrap(), random.below(40));
                s.send(&OptionHeader::encode(code, &random.bytes(len)));
            }
        }
        let len = random.below(5000);
        s.send(&random.bytes(len));
        world.settle();
        s.client.shutdown();
        world.settle();
        assert!(s.end.borrow().is_some());
        assert_eq!(world.tasks(), 0);
    }
}
