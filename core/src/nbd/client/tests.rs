//! The client against our server, and against servers that lie.

use super::*;
use crate::disk::{Disk, Fault, Memory};
use crate::nbd::server::serve;
use crate::nbd::test_disk::{One, Slow, slow};
use crate::nbd::test_stream::{Duplex, World, duplex};
use crate::nbd::wire::tests::{Random, seed};
use crate::runtime::Buf;
use crate::units::{ByteOffset, ByteRange, usize_of};

mod hostile;

const MIB: u64 = 1 << 20;

fn export<D: Disk>(world: &World, catalog: One<D>) -> Duplex {
    let (client, server) = duplex(256 << 10);
    let w = world.clone();
    world.spawn("serve", async move {
        serve(&w, server, &catalog).await;
    });
    client
}

fn connect<D: Disk>(world: &World, catalog: One<D>) -> Client<World> {
    let (stream, w) = (export(world, catalog), world.clone());
    world.run(async move { Client::connect(&w, stream, "vol", &Options::default()).await }).unwrap()
}

async fn read(client: &Client<World>, range: ByteRange) -> Result<Vec<u8>> {
    let (buf, result) = client.read(range.offset(), Buf::new(usize_of(range.len()))).await;
    assert_eq!(u64_of(buf.len()), range.len(), "the buffer comes back whole");
    result.map(|()| buf.to_vec())
}

/// Random requests, several in flight on disjoint thirds, against a plain model.
fn drive(world: &World, disk: &Slow<Memory>, catalog: One<Slow<Memory>>, seed: u64) {
    let client = connect(world, catalog);
    assert_eq!(client.alignment(), disk.alignment());
    let len = disk.len();
    let mut random = Random(seed | 1);
    let model = Rc::new(RefCell::new(vec![0x11; usize_of(len)]));
    for _ in 0..60 {
        let mut tasks = Vec::new();
        for third in 0..3 {
            let (base, unit) = (third * len / 3 / 4096 * 4096, disk.alignment());
            let most = len / 3 - 4096;
            let start = random.below(most) / unit * unit;
            let long = if random.below(8) == 0 { most } else { 20_000.min(most) };
            let n = random.below(long.min(most - start)) / unit * unit;
            let range = ByteRange::new(base + start, base + start + n);
            let at = usize_of(range.start)..usize_of(range.end);
            let (c, m) = (client.clone(), model.clone());
            let fill = u8::try_from(random.below(255) + 1).unwrap();
            let what = random.below(6);
            tasks.push(world.spawn("request", async move {
                match what {
                    0 => {
                        m.borrow_mut()[at.clone()].fill(fill);
                        let data: Vec<_> =
                            m.borrow()[at].chunks(70_000).map(Data::copy_of).collect();
                        c.writev(range.offset(), data).await.unwrap();
                    }
                    1 if n <= MIB => {
                        m.borrow_mut()[at.clone()].fill(fill);
                        let data = Data::copy_of(&m.borrow()[at]);
                        c.write(range.offset(), data).await.unwrap();
                    }
                    2 => {
                        m.borrow_mut()[at].fill(0);
                        c.write_zeroes(range, fill > 99).await.unwrap();
                    }
                    3 => c.flush().await.unwrap(),
                    _ => {
                        let range =
                            ByteRange::new(range.start, range.end.min(range.start + 2 * MIB));
                        let at = usize_of(range.start)..usize_of(range.end);
                        let found = read(&c, range).await.unwrap();
                        assert!(found == m.borrow()[at], "read {range} differs from the model");
                    }
                }
            }));
        }
        world.run(async move {
            for task in tasks {
                task.join().await;
            }
        });
    }
    let c = client.clone();
    world.run(async move {
        for piece in ByteRange::new(0, len).pieces(MIB) {
            let found = read(&c, piece).await.unwrap();
            let at = usize_of(piece.start)..usize_of(piece.end);
            assert!(found == model.borrow()[at], "{piece} differs from the model");
        }
    });
    drop(client);
    world.settle();
    assert_eq!(world.tasks(), 0);
}

#[test]
fn random_requests_read_back_what_a_plain_model_holds() {
    let seed = seed();
    for round in 0..8 {
        let world = World::default();
        let disk = slow(&world, 6 * MIB, 0x11);
        disk.align([1, 512, 4096, 1][usize_of(round) % 4]);
        if round % 2 == 1 {
            disk.delay(Duration::from_millis(5));
        }
        let mut catalog = One::new(disk.clone());
        catalog.maximum = [None, Some(12 << 10), Some(64 << 10)][usize_of(round) % 3];
        drive(&world, &disk, catalog, seed.wrapping_add(round));
    }
}

