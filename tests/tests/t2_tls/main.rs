//! Engines that prove who they are: replication, NBD and the API over TLS, and everybody who is not
//! let in.
//!
//! ```text
//!   engine a (primary) ── link over TLS ──► engine b (secondary)
//!      ▲ NBD over TLS: our client, nbdinfo, qemu-img       ▲ strangers at every door
//! ```

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod health;
mod nodes;
mod pair;
mod reload;
mod stranger;
mod strangers;
mod tools;

use std::path::Path;
use std::time::{Duration, Instant};

use understudy_core::disk::Disk;
use understudy_core::engine::api::{Address, ExportKind, Policy};
use understudy_core::engine::client::Tls;
use understudy_core::nbd::Client;
use understudy_core::nbd::client::Options;
use understudy_core::runtime::{Buf, Data, ShardConfig, ShardEnv, block_on};
use understudy_core::units::ByteOffset;
use understudy_tests::harness::certs::Authority;
use understudy_tests::harness::engine::Engine;
use understudy_tests::harness::engines::{Carrier, Engines, EnginesOptions};

const MIB: u64 = 1 << 20;

/// A pair over TLS with one volume.
fn pair(directory: &Path, flags: &[&str]) -> Engines {
    let mut options = EnginesOptions::new(&[4 * MIB], Policy::default());
    options.carrier = Carrier::Tls;
    options.flags = flags.iter().map(|f| (*f).to_owned()).collect();
    Engines::start(directory, &options).unwrap()
}

/// A directory with a certificate, and the certificate.
fn issued(authority: &Authority, identity: &str) -> (tempfile::TempDir, Tls) {
    let dir = tempfile::tempdir().unwrap();
    authority.issue(dir.path(), identity).unwrap();
    let tls = Tls::open(dir.path(), None).unwrap();
    (dir, tls)
}

/// The name of the first volume's export on an engine.
fn export(pair: &Engines, engine: &Engine, kind: ExportKind) -> String {
    engine.export(&pair.group, &pair.members[0].volume, kind).unwrap().name
}

/// Does something with an export, over NBD as the address says.
fn with_nbd<T: 'static>(
    address: &Address,
    export: &str,
    tls: Option<&Tls>,
    work: impl AsyncFnOnce(&Client<ShardEnv>) -> T + 'static,
) -> Result<T, String> {
    let config = ShardConfig { tls: tls.cloned(), ..ShardConfig::default() };
    let (address, export) = (address.clone(), export.to_owned());
    block_on(&config, move |env| async move {
        let options = Options::default();
        let client = Client::open(&env, &address, &export, &options);
        let client = client.await.map_err(|e| e.to_string())?;
        let out = work(&client).await;
        client.close().await;
        Ok(out)
    })
    .unwrap()
}

/// Writes one byte many times; reads it back.
fn write_and_read(address: &Address, export: &str, tls: &Tls, at: u64, byte: u8) {
    with_nbd(address, export, Some(tls), async move |client| {
        let len = 100_000;
        let mut buf = Buf::new(len);
        buf.fill(byte);
        client.write(ByteOffset(at), Data::clone(&buf.freeze())).await.unwrap();
        client.flush().await.unwrap();
        let (back, read) = client.read(ByteOffset(at), Buf::new(len)).await;
        read.unwrap();
        assert!(back.iter().all(|b| *b == byte));
    })
    .unwrap();
}

/// What an export holds at a place.
fn byte_at(address: &Address, export: &str, tls: &Tls, at: u64) -> u8 {
    with_nbd(address, export, Some(tls), async move |client| {
        let (back, read) = client.read(ByteOffset(at), Buf::new(512)).await;
        read.unwrap();
        back[0]
    })
    .unwrap()
}

/// Waits until an engine's log says something.
fn wait_for_log(engine: &Engine, said: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    while !engine.log().contains(said) {
        assert!(Instant::now() < end, "'{said}' is not in the log:\n{}", engine.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}
