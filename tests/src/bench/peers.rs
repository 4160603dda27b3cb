//! The servers that a plain export is compared with.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::harness::nbd::Client;
use crate::harness::nbd_address::Export;
use crate::harness::process::Child;
use crate::harness::tools;

/// How long a server may take to serve.
const LIMIT: Duration = Duration::from_secs(10);

/// A server of someone else, serving one file.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) export: Export,
    /// Held for its life.
    _process: Child,
}

/// `qemu-nbd`, past the page cache if `direct`.
pub(crate) fn qemu_nbd(directory: &Path, file: &Path, direct: bool) -> Result<Peer> {
    let socket = directory.join("qemu-nbd.sock");
    let cache = if direct { "none" } else { "writeback" };
    let arguments = [
        "--format=raw".to_owned(),
        "--persistent".to_owned(),
        "--shared=8".to_owned(),
        format!("--cache={cache}"),
        format!("--aio={}", if direct { "native" } else { "threads" }),
        "--discard=unmap".to_owned(),
        format!("--socket={}", socket.display()),
        file.display().to_string(),
    ];
    serve("qemu-nbd", directory, &arguments, &socket)
}

/// `nbdkit file`; it has no way past the page cache.
pub(crate) fn nbdkit(directory: &Path, file: &Path) -> Result<Peer> {
    let socket = directory.join("nbdkit.sock");
    let arguments = [
        "--foreground".to_owned(),
        format!("--unix={}", socket.display()),
        "file".to_owned(),
        file.display().to_string(),
    ];
    serve("nbdkit", directory, &arguments, &socket)
}

fn serve(
    name: &'static str,
    directory: &Path,
    arguments: &[String],
    socket: &Path,
) -> Result<Peer> {
    let mut process = Child::start(name, &tools::find(name)?, arguments, directory)?;
    let export = Export::unix(socket, "");
    process.wait_until("it served", LIMIT, || Client::connect(&export).ok())?;
    Ok(Peer { name, export, _process: process })
}
