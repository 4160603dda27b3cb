//! Servers that lie: whatever they send, every request ends, and none with foreign bytes.

use super::*;
use crate::nbd::handshake::{Next, Server};
use crate::nbd::wire::{
    CHUNK_LEN, Chunk, ErrorChunk, OptionHeader, REQUEST_LEN, SIMPLE_LEN, SimpleReply, Writer, chunk,
};

/// A server that shakes hands as ours does and answers each request with what `script` says.
fn scripted(world: &World, script: impl Fn(&Request) -> Vec<u8> + 'static) -> Client<World> {
    let (client, stream) = duplex(256 << 10);
    let catalog = One::new(Memory::new(MIB, 0x11));
    world.spawn("hostile server", async move {
        let mut reader = Reader::new(stream.clone());
        let mut server = Server::default();
        let send = async |bytes: Vec<u8>| {
            let _ = stream.send(vec![Data::copy_of(&bytes)]).await;
        };
        send(Server::greeting()).await;
        let mut flags = [0; 4];
        reader.exact(&mut flags).await.unwrap();
        loop {
            let mut head = [0; 16];
            reader.exact(&mut head).await.unwrap();
            let head = OptionHeader::decode(&head).unwrap();
            let data = reader.payload(usize_of(head.length.into())).await.unwrap();
            let answer = server.option(head.option, &data, &catalog);
            send(answer.bytes).await;
            if !matches!(answer.next, Next::More) {
                break;
            }
        }
        loop {
            let mut head = [0; REQUEST_LEN];
            if reader.exact(&mut head).await.is_err() {
                return;
            }
            let request = Request::decode(&head).unwrap();
            let data = if request.command == command::WRITE { request.length } else { 0 };
            let _ = reader.payload(usize_of(data.into())).await;
            send(script(&request)).await;
        }
    });
    let w = world.clone();
    world.run(async move { Client::connect(&w, client, "vol", &Options::default()).await }).unwrap()
}

/// A chunk's bytes; the length may lie.
fn made(r: &Request, flags: u16, kind: u16, length: u32, content: &[u8]) -> Vec<u8> {
    let head: [u8; CHUNK_LEN] = Chunk { flags, kind, cookie: r.cookie, length }.encode();
    [&head[..], content].concat()
}

fn honest(r: &Request, flags: u16, kind: u16, content: &[u8]) -> Vec<u8> {
    made(r, flags, kind, u32::try_from(content.len()).unwrap(), content)
}

fn hole(r: &Request, flags: u16, at: u64, len: u32) -> Vec<u8> {
    honest(r, flags, chunk::OFFSET_HOLE, &Writer::default().u64(at).u32(len).0)
}

fn bytes(r: &Request, flags: u16, at: u64, data: &[u8]) -> Vec<u8> {
    honest(r, flags, chunk::OFFSET_DATA, &Writer::default().u64(at).bytes(data).0)
}

#[test]
fn replies_that_break_the_protocol_fail_all_that_wait() {
    type Script = fn(&Request) -> Vec<u8>;
    let lies: [(&str, Script); 17] = [
        ("no reply at all", |_| vec![b'x'; 64]),
        ("unknown cookie", |_| SimpleReply { errno: 0, cookie: 77 << 32 }.encode().to_vec()),
        ("unknown chunk cookie", |r| hole(&Request { cookie: 1, ..*r }, 1, 0, 4096)),
        ("absurd length", |r| made(r, 0, chunk::OFFSET_DATA, u32::MAX, &[0; 64])),
        ("absurd error length", |r| made(r, 1, chunk::ERROR, u32::MAX, &[0; 64])),
        ("data of no bytes", |r| made(r, 1, chunk::OFFSET_DATA, 8, &[0; 8])),
        ("data beyond the request", |r| bytes(r, 1, 4000, &[1; 200])),
        ("data before the request", |r| bytes(r, 1, u64::MAX - 3, &[1; 8])),
        ("a hole beyond the request", |r| hole(r, 1, 0, 8192)),
        ("a hole of no bytes", |r| hole(r, 0, 0, 0)),
        ("the same bytes twice", |r| [hole(r, 0, 0, 4096), bytes(r, 1, 0, &[1; 16])].concat()),
        ("half of the bytes", |r| hole(r, 1, 0, 2048)),
        ("as many bytes, but not all", |r| [hole(r, 0, 0, 4000), hole(r, 1, 3904, 96)].concat()),
        ("done without anything", |r| honest(r, 1, chunk::NONE, &[])),
        ("none but not done", |r| honest(r, 0, chunk::NONE, &[])),
        ("extents for a read", |r| honest(r, 1, chunk::BLOCK_STATUS, &[0; 12])),
        ("an unknown kind", |r| honest(r, 1, 99, &[0; 12])),
    ];
    for (what, lie) in lies {
        let world = World::default();
        let client = scripted(&world, move |r| if r.offset == 0 { lie(r) } else { Vec::new() });
        let c = client.clone();
        world.run(async move {
            let waits = read(&c, ByteRange::new(8192, 8200));
            let (a, b) = futures::join!(read(&c, ByteRange::new(0, 4096)), waits);
            assert_eq!(a.expect_err(what).kind(), ErrorKind::Corrupt, "{what}");
            assert_eq!(b.expect_err(what).kind(), ErrorKind::Corrupt, "{what}");
            let later = c.flush().await.unwrap_err();
            assert!(later.to_string().contains("the NBD server breaks the protocol"), "{later}");
        });
        drop(client);
        world.settle();
        assert_eq!(world.tasks(), 0, "{what}");
    }
}

