//! Our server on a thread of this process, behind a Unix socket.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use futures::executor::block_on;
use tempfile::TempDir;
use understudy_core::disk::{Caching, Disk, File, Memory};
use understudy_core::nbd::server::{Connections, Limits, serve_within};
use understudy_core::nbd::{Catalog, Export, ExportInfo, Refusal};
use understudy_core::runtime::{
    Address, Listener, Shard, ShardConfig, ShardEnv, ShardHandle, Stream,
};

/// One disk under the name `disk`.
pub(crate) struct One<D> {
    disk: D,
    read_only: bool,
}

impl<D: Disk> Catalog for One<D> {
    type Disk = D;

    fn list(&self) -> Vec<ExportInfo> {
        vec![ExportInfo { name: "disk".into(), description: "a disk for tests".into() }]
    }

    fn open(&self, name: &str) -> Result<Export<D>, Refusal> {
        if name != "disk" {
            return Err(Refusal::unknown(format!("no export '{name}'; there is 'disk'")));
        }
        let mut export = Export::new(self.disk.clone());
        export.read_only = self.read_only;
        export.description = "a disk for tests".into();
        Ok(export)
    }
}

/// A server; ends when it is dropped.
pub(crate) struct Server {
    pub(crate) directory: TempDir,
    pub(crate) socket: PathBuf,
    shard: ShardHandle,
}

impl Server {
    /// Serves what `make` returns, at most `most` connections at a time.
    pub(crate) fn start<D, F, Fut>(limits: Limits, most: usize, read_only: bool, make: F) -> Self
    where
        D: Disk,
        F: FnOnce(ShardEnv) -> Fut + Send + 'static,
        Fut: Future<Output = D> + 'static,
    {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("nbd.sock");
        let address = Address::Unix(socket.clone());
        let shard = Shard::start("nbd-test", ShardConfig::default()).unwrap();
        let ready = shard.run(move |env| async move {
            let catalog = Rc::new(One { disk: make(env.clone()).await, read_only });
            let listener = Listener::bind(&env, &address).await.unwrap();
            let e = env.clone();
            let places = Connections::new(most);
            understudy_core::runtime::Env::spawn(&env, "accept", async move {
                loop {
                    let stream = listener.accept().await.unwrap();
                    let Some(place) = places.enter() else {
                        stream.shutdown();
                        continue;
                    };
                    let (env, catalog) = (e.clone(), catalog.clone());
                    understudy_core::runtime::Env::spawn(&e, "serve", async move {
                        serve_within(&env, stream, &*catalog, &limits).await;
                        drop(place);
                    });
                }
            });
        });
        block_on(ready).unwrap();
        Self { directory, socket, shard }
    }

    /// `size` bytes of zeroes in memory.
    pub(crate) fn memory(size: u64) -> Self {
        Self::start(Limits::default(), 100, false, move |_| async move { Memory::new(size, 0) })
    }

    /// A sparse file of `size` bytes.
    pub(crate) fn file(size: u64, caching: Caching) -> Self {
        Self::start(Limits::default(), 100, false, move |env| async move {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("disk.raw");
            std::fs::File::create(&path).unwrap().set_len(size).unwrap();
            // The open file outlives its name.
            File::open(&env, &path, caching).await.unwrap()
        })
    }

    /// What clients call it.
    pub(crate) fn uri(&self) -> String {
        format!("nbd+unix:///disk?socket={}", self.socket.display())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shard.stop();
        self.shard.join();
    }
}

/// Every kind of disk that tools are tried against, by name.
pub(crate) fn all(size: u64) -> [(&'static str, Server); 3] {
    [
        ("memory", Server::memory(size)),
        ("buffered file", Server::file(size, Caching::Buffered)),
        ("direct file", Server::file(size, Caching::Direct)),
    ]
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
