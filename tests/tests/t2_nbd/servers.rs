//! Our client against other people's servers.

use std::path::Path;
use std::time::Duration;

use understudy_core::disk::{Disk, Error, ErrorKind};
use understudy_core::nbd::Client;
use understudy_core::nbd::client::Options;
use understudy_core::runtime::{Address, BUF_MAX, Buf, Data, Env, ShardConfig, ShardEnv, block_on};
use understudy_core::units::{ByteOffset, ByteRange, u64_of, usize_of};

use super::command::{Running, have};
use super::server::text;

const MIB: u64 = 1 << 20;
const NBDKIT: [(&str, &str); 1] = [("nbdkit", "nbdkit")];

/// Starts nbdkit's memory plugin with `args`, connects, and does `work`.
fn nbdkit<Fut: Future<Output = ()> + 'static>(
    args: &[&str],
    options: Options,
    work: impl FnOnce(ShardEnv, Client<ShardEnv>) -> Fut + 'static,
) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nbdkit.sock");
    let mut all = vec!["-f", "-U", text(&socket)];
    all.extend(args);
    let _running = Running::start("nbdkit", &all, &socket);
    with_client(&socket, "", options, work);
}

fn with_client<Fut: Future<Output = ()> + 'static>(
    socket: &Path,
    export: &'static str,
    options: Options,
    work: impl FnOnce(ShardEnv, Client<ShardEnv>) -> Fut + 'static,
) {
    let address = Address::Unix(socket.to_owned());
    block_on(&ShardConfig::default(), |env| async move {
        let stream = env.connect(&address).await.unwrap();
        let client = Client::connect(&env, stream, export, &options).await.unwrap();
        work(env, client).await;
    })
    .unwrap();
}

async fn read(disk: &impl Disk, range: ByteRange) -> Result<Vec<u8>, Error> {
    let (buf, result) = disk.read(range.offset(), Buf::new(usize_of(range.len()))).await;
    result.map(|()| buf.to_vec())
}

/// Random requests against a plain model, several in flight.
async fn compare_with_model(client: Client<ShardEnv>, rounds: u64) {
    let (len, unit) = (client.len(), client.alignment());
    let mut model = vec![0; usize_of(len)];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % n
    };
    for _ in 0..rounds {
        let mut writes = Vec::new();
        let mut zeroes = Vec::new();
        for part in 0..8 {
            let base = part * len / 8 / unit * unit;
            let start = base + random(len / 8 - 2 * unit) / unit * unit;
            let most = (len / 8 - (start - base)).min(u64_of(BUF_MAX));
            let n = random(most) / unit * unit;
            let range = ByteRange::new(start, start + n);
            let at = usize_of(range.start)..usize_of(range.end);
            let fill = u8::try_from(random(256)).unwrap();
            if random(3) == 0 {
                model[at].fill(0);
                zeroes.push(client.write_zeroes(range, fill & 1 == 0));
            } else {
                model[at.clone()].fill(fill);
                writes.push(client.write(range.offset(), Data::copy_of(&model[at])));
            }
        }
        let (writes, zeroes) =
            futures::join!(futures::future::join_all(writes), futures::future::join_all(zeroes));
        assert!(writes.iter().chain(&zeroes).all(Result::is_ok), "{writes:?} {zeroes:?}");
        client.flush().await.unwrap();
        for piece in ByteRange::new(0, len).pieces(MIB) {
            let found = read(&client, piece).await.unwrap();
            assert!(found == model[usize_of(piece.start)..usize_of(piece.end)], "{piece}");
        }
    }
    for (range, allocated) in client.allocation(ByteRange::new(0, len)).await.unwrap() {
        let part = &model[usize_of(range.start)..usize_of(range.end)];
        assert!(allocated || part.iter().all(|b| *b == 0), "{range} is no hole");
    }
}