#[test]
fn an_answer_that_ends_too_early_is_the_end_of_the_only_one_that_waits() {
    let world = World::default();
    let client = scripted(&world, |r| honest(r, 1, chunk::NONE, &[]));
    let found = world.run(async move { read(&client, ByteRange::new(0, 4096)).await });
    assert_eq!(found.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn extents_that_lead_nowhere_are_refused() {
    let lists: [&[u8]; 4] = [
        &[0, 0, 0, 1],
        &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 9, 0, 0, 1, 0, 0, 0, 0, 0],
        &[0, 0, 0, 1, 0, 0, 1],
    ];
    for list in lists {
        let world = World::default();
        let client = scripted(&world, move |r| honest(r, 1, chunk::BLOCK_STATUS, list));
        let found = world.run(async move { client.allocation(ByteRange::new(0, MIB)).await });
        assert_eq!(found.unwrap_err().kind(), ErrorKind::Corrupt, "{list:?}");
    }
}

#[test]
fn a_reply_in_many_parts_and_any_order_is_put_together() {
    let world = World::default();
    let client = scripted(&world, |r| {
        let none = honest(r, 1, chunk::NONE, &[]);
        [bytes(r, 0, 3000, &[3; 1096]), hole(r, 0, 10, 2990), bytes(r, 0, 0, &[1; 10]), none]
            .concat()
    });
    let found = world.run(async move { read(&client, ByteRange::new(0, 4096)).await }).unwrap();
    let expected = [&[1; 10][..], &[0; 2990], &[3; 1096]].concat();
    assert!(found == expected);
}

#[test]
fn an_error_chunk_fails_one_request_only() {
    let world = World::default();
    let client = scripted(&world, |r| {
        let text = "bad\nsector".to_owned();
        let error = ErrorChunk { errno: 28, text, offset: Some(r.offset) };
        let first = hole(r, 0, r.offset, 16);
        [first, honest(r, 0, error.kind(), &error.encode()), honest(r, 1, 0, &[])].concat()
    });
    world.run(async move {
        let error = read(&client, ByteRange::new(0, 4096)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(error.to_string().ends_with("badsector"), "{error}");
        assert!(client.is_connected());
    });
}

#[test]
fn random_replies_never_hang_or_hurt_the_client() {
    let seed = seed();
    for round in 0..500 {
        let world = World::default();
        let random = RefCell::new(Random(seed.wrapping_add(round) | 1));
        let client = scripted(&world, move |r| {
            let mut random = random.borrow_mut();
            let kinds = [0, 1, 2, 5, 0x8001, 0x8002, 0x8003, 77];
            let kind = kinds[usize_of(random.below(8))];
            let len = random.below(40);
            let content = random.bytes(len);
            match random.below(6) {
                0 => {
                    let errno = u32::try_from(random.below(40)).unwrap();
                    let head: [u8; SIMPLE_LEN] = SimpleReply { errno, cookie: r.cookie }.encode();
                    [&head[..], &vec![7; usize_of(r.length.into())]].concat()
                }
                1 => content,
                2 => hole(r, 1, r.offset, r.length),
                flags => honest(r, u16::try_from(flags & 1).unwrap(), kind, &content),
            }
        });
        let (c, w) = (client.clone(), world.clone());
        world.run(async move {
            for _ in 0..10 {
                let all = async {
                    let _ = read(&c, ByteRange::new(0, 64)).await;
                    let _ = c.allocation(ByteRange::new(0, 64)).await;
                    let _ = c.flush().await;
                };
                // A reply that never ends is for the request timeout; here it is enough to close.
                if timeout(&w, Duration::from_secs(1), all).await.is_none() {
                    c.close().await;
                }
            }
        });
        drop(client);
        world.settle();
        assert_eq!(world.tasks(), 0);
    }
}
