//! Far ends of a link that are none: each is refused with a reason, and nothing else notices.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::pair::{self, G1, Pair, at, fill, policy, run, spec};
use crate::link::frame::{self, Body, HEADER_LEN, Hello};
use crate::overlay::Role;
use crate::replication::ExportKind::Primary;
use crate::replication::{LinkState, serve_link};
use crate::runtime::{Buf, Data, Env, Stream as _};
use crate::sim::{Sim, SimHost, SimStream};
use crate::units::{ByteRange, Epoch, Generation, Uuid, VolumeCount, VolumeIndex};

const SIZE: u64 = 64 << 10;

fn bytes(sequence: u64, body: &Body) -> Vec<u8> {
    let (header, payload) = frame::encode(sequence, body);
    [header.to_vec(), payload.map(|p| p.to_vec()).unwrap_or_default()].concat()
}

fn hello(group: &str, generation: Generation) -> Hello {
    Hello {
        group: group.parse().unwrap(),
        generation,
        pool: Uuid(77),
        epoch: Epoch(2),
        record: Epoch(1),
        blank: false,
        anew: false,
        members: vec![("v0".parse().unwrap(), SIZE)],
        joined: VolumeCount(1),
    }
}

/// Serves one link of `pair`'s secondary to a stranger on node c who sends `sent`; says why it ended,
/// after how long, and what the stranger was told.
async fn stranger(sim: &Sim, pair: &Pair, sent: Vec<u8>) -> (String, Duration, Vec<u8>) {
    let (b, c) = (sim.node("b"), sim.node("c"));
    let listener = b.listen("stranger").unwrap();
    let near = c.connect(&crate::runtime::Address::Unix("stranger".into())).await.unwrap();
    let far = listener.accept().await;
    let (host, group) = (b.clone(), pair.secondary.clone());
    let began = sim.elapsed();
    let served = b.call("serve stranger", async move {
        serve_link(&host, far, |id| {
            (id.as_str() == "g").then_some(group).ok_or_else(|| format!("no group {id}"))
        })
        .await
        .to_string()
    });
    if !sent.is_empty() {
        near.send(vec![Data::copy_of(&sent)]).await.unwrap();
    }
    let why = served.await.unwrap();
    let took = sim.elapsed().saturating_sub(began);
    (why, took, told(&near).await)
}

async fn told(stream: &SimStream) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        match stream.recv(Buf::new(4096), 0).await {
            (buf, Ok(n)) if n > 0 => out.extend_from_slice(&buf[..n]),
            _ => return out,
        }
    }
}

async fn started(sim: &Sim) -> Pair {
    let pair = Pair::new(sim, &[SIZE], Some(0x11)).await;
    pair.start(policy()).await;
    pair
}

/// The real session goes on as if nothing had been.
async fn unharmed(pair: &Pair) {
    assert_eq!(
        (pair.primary.status().link, pair.secondary.status().link),
        (LinkState::Running, LinkState::Running)
    );
    assert_eq!(
        (pair.primary.get_error(G1).unwrap(), pair.secondary.get_error(G1).unwrap()),
        (None, None)
    );
    fill(&pair.volume(Primary), at(0, 4096), 0x22).await.unwrap();
    let before = pair.primary.status().checkpoint.epoch;
    assert_eq!(pair.checkpoint().await, before.next());
}

fn with(mut frame: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    frame[at..at + new.len()].copy_from_slice(new);
    frame
}

#[test]
fn a_stranger_s_first_words_are_refused_with_a_reason() {
    run(|sim| async move {
        let pair = started(&sim).await;
        let good = bytes(1, &Body::Hello(Box::new(hello("g", G1))));
        let write = Body::Write(VolumeIndex(0), ByteRange::new(0, 512), Data::zeroes(512));
        let older = Generation { number: 1, id: 1 };
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (vec![0x47; 300], "no Understudy link"),
            (with(good.clone(), 5, &[9]), "protocol version 9"),
            (with(good.clone(), 4, &[200]), "unknown type 200"),
            (with(good.clone(), 32, &u32::MAX.to_le_bytes()), "payload of 4294967295 bytes"),
            (with(good.clone(), 60, &[0xff]), "checksum"),
            (bytes(1, &write), "begins with a hello"),
            (bytes(1, &Body::Status), "begins with a hello"),
            (bytes(1, &Body::Hello(Box::new(hello("other", G1)))), "no group other"),
            (bytes(1, &Body::Hello(Box::new(hello("g", older)))), "generation"),
            (
                bytes(
                    1,
                    &Body::Hello(Box::new(Hello {
                        members: vec![("x".parse().unwrap(), SIZE)],
                        ..hello("g", G1)
                    })),
                ),
                "volumes differ",
            ),
        ];
        for (sent, reason) in cases {
            let (why, took, told) = stranger(&sim, &pair, sent).await;
            assert!(why.contains(reason), "{reason}: {why}");
            assert!(took < Duration::from_secs(1), "{reason}: {took:?}");
            if let Some(told) = told.get(HEADER_LEN..) {
                assert!(String::from_utf8_lossy(told).contains(reason), "{reason}: {told:?}");
            }
        }
        unharmed(&pair).await;
    });
}