#[test]
fn our_client_and_qemu_nbd_agree() {
    if !have(&[("qemu-nbd", "qemu-utils")]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (socket, disk) = (directory.path().join("qemu.sock"), directory.path().join("disk.raw"));
    std::fs::File::create(&disk).unwrap().set_len(8 * MIB).unwrap();
    let args =
        ["-t", "-f", "raw", "-x", "name", "--discard=unmap", "-k", text(&socket), text(&disk)];
    let _running = Running::start("qemu-nbd", &args, &socket);
    with_client(&socket.clone(), "name", Options::default(), |env, client| async move {
        let agreed = client.negotiated().clone();
        assert!(agreed.structured && agreed.context.is_some(), "{agreed:?}");
        compare_with_model(client.clone(), 10).await;
        let found = client.allocation(ByteRange::new(0, 8 * MIB)).await.unwrap();
        assert_eq!(found.iter().map(|(r, _)| r.len()).sum::<u64>(), 8 * MIB);
        // qemu-nbd serves one client at a time: say goodbye before the next.
        client.close().await;
        let stream = env.connect(&Address::Unix(socket)).await.unwrap();
        let list = Client::list(&env, stream, &Options::default()).await.unwrap();
        assert_eq!(list[0].name, "name");
    });
}

#[test]
fn our_client_and_nbdkit_agree_with_and_without_chunks_zeroes_and_delays() {
    if !have(&NBDKIT) {
        return;
    }
    for args in [
        &["memory", "8M"][..],
        &["--no-sr", "memory", "8M"],
        &["--mask-handshake=0", "memory", "8M"],
        &["--filter=nozero", "memory", "8M"],
        &["--filter=delay", "memory", "8M", "delay-read=2ms", "delay-write=1ms"],
    ] {
        nbdkit(args, Options::default(), |_, client| compare_with_model(client, 3));
    }
}

#[test]
fn our_client_keeps_to_a_block_size_policy() {
    if !have(&NBDKIT) {
        return;
    }
    let args = [
        "--filter=blocksize-policy",
        "memory",
        "8M",
        "blocksize-minimum=512",
        "blocksize-preferred=4096",
        "blocksize-maximum=64K",
        "blocksize-error-policy=error",
    ];
    nbdkit(&args, Options::default(), |_, client| async move {
        assert_eq!(client.alignment(), 512);
        let misaligned = client.write(ByteOffset(1), Data::zeroes(512)).await.unwrap_err();
        assert_eq!(misaligned.kind(), ErrorKind::Invalid);
        compare_with_model(client, 3).await;
    });
}

#[test]
fn errors_of_nbdkit_fail_single_requests() {
    if !have(&NBDKIT) {
        return;
    }
    for args in [
        &["--filter=error", "memory", "8M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%"][..],
        &[
            "--no-sr",
            "--filter=error",
            "memory",
            "8M",
            "error-pwrite=ENOSPC",
            "error-pwrite-rate=1",
        ],
    ] {
        nbdkit(args, Options::default(), |_, client| async move {
            for _ in 0..3 {
                let error = client.write(ByteOffset(0), Data::zeroes(4096)).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            }
            assert_eq!(read(&client, ByteRange::new(0, 3)).await.unwrap(), [0; 3]);
        });
    }
}

#[test]
fn a_server_that_is_too_slow_ends_the_connection() {
    if !have(&NBDKIT) {
        return;
    }
    let options = Options { request: Some(Duration::from_millis(300)), ..Options::default() };
    let args = ["--filter=delay", "memory", "8M", "delay-read=5"];
    nbdkit(&args, options, |_, client| async move {
        assert!(client.write(ByteOffset(0), Data::zeroes(4096)).await.is_ok());
        let error = read(&client, ByteRange::new(0, 4096)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
    });
}

#[test]
fn a_server_that_dies_fails_what_is_in_flight() {
    if !have(&NBDKIT) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nbdkit.sock");
    let args = ["-f", "-U", text(&socket), "--filter=delay", "memory", "8M", "delay-read=20"];
    let running = Running::start("nbdkit", &args, &socket);
    with_client(&socket, "", Options::default(), |env, client| async move {
        let c = client.clone();
        let reading = env.spawn("read", async move {
            let error = read(&c, ByteRange::new(0, 4096)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
        });
        env.sleep(Duration::from_millis(100)).await;
        drop(running);
        reading.join().await;
        assert!(!client.is_connected());
    });
}
