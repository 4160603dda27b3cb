//! TLS over real sockets, on each backend.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuiteCommon, SupportedCipherSuite, Tls13CipherSuite};

use super::{Session, handshake};
use crate::runtime::tests::backends;
use crate::runtime::{
    BUF_MAX, Buf, Data, Env, Reader, Shard, ShardConfig, ShardEnv, ShardStream, Stream, block_on,
};
use crate::tls::tests::certs::Authority;
use crate::tls::tests::issued;
use crate::tls::{Door, Fault, Identity, Tls, explain};

fn sockets(env: &ShardEnv) -> (ShardStream, ShardStream) {
    let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
    (env.adopt(a.into()).unwrap(), env.adopt(b.into()).unwrap())
}

/// Both ends of a connection of an engine with itself.
async fn pair(env: &ShardEnv) -> (ShardStream, ShardStream) {
    let (near, far) = sockets(env);
    let (near, far) =
        futures::join!(env.secure(near, Door::Link, Some("a")), env.welcome(far, Door::Link));
    (near.unwrap(), far.unwrap())
}

fn with_tls(test: impl AsyncFn(ShardEnv) + Copy + 'static) {
    let (_dir, tls) = issued(&Authority::new().unwrap(), "engine/a");
    for config in backends() {
        let config = ShardConfig { tls: Some(tls.clone()), ..config };
        block_on(&config, |env| async move { test(env).await }).unwrap();
    }
}

/// Bytes that tell where they stand.
fn pattern(len: usize, at: usize) -> Buf {
    let mut buf = Buf::new(len);
    for (i, byte) in buf.iter_mut().enumerate() {
        *byte = u8::try_from((at + i) * 31 % 251).unwrap();
    }
    buf
}

#[test]
fn pieces_of_every_size_arrive_in_order_and_both_ways_at_once() {
    with_tls(async |env| {
        let (near, far) = pair(&env).await;
        let sizes = [0, 1, 40, 4096, 40, 16383, 16384, 16385, 40, 100_000, 0, 7, BUF_MAX, 3];
        let total: usize = sizes.iter().sum();
        let pieces = || {
            let mut at = 0;
            let piece = |len: &usize| {
                at += len;
                pattern(*len, at - len).freeze()
            };
            sizes.iter().map(piece).collect::<Vec<Data>>()
        };
        let read = async |stream: ShardStream| {
            let mut reader = Reader::new(stream);
            let mut at = 0;
            while at < total {
                let len = 5000.min(total - at);
                let got = reader.payload(len).await.unwrap();
                assert!(got[..] == pattern(len, at)[..], "at {at}");
                at += len;
            }
        };
        let (a, b, (), ()) = futures::join!(
            near.send(pieces()),
            far.send(pieces()),
            read(near.clone()),
            read(far.clone())
        );
        a.unwrap();
        b.unwrap();
        near.shutdown();
        let (_, end) = far.recv(Buf::new(10), 0).await;
        assert_eq!(end.unwrap(), 0);
    });
}

#[test]
fn each_end_knows_who_the_other_is() {
    with_tls(async |env| {
        let (near, far) = pair(&env).await;
        assert_eq!(near.identity(), Some(Identity::Engine("a".into())));
        assert_eq!(far.identity(), Some(Identity::Engine("a".into())));
    });
}

#[test]
fn a_refused_client_learns_why_at_its_first_receive() {
    let authority = Authority::new().unwrap();
    let (_a, engine) = issued(&authority, "engine/a");
    let (_o, operator) = issued(&authority, "operator");
    let server = Shard::start("tls", ShardConfig { tls: Some(engine), ..ShardConfig::default() });
    let server = server.unwrap();
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let welcomed = server.run(|env| async move {
        let far = env.adopt(far.into()).unwrap();
        env.welcome(far, Door::Nbd).await.map(drop).unwrap_err().to_string()
    });
    let config = ShardConfig { tls: Some(operator), ..ShardConfig::default() };
    let told = block_on(&config, |env| async move {
        let near = env.adopt(near.into()).unwrap();
        let near = env.secure(near, Door::Nbd, None).await.unwrap();
        near.recv(Buf::new(10), 0).await.1.unwrap_err()
    });
    let why = futures::executor::block_on(welcomed).unwrap();
    assert!(why.contains("operator may not use NBD"), "{why}");
    let told = told.unwrap();
    assert!(matches!(explain(&told), Some(Fault::RefusedUs(_))), "{told}");
    assert!(told.to_string().contains("refused our certificate"), "{told}");
}

