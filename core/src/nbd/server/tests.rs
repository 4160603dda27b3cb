//! One connection, its client played byte by byte.

use std::rc::Rc;

use super::*;
use crate::disk::{Disk, Memory};
use crate::nbd::test_disk::{One, Slow, slow};
use crate::nbd::test_stream::{Duplex, World, duplex};
use crate::nbd::wire::tests::{Random, seed};
use crate::nbd::wire::{
    Chunk, InfoRequest, OptionReply, Request, SimpleReply, chunk, command, command_flag, option,
};

mod limits;

const MIB: u64 = 1 << 20;

/// A connection being served, and how it ended.
struct Served {
    world: World,
    task: crate::runtime::Task,
    client: Duplex,
    end: Rc<std::cell::RefCell<Option<End>>>,
}

fn start<D: Disk>(world: &World, catalog: One<D>, room: usize) -> Served {
    let (client, server) = duplex(room);
    let end = Rc::default();
    let (w, e): (_, Rc<std::cell::RefCell<_>>) = (world.clone(), Rc::clone(&end));
    let task = world.spawn("serve", async move {
        let ended = serve(&w, server, &catalog).await;
        *e.borrow_mut() = Some(ended);
    });
    Served { world: world.clone(), task, client, end }
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
                let (buf, n) = client.recv(Buf::new(1), 0).await;
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
        client.recv(Buf::new(16), 0).await.1.unwrap()
    });
    assert_eq!(n, 0, "cut without an answer");
    assert!(s.end.borrow().is_none(), "its request is in flight, so it is not over");
    assert!(matches!(s.ended(), End::Revoked) && matches!(idle.ended(), End::Revoked));
    assert_eq!((disk.load().0, world.tasks()), (0, 0));
}

#[test]
fn a_connection_whose_task_is_cancelled_is_cut() {
    let world = World::default();
    let disk = slow(&world, MIB, 0x11);
    let s = start(&world, One::new(disk.clone()), 1 << 20);
    s.go();
    disk.delay(Duration::from_secs(1));
    s.ask(command::READ, 1, 0, 8, &[]);
    while disk.load().0 == 0 {
        world.run(crate::runtime::yield_now());
    }
    s.task.cancel();
    let client = s.client.clone();
    let n = world.run(async move { client.recv(Buf::new(16), 0).await.1.unwrap() });
    world.settle();
    assert_eq!((n, world.tasks(), disk.load().0), (0, 0, 0));
}

#[test]
fn one_chunk_brings_all_where_the_client_wants_no_fragments() {
    let world = World::default();
    let disk = slow(&world, 4 * MIB, 0x11);
    let s = start(&world, One::new(disk), 64 << 20);
    s.send(&[&[0, 0, 0, 3][..], &OptionHeader::encode(option::STRUCTURED_REPLY, &[])].concat());
    s.receive(18 + 20);
    let go = InfoRequest { name: "vol".into(), wanted: vec![] }.encode();
    s.send(&OptionHeader::encode(option::GO, &go));
    s.receive(3 * 20 + 12 + 14);
    let (command, length) = (command::READ, 3 << 20);
    for (flags, pieces) in [(command_flag::DONT_FRAGMENT, 1), (0, 3)] {
        let request = Request { flags, command, cookie: 9, offset: 0, length };
        s.send(&request.encode());
        for piece in 1..=pieces {
            let chunk = Chunk::decode(s.receive(20).first_chunk().unwrap()).unwrap();
            assert_eq!((chunk.kind, chunk.is_done()), (chunk::OFFSET_DATA, piece == pieces));
            assert_eq!(chunk.length, 8 + length / pieces);
            s.receive(usize_of(chunk.length.into()));
        }
    }
}

#[test]
fn a_request_before_the_export_is_granted_ends_the_connection() {
    let world = World::default();
    let s = start(&world, One::new(Memory::new(MIB, 0x11)), 1 << 20);
    let go = InfoRequest { name: "vol".into(), wanted: vec![] }.encode();
    let mut bytes = [&[0, 0, 0, 3][..], &OptionHeader::encode(option::GO, &go)].concat();
    let request = Request { flags: 0, command: command::READ, cookie: 1, offset: 0, length: 1 };
    bytes.extend(request.encode());
    s.send(&bytes);
    let end = s.ended();
    assert!(matches!(end, End::Garbage(_)), "{end:?}");
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
fn places_are_given_back() {
    let c = Connections::new(2);
    let (a, b) = (c.enter(), c.enter());
    assert!(a.is_some() && b.is_some() && c.enter().is_none());
    drop(a);
    assert_eq!(c.count(), 1);
    assert!(c.enter().is_some());
}
