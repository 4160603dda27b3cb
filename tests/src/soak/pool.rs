//! The pool of one engine, on a file system of its own that can be made full.
//!
//! ```text
//!   tmpfs (of this mount namespace)   a.img ── loop, ext4 ──► A/disk/ ─┬─ pool/ ── bind ──► A/pool
//!                                     b.img …                          └─ ballast   all that is free
//! ```
//!
//! A real file system, with its own idea of what is free and of what direct I/O is; in memory, so that a
//! slow disk of the machine is not taken for a stall of the engine. The mounts, and the loop devices under
//! them, end with the namespace, however that ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, fallocate};

use crate::harness::tools;

/// How large a pool's file system is, in bytes: both volumes, two undo logs, and as many more as lost
/// sessions may take before the next checkpoint.
const SIZE: u64 = 640 << 20;

/// What both images may take of memory, at most: they are sparse.
const MEMORY: &str = "size=1400m";

/// The first piece that ballast is laid in, in bytes.
const PIECE: u64 = 64 << 20;

/// The last one: a block of the file system.
const BLOCK: u64 = 4096;

/// How often ballast takes what has become free.
const AGAIN: Duration = Duration::from_millis(2);

/// Where images lie.
pub(super) fn mount_memory(at: &Path) -> Result<()> {
    std::fs::create_dir_all(at)?;
    run("mount", &["-t", "tmpfs", "-o", MEMORY, "tmpfs", text(at)?])
}

/// A file system with a pool on it.
pub(super) struct Pool {
    root: PathBuf,
    ballast: Option<Ballast>,
}

struct Ballast {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Pool {
    /// Makes one, and shows its pool as `node/pool`.
    pub(super) fn make(images: &Path, node: &Path) -> Result<Self> {
        let name = node.file_name().context("a node without a name")?;
        let image = images.join(name).with_extension("img");
        File::create(&image)?.set_len(SIZE)?;
        // No space is kept for root: the engine is root here, and ballast too.
        run("mkfs.ext4", &["-q", "-F", "-m", "0", text(&image)?])?;
        let root = node.join("disk");
        std::fs::create_dir_all(&root)?;
        run("mount", &["-o", "loop,discard", text(&image)?, text(&root)?])?;
        let (inside, outside) = (root.join("pool"), node.join("pool"));
        std::fs::create_dir_all(&inside)?;
        std::fs::create_dir_all(&outside)?;
        run("mount", &["--bind", text(&inside)?, text(&outside)?])?;
        Ok(Self { root, ballast: None })
    }

    /// From now on nothing is free: what becomes so is taken at once.
    pub(super) fn fill(&mut self) -> Result<()> {
        if self.ballast.is_some() {
            return Ok(());
        }
        let file = File::create(self.root.join("ballast"))?;
        let mut len = lay(&file, 0, PIECE);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                len = lay(&file, len, PIECE);
                std::thread::sleep(AGAIN);
            }
        });
        self.ballast = Some(Ballast { stop, thread });
        Ok(())
    }

    /// There is room again.
    pub(super) fn empty(&mut self) -> Result<()> {
        let Some(Ballast { stop, thread }) = self.ballast.take() else { return Ok(()) };
        stop.store(true, Ordering::Relaxed);
        let _ended = thread.join();
        Ok(std::fs::remove_file(self.root.join("ballast"))?)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The namespace takes the rest.
        let _gone = self.empty();
    }
}

/// Makes ballast of this length longer until not one more block is free; how long it is then.
fn lay(file: &File, mut len: u64, mut piece: u64) -> u64 {
    while piece >= BLOCK {
        match fallocate(file, FallocateFlags::empty(), len, piece) {
            Ok(()) => len += piece,
            Err(_) => piece /= 2,
        }
    }
    len
}

/// Runs a tool to its end.
fn run(tool: &str, words: &[&str]) -> Result<()> {
    let output = Command::new(tools::find(tool)?).args(words).output()?;
    ensure!(
        output.status.success(),
        "{tool} {}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}