#[test]
fn errors_of_the_far_disk_keep_their_kind_and_their_words() {
    let world = World::default();
    let (disk, faults) = Fault::new(Memory::new(MIB, 0x11));
    let client = connect(&world, One::new(disk));
    faults.fail_reads(true);
    faults.fail_writes(true);
    faults.only(Some(ByteRange::new(4096, 8192)));
    world.run(async move {
        let error = read(&client, ByteRange::new(4000, 5000)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("fault injected"), "{error}");
        let written = client.write(ByteOffset(4096), Data::zeroes(1)).await;
        assert_eq!(written.unwrap_err().kind(), ErrorKind::Io);
        assert!(read(&client, ByteRange::new(0, 4096)).await.is_ok(), "the connection lives on");
        assert_eq!(
            read(&client, ByteRange::new(MIB, MIB + 1)).await.unwrap_err().kind(),
            ErrorKind::Invalid
        );
        faults.fail_flushes(true);
        assert_eq!(client.flush().await.unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(client.flush().await.unwrap_err().kind(), ErrorKind::Poisoned);
    });
}

#[test]
fn a_read_only_export_takes_no_write() {
    let world = World::default();
    let mut catalog = One::new(Memory::new(MIB, 0x11));
    catalog.read_only = true;
    let client = connect(&world, catalog);
    world.run(async move {
        for result in [
            client.write(ByteOffset(0), Data::zeroes(512)).await,
            client.discard(ByteRange::new(0, 512)).await,
        ] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::NotPermitted);
        }
        assert_eq!(read(&client, ByteRange::new(0, 2)).await.unwrap(), [0x11; 2]);
    });
}

#[test]
fn allocation_is_the_far_disks() {
    let world = World::default();
    let disk = slow(&world, MIB, 0x11);
    let hole = ByteRange::new(4096, 12288);
    disk.holes(&[hole]);
    let client = connect(&world, One::new(disk));
    let found = world.run(async move { client.allocation(ByteRange::new(0, MIB)).await }).unwrap();
    let all = [(ByteRange::new(0, 4096), true), (hole, false), (ByteRange::new(12288, MIB), true)];
    assert_eq!(found, all);
}

#[test]
fn an_unknown_export_is_refused_with_the_servers_words_and_the_list_names_the_others() {
    let world = World::default();
    let catalog = One::new(Memory::new(MIB, 0));
    let (stream, w) = (export(&world, catalog.clone()), world.clone());
    let none =
        world.run(async move { Client::connect(&w, stream, "no", &Options::default()).await });
    let error = none.unwrap_err().to_string();
    assert!(error.contains("no export 'no'; there is 'vol'"), "{error}");
    let (stream, w) = (export(&world, catalog), world.clone());
    let list = world.run(async move { Client::list(&w, stream, &Options::default()).await });
    let vol = ExportInfo { name: "vol".into(), description: "a volume".into() };
    assert_eq!(list.unwrap(), [vol]);
    world.settle();
    assert_eq!(world.tasks(), 0);
}

#[test]
fn a_silent_server_ends_the_connection_when_its_time_is_up() {
    let world = World::default();
    let disk = slow(&world, MIB, 0x11);
    let (stream, w) = (export(&world, One::new(disk.clone())), world.clone());
    let client = world.run(async move {
        let options = Options { request: Some(Duration::from_secs(3)), ..Options::default() };
        Client::connect(&w, stream, "vol", &options).await.unwrap()
    });
    let w = world.clone();
    world.run(async move {
        assert!(read(&client, ByteRange::new(0, 1)).await.is_ok());
        w.sleep(Duration::from_mins(1)).await;
        assert!(client.is_connected(), "an idle connection is not late");
        disk.delay(Duration::from_secs(1_000_000));
        let (a, b) = (read(&client, ByteRange::new(0, 1)), client.flush());
        let (a, b) = futures::join!(a, b);
        assert_eq!(a.unwrap_err().kind(), ErrorKind::Disconnected);
        assert_eq!(b.unwrap_err().kind(), ErrorKind::Disconnected);
        assert_eq!(w.now().0, Duration::from_secs(63));
        let error = client.ended().await;
        assert!(error.to_string().contains("did not answer within 3s"), "{error}");
    });
}

#[test]
fn a_dropped_request_leaves_nothing_behind_and_its_late_answer_meets_nobody() {
    let world = World::default();
    let disk = slow(&world, MIB, 0x11);
    let client = connect(&world, One::new(disk.clone()));
    disk.delay(Duration::from_secs(1));
    drop(client.read(ByteOffset(0), Buf::new(4096)));
    let c = client.clone();
    let found = world.run(async move { read(&c, ByteRange::new(0, 3)).await });
    assert_eq!(found.unwrap(), [0x11; 3]);
    world.settle();
    assert!(client.is_connected());
    assert_eq!(client.0.shared.table.len(), 0);
}

#[test]
fn close_says_goodbye_and_fails_what_is_in_flight() {
    let world = World::default();
    let disk = slow(&world, MIB, 0x11);
    let client = connect(&world, One::new(disk.clone()));
    disk.delay(Duration::from_secs(100));
    let (c, d) = (client.clone(), client.clone());
    let task = world.spawn("read", async move {
        let error = read(&c, ByteRange::new(0, 1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disconnected);
    });
    world.run(async move {
        d.close().await;
        task.join().await;
    });
    assert!(!client.is_connected());
    drop(client);
    world.settle();
    assert_eq!(world.tasks(), 0);
}
