//! Files and folders over both backends, on a disk's file system and in memory.

mod file;
mod folder;
mod model;

use std::future::Future;
use std::path::{Path, PathBuf};

use super::{Caching, File};
use crate::runtime::ShardEnv;

/// Runs the same future on each backend, for each place and way of caching: in the build's own
/// directory (a real file system, mostly), and in memory.
fn on_each<Fut: Future<Output = ()> + 'static>(make: impl Fn(ShardEnv, PathBuf, Caching) -> Fut) {
    let build = std::env::current_exe().unwrap();
    for base in [build.parent().unwrap(), Path::new("/dev/shm")] {
        for caching in [Caching::Direct, Caching::Buffered] {
            if !base.is_dir() {
                continue;
            }
            eprintln!("in {} {caching:?}", base.display());
            crate::runtime::tests::on_each(|env| {
                let dir = tempfile::tempdir_in(base).unwrap();
                let future = make(env, dir.path().to_owned(), caching);
                async move {
                    future.await;
                    drop(dir);
                }
            });
        }
    }
}

/// A file of `len` bytes of `fill`.
async fn file(env: &ShardEnv, path: &Path, len: usize, fill: u8, caching: Caching) -> File {
    std::fs::write(path, vec![fill; len]).unwrap();
    File::open(env, path, caching).await.unwrap()
}
