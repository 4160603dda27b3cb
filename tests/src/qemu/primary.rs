//! The primary's half: a local disk, and the replication that forwards its writes to any NBD export,
//! QEMU's own or ours.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::qmp::Qemu;
use super::{export, quorum};
use crate::harness::nbd_address::{Export, Socket};
use crate::trace::fill_file;

/// A QEMU primary that replicates into somebody else's export.
pub struct Primary {
    qemu: Qemu,
    socket: PathBuf,
}

impl Primary {
    /// Starts one with a local disk of `size` bytes, each `fill`, and begins to forward its writes.
    /// What is on the disk already is not sent.
    pub fn start(directory: &Path, size: u64, fill: u8, remote: &Export) -> Result<Self> {
        let disk = directory.join("local.raw");
        fill_file(&disk, size, fill)?;
        let file = json!({ "driver": "file", "filename": disk });
        let local = json!({ "driver": "raw", "node-name": "local", "file": file });
        let socket = directory.join("primary.nbd");
        let mut qemu = Qemu::start("qemu-primary", directory)?;
        build(&mut qemu, local, &socket, remote)?;
        begin(&mut qemu)?;
        Ok(Self { qemu, socket })
    }

    /// The export that its VM would use.
    pub fn export(&self) -> Export {
        Export::unix(&self.socket, "top")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.qemu.kill();
    }
}

/// Adds the nodes and the export "top" at `socket`.
pub(super) fn build(qemu: &mut Qemu, local: Value, socket: &Path, remote: &Export) -> Result<()> {
    let listen = json!({ "type": "unix", "data": { "path": socket } });
    let server = match &remote.socket {
        Socket::Unix(path) => json!({ "type": "unix", "path": path }),
        Socket::Tcp(address) => {
            let (host, port) = address.rsplit_once(':').unwrap_or((address, "10809"));
            json!({ "type": "inet", "host": host, "port": port })
        }
    };
    let steps = [
        ("blockdev-add", local),
        ("blockdev-add", quorum("local")),
        ("nbd-server-start", json!({ "addr": listen, "max-connections": 0 })),
        ("block-export-add", export("export-top", "disk0", "top")),
        (
            "blockdev-add",
            json!({ "driver": "nbd", "node-name": "remote", "discard": "unmap",
                "export": remote.name, "server": server }),
        ),
        (
            "blockdev-add",
            json!({ "driver": "replication", "node-name": "forward", "discard": "unmap",
                "mode": "primary", "file": "remote" }),
        ),
        ("x-blockdev-change", json!({ "parent": "disk0", "node": "forward" })),
    ];
    for (command, arguments) in steps {
        qemu.command(command, arguments)?;
    }
    Ok(())
}

/// Starts the forwarding.
pub(super) fn begin(qemu: &mut Qemu) -> Result<()> {
    let start = json!({ "enable": true, "primary": true });
    qemu.command("xen-set-replication", start).map(drop)
}