#[test]
fn a_stranger_who_says_nothing_or_half_a_hello_is_not_waited_for() {
    run(|sim| async move {
        let pair = started(&sim).await;
        let good = bytes(1, &Body::Hello(Box::new(hello("g", G1))));
        for sent in [
            vec![],
            good[..1].to_vec(),
            good[..HEADER_LEN].to_vec(),
            good[..good.len() - 1].to_vec(),
        ] {
            let (why, took, _) = stranger(&sim, &pair, sent).await;
            assert!(why.contains("nothing heard"), "{why}");
            assert!(took < Duration::from_secs(6), "{took:?}");
        }
        unharmed(&pair).await;
    });
}

#[test]
fn garbage_behind_a_good_hello_ends_the_session_and_spoils_nothing() {
    run(|sim| async move {
        let pair = started(&sim).await;
        let random = sim.random(3);
        let v = VolumeIndex(0);
        let past = Body::Write(v, ByteRange::new(SIZE - 512, SIZE + 512), Data::zeroes(1024));
        let nowhere = Body::Discard(VolumeIndex(9), ByteRange::new(0, 512));
        let rest: Vec<Vec<u8>> = vec![
            (0..500).map(|_| u8::try_from(random.below(256)).unwrap()).collect(),
            bytes(2, &past),
            bytes(2, &nowhere),
            bytes(1, &Body::Status),
            bytes(2, &Body::Record(Epoch(9))),
            bytes(2, &Body::BeginEpoch(Epoch(1), crate::runtime::Wall::default(), VolumeCount(1))),
            bytes(2, &Body::Stop(Epoch(50))),
        ];
        for rest in rest {
            let first = bytes(1, &Body::Hello(Box::new(hello("g", G1))));
            let (why, took, _) = stranger(&sim, &pair, [first, rest].concat()).await;
            assert!(took < Duration::from_secs(8), "{why}: {took:?}");
            // It took the session over, as any primary that knows the names may: the real one
            // takes it back.
            pair.in_sync().await;
            pair.checkpoint().await;
        }
        unharmed(&pair).await;
    });
}

/// A listener for the primary that answers each link with `answer`.
fn impostor(host: &SimHost, answer: Vec<u8>) -> Rc<RefCell<usize>> {
    let listener = host.listen("b").unwrap();
    let count = Rc::new(RefCell::new(0));
    let counter = count.clone();
    host.spawn("impostor", async move {
        let mut kept = Vec::new();
        loop {
            let stream = listener.accept().await;
            *counter.borrow_mut() += 1;
            let _ = stream.send(vec![Data::copy_of(&answer)]).await;
            kept.push(stream);
        }
    });
    count
}

#[test]
fn a_primary_whose_peer_is_an_impostor_says_so_and_goes_on() {
    run(|sim| async move {
        let other = |h: Hello| bytes(1, &Body::Hello(Box::new(h)));
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec(),
                "no Understudy link",
            ),
            (other(hello("other", G1)), "serves group other"),
            (other(hello("g", Generation { number: 9, id: 9 })), "generation"),
            (bytes(1, &Body::Error("no room at the inn".into())), "no room at the inn"),
            (vec![0x55], "nothing heard"),
        ];
        for (answer, reason) in cases {
            let own = Sim::new(sim.seed());
            let s = own.clone();
            own.block_on(async move {
                let (a, c) = (s.node("a"), s.node("c"));
                let group = pair::group(&a, &[SIZE], Some(0x11)).await;
                let count = impostor(&c, answer);
                group.start(spec(Role::Primary, policy())).await.unwrap();
                s.pause(Duration::from_secs(20)).await;
                let error = group.get_error(G1).unwrap().unwrap();
                assert!(error.contains(reason), "{reason}: {error}");
                let links = *count.borrow();
                assert!((2..40).contains(&links), "{links} links in 20 s");
                let volume = group.volume(VolumeIndex(0), Primary).unwrap();
                let began = s.elapsed();
                fill(&volume, at(0, SIZE), 0x22).await.unwrap();
                assert!(s.elapsed().saturating_sub(began) < Duration::from_millis(100));
            });
        }
    });
}

#[test]
fn an_engine_does_not_replicate_to_itself() {
    run(|sim| async move {
        let pair = started(&sim).await;
        let pool = pair.secondary.0.store.state().pool;
        let same = Hello { pool, ..hello("g", G1) };
        let (why, ..) = stranger(&sim, &pair, bytes(1, &Body::Hello(Box::new(same)))).await;
        assert!(why.contains("this very engine"), "{why}");
        unharmed(&pair).await;
    });
}
