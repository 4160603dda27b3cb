//! Streams and what happens to them.

use std::io;
use std::time::Duration;

use super::super::{Direction, Loss, Sim, SimHost, SimStream};
use crate::runtime::{Address, Buf, Data, Env as _, Stream as _, timeout};

/// A stream from node a to node b; both ends.
async fn pair(sim: &Sim) -> (SimStream, SimStream) {
    let (a, b) = (sim.node("a"), sim.node("b"));
    let listener = b.listen("/run/b").unwrap();
    let near = a.connect(&Address::Unix("/run/b".into())).await.unwrap();
    (near, listener.accept().await)
}

/// Whether nothing comes for ten seconds.
async fn is_silent(host: &SimHost, stream: &SimStream) -> bool {
    timeout(host, Duration::from_secs(10), stream.recv(Buf::new(10), 0)).await.is_none()
}

async fn recv(stream: &SimStream) -> io::Result<usize> {
    stream.recv(Buf::new(100), 0).await.1
}

#[test]
fn bytes_arrive_in_order_and_in_pieces() {
    let mut pieces = 0;
    for seed in 0..20 {
        let sim = Sim::new(seed);
        sim.block_on(async {
            let (near, far) = pair(&sim).await;
            let sent: Vec<u8> =
                (0..1_000_000_u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
            let data: Vec<_> = sent.chunks(70_000).map(Data::copy_of).collect();
            sim.node("a").spawn("send", async move {
                near.send(data).await.unwrap();
                near.shutdown();
            });
            let mut got = Vec::new();
            let mut buf = Buf::new(100_000);
            loop {
                let (back, n) = far.recv(buf, 5).await;
                buf = back;
                match n.unwrap() {
                    0 => break,
                    n => got.extend_from_slice(&buf[5..5 + n]),
                }
                pieces += 1;
            }
            assert!(got == sent, "seed {seed}");
            assert_eq!(
                far.send(vec![Data::zeroes(1)]).await.unwrap_err().kind(),
                io::ErrorKind::BrokenPipe
            );
        });
    }
    assert!(pieces > 500, "{pieces}");
}

#[test]
fn a_sender_waits_for_its_reader() {
    let sim = Sim::new(1);
    sim.set_network_capacity(1000);
    sim.block_on(async {
        let a = sim.node("a");
        let (near, far) = pair(&sim).await;
        near.send(vec![Data::zeroes(1000)]).await.unwrap();
        let more = near.send(vec![Data::zeroes(1)]);
        assert!(timeout(&a, Duration::from_secs(5), more).await.is_none());
        recv(&far).await.unwrap();
        near.send(vec![Data::zeroes(1)]).await.unwrap();
    });
}

#[test]
fn a_partition_is_silence_until_it_heals_and_nothing_is_lost() {
    for direction in [Direction::Both, Direction::OneWay] {
        let sim = Sim::new(1);
        sim.block_on(async {
            let b = sim.node("b");
            let (near, far) = pair(&sim).await;
            near.send(vec![Data::copy_of(b"one")]).await.unwrap();
            sim.partition("a", "b", direction);
            near.send(vec![Data::copy_of(b"two")]).await.unwrap();
            far.send(vec![Data::copy_of(b"back")]).await.unwrap();
            assert!(is_silent(&b, &far).await);
            assert_eq!(is_silent(&b, &near).await, direction == Direction::Both);
            let a = sim.node("a");
            let connect = a.connect(&Address::Unix("/run/b".into()));
            assert!(timeout(&a, Duration::from_secs(9), connect).await.is_none());
            sim.heal("a", "b");
            let mut got = Vec::new();
            while got.len() < 6 {
                let (buf, n) = far.recv(Buf::new(6), 0).await;
                got.extend_from_slice(&buf[..n.unwrap()]);
            }
            assert_eq!(got, b"onetwo");
        });
    }
}

#[test]
fn a_cut_resets_both_sides_each_at_its_own_time() {
    let sim = Sim::new(1);
    sim.block_on(async {
        let (near, far) = pair(&sim).await;
        sim.cut("a", "b");
        near.send(vec![Data::zeroes(10)]).await.unwrap();
        assert_eq!(recv(&near).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(recv(&far).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let error = near.send(vec![Data::zeroes(10)]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_stall_is_silence_for_ever_but_new_streams_work() {
    let sim = Sim::new(1);
    sim.block_on(async {
        let b = sim.node("b");
        let (near, far) = pair(&sim).await;
        sim.stall("a", "b");
        near.send(vec![Data::zeroes(10)]).await.unwrap();
        sim.heal("a", "b");
        assert!(is_silent(&b, &far).await);
        let (near, far) = pair(&sim).await;
        near.send(vec![Data::zeroes(10)]).await.unwrap();
        assert!(recv(&far).await.unwrap() > 0);
    });
}

#[test]
fn peers_of_a_crash_find_their_streams_ended_and_those_of_a_power_cut_hear_nothing() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        sim.block_on(async {
            let (_near, far) = pair(&sim).await;
            sim.crash("a");
            assert_eq!(recv(&far).await.unwrap_or(0), 0);
            let (_near, far) = pair(&sim).await;
            sim.power_cut("a");
            let b = sim.node("b");
            assert!(is_silent(&b, &far).await);
            far.send(vec![Data::zeroes(10)]).await.unwrap();
            assert!(is_silent(&b, &far).await);
            // Started again, it does not know the stream.
            sim.node("a");
            far.send(vec![Data::zeroes(10)]).await.unwrap();
            assert_eq!(recv(&far).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        });
    }
}

#[test]
fn nobody_answers_where_nobody_listens() {
    let sim = Sim::new(1);
    sim.block_on(async {
        let (a, b) = (sim.node("a"), sim.node("b"));
        let to = Address::Unix("/run/b".into());
        assert_eq!(a.connect(&to).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let listener = b.listen("/run/b").unwrap();
        assert_eq!(b.listen("/run/b").unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let stream = a.connect(&to).await.unwrap();
        drop(listener);
        assert_eq!(recv(&stream).await.unwrap_or(0), 0);
        assert!(a.connect(&to).await.is_err());
        let _listener = b.listen("/run/b").unwrap();
        sim.power_cut("b");
        assert!(timeout(&a, Duration::from_secs(9), a.connect(&to)).await.is_none());
        sim.node("b");
        assert_eq!(a.connect(&to).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn losses_break_streams_now_and_then() {
    let (mut reset, mut stalled) = (0, 0);
    for seed in 0..50 {
        let sim = Sim::new(seed);
        sim.set_loss(Loss { reset_one_in: 20, stall_one_in: 20 });
        sim.block_on(async {
            let b = sim.node("b");
            let (near, far) = pair(&sim).await;
            loop {
                if near.send(vec![Data::zeroes(10)]).await.is_err() {
                    reset += 1;
                    break;
                }
                match timeout(&b, Duration::from_secs(10), recv(&far)).await {
                    None => {
                        stalled += 1;
                        break;
                    }
                    Some(Err(_)) => {
                        reset += 1;
                        break;
                    }
                    Some(Ok(_)) => {}
                }
            }
        });
    }
    assert!(reset > 5 && stalled > 5, "{reset} {stalled}");
}
