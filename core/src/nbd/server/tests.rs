//! One connection, its client played byte by byte.

use std::rc::Rc;

use super::*;
use crate::disk::{Disk, Memory};
use crate::nbd::test_disk::{One, Slow, slow};
use crate::nbd::test_stream::{Duplex, World, duplex};
use crate::nbd::wire::tests::{Random, seed};
use crate::nbd::wire::{InfoRequest, OptionReply, Request, SimpleReply, command, option};

const MIB: u64 = 1 << 20;

/// A connection being served, and how it ended.
struct Served {
    world: World,
    client: Duplex,
    end: Rc<std::cell::RefCell<Option<End>>>,
}

fn start<D: Disk>(world: &World, catalog: One<D>, room: usize) -> Served {
    let (client, server) = duplex(room);
    let end = Rc::default();
    let (w, e): (_, Rc<std::cell::RefCell<_>>) = (world.clone(), Rc::clone(&end));
    world.spawn("serve", async move {
        let ended = serve(&w, server, &catalog).await;
        *e.borrow_mut() = Some(ended);
    });
    Served { world: world.clone(), client, end }
}

impl Served {
    fn send(&self, bytes: &[u8]) {
        let (client, bytes) = (self.client.clone(), bytes.to_vec());
        self.world.spawn("client send", async move {
            let _ = send(&client, &bytes).await;
        });
    }

    fn receive(&self, len: usize) -> Vec<u8> {
        let client = self.client.clone();
        self.world.run(async move {
            // Byte by byte, so that nothing is taken that a later call wants.
            let mut out = Vec::new();
            while out.len() < len {
                let (buf, n) = client.recv(crate::runtime::Buf::new(1), 0).await;
                assert_eq!(n.unwrap(), 1, "closed after {} of {len} bytes", out.len());
                out.push(buf[0]);
            }
            out
        })
    }

    /// Enters transmission without structured replies.
    fn go(&self) {
        let go = InfoRequest { name: "vol".into(), wanted: vec![] }.encode();
        self.send(&[&[0, 0, 0, 3][..], &OptionHeader::encode(option::GO, &go)].concat());
        self.receive(18);
        loop {
            let header = self.receive(20);
            let header = OptionReply::decode(header.first_chunk().unwrap()).unwrap();
            self.receive(usize_of(header.length.into()));
            assert!(header.kind < 1 << 31, "refused");
            if header.kind == 1 {
                return;
            }
        }
    }

    fn ask(&self, command: u16, cookie: u64, offset: u64, length: u32, data: &[u8]) {
        let head = Request { flags: 0, command, cookie, offset, length }.encode();
        self.send(&[&head[..], data].concat());
    }

    /// Cookie and error number of the next reply.
    fn reply(&self) -> (u64, u32) {
        let r = SimpleReply::decode(self.receive(16).first_chunk().unwrap()).unwrap();
        (r.cookie, r.errno)
    }

    fn ended(&self) -> End {
        self.world.settle();
        self.end.take().expect("the connection is served still")
    }
}

fn memory(world: &World) -> Served {
    start(world, One::new(Memory::new(MIB, 0x11)), 1 << 20)
}

#[test]
fn a_fast_request_overtakes_a_slow_one() {
    let world = World::default();
    let disk = slow(&world, MIB, 0x11);
    let s = start(&world, One::new(disk.clone()), 1 << 20);
    s.go();
    disk.delay(Duration::from_secs(1));
    s.ask(command::READ, 1, 0, 512, &[]);
    while disk.load().0 == 0 {
        world.run(crate::runtime::yield_now());
    }
    disk.delay(Duration::ZERO);
    s.ask(command::FLUSH, 2, 0, 0, &[]);
    assert_eq!(s.reply(), (2, 0));
    assert_eq!(s.reply(), (1, 0));
    assert_eq!(s.receive(512), [0x11; 512]);
    s.ask(command::DISCONNECT, 3, 0, 0, &[]);
    assert!(matches!(s.ended(), End::Left));
    assert_eq!(world.tasks(), 0);
}

#[test]
fn a_write_that_is_too_long_is_refused_and_the_next_request_is_served() {
    let world = World::default();
    let s = memory(&world);
    s.go();
    let length = REQUEST_MAX + 512;
    s.ask(command::WRITE, 1, 0, length, &vec![1; usize_of(length.into())]);
    assert_eq!(s.reply(), (1, super::super::errno::ENOSPC));
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
                left -= client.recv(crate::runtime::Buf::new(len), 0).await.1.unwrap();
            }
        });
    }
    assert_eq!(disk.load(), (0, 64));
}

#[test]
fn a_revoked_export_cuts_its_connections_at_once() {
    let world = World::default();
    let disk: Slow<Memory> = slow(&world, MIB, 0x11);
    let catalog = One::new(disk.clone());
    let revoked = catalog.revoked.clone();
    let (s, idle) = (start(&world, catalog.clone(), 1 << 20), start(&world, catalog, 1 << 20));
    s.go();
    idle.go();
    disk.delay(Duration::from_secs(5));
    s.ask(command::WRITE, 1, 0, 4, b"late");
    while disk.load().0 == 0 {
        world.run(crate::runtime::yield_now());
    }
    revoked.revoke();
    world.run(crate::runtime::yield_now());
    let (client, w) = (s.client.clone(), world.clone());
    let n = world.run(async move {
        assert!(w.now().0 < Duration::from_secs(1));
        client.recv(crate::runtime::Buf::new(16), 0).await.1.unwrap()
    });
    assert_eq!(n, 0, "cut without an answer");
    assert!(s.end.borrow().is_none(), "its request is in flight, so it is not over");
    assert!(matches!(s.ended(), End::Revoked) && matches!(idle.ended(), End::Revoked));
    assert_eq!((disk.load().0, world.tasks()), (0, 0));
}

#[test]
fn a_half_closed_client_still_gets_its_answers() {
    let world = World::default();
    let disk = slow(&world, MIB, 0x11);
    let s = start(&world, One::new(disk.clone()), 1 << 20);
    s.go();
    disk.delay(Duration::from_secs(1));
    s.ask(command::READ, 1, 0, 8, &[]);
    while disk.load().0 == 0 {
        world.run(crate::runtime::yield_now());
    }
    s.client.close();
    assert_eq!(s.reply(), (1, 0));
    assert_eq!(s.receive(8), [0x11; 8]);
    assert!(matches!(s.ended(), End::Left));
    assert_eq!(world.tasks(), 0);
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

#[test]
fn places_are_given_back() {
    let c = Connections::new(2);
    let (a, b) = (c.enter(), c.enter());
    assert!(a.is_some() && b.is_some() && c.enter().is_none());
    drop(a);
    assert_eq!(c.count(), 1);
    assert!(c.enter().is_some());
}
