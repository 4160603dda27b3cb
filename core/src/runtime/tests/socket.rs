use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::on_each;
use crate::runtime::{
    Address, BUF_MAX, Buf, Data, Env, Listener, Reader, ShardEnv, ShardStream, Stream, timeout,
};

fn pair(env: &ShardEnv) -> (ShardStream, ShardStream) {
    let (a, b) = UnixStream::pair().unwrap();
    (env.adopt(a.into()).unwrap(), env.adopt(b.into()).unwrap())
}

/// Answers every byte with itself until the end.
async fn echo(stream: ShardStream) {
    let mut buf = Buf::new(64 << 10);
    loop {
        let (back, n) = stream.recv(buf, 0).await;
        let n = n.unwrap();
        if n == 0 {
            return;
        }
        stream.send(vec![Data::copy_of(&back[..n])]).await.unwrap();
        buf = back;
    }
}

async fn echo_both_ways(env: ShardEnv, address: Address) {
    let listener = Listener::bind(&env, &address).await.unwrap();
    let at = listener.address().clone();
    env.spawn("server", {
        let env = env.clone();
        async move {
            loop {
                let stream = listener.accept().await.unwrap();
                env.spawn("echo", echo(stream));
            }
        }
    });
    for _ in 0..3 {
        let stream = env.connect(&at).await.unwrap();
        let mut reader = Reader::new(stream.clone());
        // Many pieces, empty ones among them, far more than a socket's buffer holds.
        let pieces: Vec<_> = (0..1500_usize)
            .map(|i| Data::copy_of(&vec![u8::try_from(i % 251).unwrap(); i % 7 * 1000]))
            .chain([Data::copy_of(&vec![9; BUF_MAX])])
            .collect();
        let expected: Vec<u8> = pieces.iter().flat_map(|d| d.to_vec()).collect();
        let sent = env.spawn("send", {
            let stream = stream.clone();
            async move { stream.send(pieces).await.unwrap() }
        });
        let mut got = vec![0; expected.len()];
        reader.exact(&mut got).await.unwrap();
        sent.join().await;
        assert!(got == expected);
        stream.shutdown();
        assert!(!reader.exact_or_end(&mut [0]).await.unwrap());
    }
}

#[test]
fn bytes_come_back_over_tcp() {
    on_each(|env| echo_both_ways(env, "tcp:localhost:0".parse().unwrap()));
}

#[test]
fn bytes_come_back_over_a_unix_socket() {
    on_each(|env| async move {
        let dir = tempfile::tempdir().unwrap();
        echo_both_ways(env, Address::Unix(dir.path().join("s"))).await;
    });
}

#[test]
fn a_socket_file_left_behind_is_replaced_and_a_live_one_is_not() {
    on_each(|env| async move {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::Unix(dir.path().join("s"));
        drop(Listener::bind(&env, &address).await.unwrap());
        let live = Listener::bind(&env, &address).await.unwrap();
        let refused = Listener::bind(&env, &address).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
        drop(live);
        std::fs::remove_file(dir.path().join("s")).unwrap();
        std::fs::write(dir.path().join("s"), "a file").unwrap();
        assert!(Listener::bind(&env, &address).await.is_err());
    });
}

#[test]
fn connecting_to_nobody_is_an_error_that_names_the_address() {
    on_each(|env| async move {
        for bad in ["unix:/nowhere/at/all", "tcp:127.0.0.1:1", "tcp:no-such-host.invalid:1"] {
            let e = env.connect(&bad.parse().unwrap()).await.unwrap_err();
            assert!(e.to_string().contains(bad), "{e}");
        }
    });
}

#[test]
fn a_dropped_receive_is_forgotten_and_its_stream_closes() {
    on_each(|env| async move {
        let (a, b) = pair(&env);
        assert!(timeout(&env, Duration::from_millis(5), a.recv(Buf::new(10), 0)).await.is_none());
        drop(a);
        let (_, n) = b.recv(Buf::new(10), 0).await;
        assert_eq!(n.unwrap(), 0);
    });
}

#[test]
fn a_dropped_send_still_sends_everything() {
    on_each(|env| async move {
        let (a, b) = pair(&env);
        let big = Data::copy_of(&vec![5; BUF_MAX]);
        drop(a.send(vec![big.clone(), big]));
        let mut reader = Reader::new(b);
        for _ in 0..2 {
            assert!(reader.payload(BUF_MAX).await.unwrap().iter().all(|b| *b == 5));
        }
        drop(a);
        assert!(!reader.exact_or_end(&mut [0]).await.unwrap());
    });
}

#[test]
fn shutdown_ends_pending_requests_on_both_ends() {
    on_each(|env| async move {
        let (a, b) = pair(&env);
        let (ra, rb) = (a.recv(Buf::new(10), 0), b.recv(Buf::new(10), 0));
        a.shutdown();
        assert_eq!(ra.await.1.unwrap(), 0);
        assert_eq!(rb.await.1.unwrap(), 0);
        let (c, d) = pair(&env);
        let stuck = c.send(vec![Data::zeroes(BUF_MAX)]);
        d.shutdown();
        assert!(stuck.await.is_err());
        assert!(a.send(vec![Data::zeroes(1)]).await.is_err());
    });
}

#[test]
fn a_shard_may_end_with_requests_in_flight() {
    on_each(|env| async move {
        let (a, b) = pair(&env);
        let stuck = a.send(vec![Data::zeroes(BUF_MAX), Data::zeroes(BUF_MAX)]);
        env.spawn("left behind", async move {
            let _ = stuck.await;
        });
        let _b = b.clone();
        env.spawn("left behind too", async move {
            let _ = b.recv(Buf::new(10), 0).await;
            let _ = b.recv(Buf::new(10), 0).await;
        });
        env.sleep(Duration::from_millis(1)).await;
    });
}

#[test]
fn more_requests_than_the_queues_hold_all_end() {
    on_each(|env| async move {
        let (a, b) = pair(&env);
        drop(b);
        // Each ends at once: far more answers at a time than the completion queue has room for.
        let waits: Vec<_> = (0..10_000).map(|_| a.recv(Buf::new(1), 0)).collect();
        let data = Data::zeroes(1);
        let sends: Vec<_> = (0..10_000).map(|_| a.send(vec![data.clone()])).collect();
        for w in waits {
            assert_eq!(w.await.1.unwrap(), 0);
        }
        for s in sends {
            assert!(s.await.is_err());
        }
        let pairs: Vec<_> = (0..150).map(|_| pair(&env)).collect();
        drop(pairs.iter().map(|(a, _)| a.recv(Buf::new(1), 0)).collect::<Vec<_>>());
    });
}

#[test]
fn hundreds_of_requests_at_once_fit() {
    on_each(|env| async move {
        let pairs: Vec<_> = (0..150).map(|_| pair(&env)).collect();
        let waits: Vec<_> = pairs.iter().map(|(a, _)| a.recv(Buf::new(10), 0)).collect();
        let sends: Vec<_> = pairs.iter().map(|(_, b)| b.send(vec![Data::copy_of(b"x")])).collect();
        for w in waits {
            assert_eq!(w.await.1.unwrap(), 1);
        }
        for s in sends {
            s.await.unwrap();
        }
    });
}