#[test]
fn garbage_instead_of_a_handshake_is_an_error_that_says_so() {
    with_tls(async |env| {
        let (near, far) = sockets(&env);
        near.send(vec![Data::copy_of(b"GET / HTTP/1.1\r\n\r\n")]).await.unwrap();
        let error = env.welcome(far, Door::Link).await.map(drop).unwrap_err();
        assert!(error.to_string().contains("does not speak TLS"), "{error}");
        let (near, far) = sockets(&env);
        drop(near);
        assert!(env.welcome(far, Door::Link).await.is_err());
    });
}

#[test]
fn a_stream_moves_to_another_shard_with_all_that_was_received() {
    let (_dir, tls) = issued(&Authority::new().unwrap(), "engine/a");
    let config = ShardConfig { tls: Some(tls), ..ShardConfig::default() };
    let (first, second) =
        (Shard::start("1", config.clone()).unwrap(), Shard::start("2", config.clone()).unwrap());
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let parcel = first.run(|env| async move {
        let far = env.welcome(env.adopt(far.into()).unwrap(), Door::Nbd).await.unwrap();
        let mut reader = Reader::small(far.clone());
        let mut head = [0; 3];
        reader.exact(&mut head).await.unwrap();
        assert_eq!(head, *b"abc");
        far.put_back(head.to_vec()).unwrap();
        drop(reader);
        far.leave().unwrap()
    });
    block_on(&config, |env| async move {
        let near = env.secure(env.adopt(near.into()).unwrap(), Door::Nbd, None).await.unwrap();
        near.send(vec![Data::copy_of(b"abc")]).await.unwrap();
        let parcel = parcel.await.unwrap();
        let moved = second.run(|env| async move {
            let far = env.arrive(parcel).unwrap();
            let mut reader = Reader::new(far.clone());
            let got = reader.payload(100_003).await.unwrap();
            far.send(vec![got.freeze()]).await.unwrap();
        });
        near.send(vec![pattern(100_000, 3).freeze()]).await.unwrap();
        let mut reader = Reader::new(near);
        let back = reader.payload(100_003).await.unwrap();
        assert!(back[..3] == *b"abc" && back[3..] == pattern(100_000, 3)[..]);
        moved.await.unwrap();
    })
    .unwrap();
}

/// Keys that are good for a few records only.
fn hasty() -> Arc<CryptoProvider> {
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    let common = CipherSuiteCommon {
        suite: suite.common.suite,
        hash_provider: suite.common.hash_provider,
        confidentiality_limit: 5,
    };
    let hasty = Tls13CipherSuite { common, ..*suite };
    let hasty = SupportedCipherSuite::Tls13(Box::leak(Box::new(hasty)));
    let cipher_suites = vec![hasty];
    Arc::new(CryptoProvider { cipher_suites, ..rustls::crypto::ring::default_provider() })
}

#[test]
fn keys_that_have_done_enough_are_replaced_without_a_pause() {
    let (_dir, tls): (_, Tls) = issued(&Authority::new().unwrap(), "engine/a");
    let config = ShardConfig { tls: Some(tls.clone()), ..ShardConfig::default() };
    block_on(&config, |env| async move {
        let (near, far) = sockets(&env);
        let ShardStream::Plain(socket) = near else { panic!("plain") };
        let config = tls.current().client_with(hasty(), Door::Link, None).unwrap();
        let session = Session::client(config).unwrap();
        let (near, far) =
            futures::join!(handshake(&env, socket, session), env.welcome(far, Door::Link));
        let (near, far) = (near.unwrap(), far.unwrap());
        let answer = {
            let (env, far) = (env.clone(), far.clone());
            env.clone().spawn("far", async move {
                let mut reader = Reader::new(far.clone());
                for round in 0..20 {
                    let got = reader.payload(100_000).await.unwrap();
                    assert!(got[..] == pattern(100_000, round)[..]);
                    far.send(vec![Data::copy_of(b"k")]).await.unwrap();
                }
                drop(env);
            })
        };
        let mut reader = Reader::new(near.clone());
        for round in 0..20 {
            near.send(vec![pattern(100_000, round).freeze()]).await.unwrap();
            reader.exact(&mut [0]).await.unwrap();
        }
        answer.join().await;
    })
    .unwrap();
}
