//! A real QEMU pair with its own block replication, without guests: what ours is compared with.
//!
//! ```text
//!   primary                                        secondary
//!   export "top" ─ quorum disk0                    export "parent" ────────────┐
//!                    ├ local      (raw)            export "top" ─ quorum disk0 │
//!                    └ forward    (replication)                     └ filter   │ (replication)
//!                        └ remote (nbd) ───TCP───► "parent"            └ active│ (qcow2)
//!                                                                      └ hidden│ (qcow2)
//!                                                                      └ parent┘ (raw)
//! ```
//!
//! Every command here is part of QEMU's documented interface; nothing of its code is.

mod mirror;
mod primary;
mod qmp;
mod replay;

pub use mirror::Mirror;
pub use primary::Primary;
pub use qmp::Qemu;
pub use replay::replay;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::harness::nbd::Client;
use crate::harness::nbd_address::Export;
use crate::harness::tools;
use crate::trace::fill_file;

/// How long the background commit after a failover may take.
const COMMIT_LIMIT: Duration = Duration::from_mins(2);

/// Where a pair lies and what is on its disks.
#[derive(Clone, Debug)]
pub struct PairOptions {
    /// The length of both disks, in bytes.
    pub size: u64,
    /// What both disks are filled with.
    pub fill: u8,
    /// Where the two raw disks lie.
    pub disks: PathBuf,
    /// Where the two qcow2 buffers lie.
    pub buffers: PathBuf,
    /// Whether the raw disks are opened past the page cache.
    pub direct: bool,
}

impl PairOptions {
    /// Both disks and both buffers in one directory, filled with 0x11.
    pub fn within(directory: &Path, size: u64) -> Self {
        let directory = directory.to_owned();
        Self { size, fill: 0x11, disks: directory.clone(), buffers: directory, direct: false }
    }
}

/// The two processes, replicating.
pub struct Pair {
    options: PairOptions,
    directory: PathBuf,
    port: u16,
    primary: Qemu,
    secondary: Qemu,
}

impl Pair {
    /// Makes the disks, starts both processes and the replication. Sockets and logs lie in
    /// `directory`, which the caller removes.
    pub fn start(directory: &Path, options: PairOptions) -> Result<Self> {
        for name in ["local", "parent"] {
            fill_file(&options.disks.join(format!("{name}.raw")), options.size, options.fill)?;
        }
        for name in ["active", "hidden"] {
            let mut create = Command::new(tools::find("qemu-img")?);
            create.args(["create", "-q", "-f", "qcow2"]);
            create.arg(options.buffers.join(format!("{name}.qcow2")));
            if !create.arg(options.size.to_string()).status()?.success() {
                bail!("qemu-img cannot create {name}.qcow2 in {}", options.buffers.display());
            }
        }
        let primary = Qemu::start("primary", directory)?;
        let secondary = Qemu::start("secondary", directory)?;
        let port = free_port()?;
        let directory = directory.to_owned();
        let mut pair = Self { options, directory, port, primary, secondary };
        pair.build_secondary()?;
        let (local, socket) = (pair.raw("local"), pair.primary_socket());
        primary::build(&mut pair.primary, local, &socket, &Export::local(port, "parent"))?;
        pair.begin()?;
        Ok(pair)
    }

    fn raw(&self, name: &str) -> Value {
        let file = self.disk_path(name);
        let file = json!({ "driver": "file", "filename": file, "discard": "unmap",
            "cache": { "direct": self.options.direct } });
        json!({ "driver": "raw", "node-name": name, "discard": "unmap", "file": file })
    }

    fn qcow2(&self, name: &str, backing: &str) -> Value {
        let path = self.options.buffers.join(format!("{name}.qcow2"));
        json!({ "driver": "qcow2", "node-name": name, "discard": "unmap", "backing": backing,
            "file": { "driver": "file", "filename": path } })
    }

    fn build_secondary(&mut self) -> Result<()> {
        let nodes = [
            // The parent's export comes before the replication: it is what makes the node writable.
            ("blockdev-add", self.raw("parent")),
            ("nbd-server-start", listen_on_port(self.port)),
            ("block-export-add", export("export-parent", "parent", "parent")),
            ("blockdev-add", self.qcow2("hidden", "parent")),
            ("blockdev-add", self.qcow2("active", "hidden")),
            (
                "blockdev-add",
                json!({ "driver": "replication", "node-name": "filter",
                "discard": "unmap", "mode": "secondary", "top-id": "disk0", "file": "active" }),
            ),
            ("blockdev-add", quorum("filter")),
            ("block-export-add", export("export-top", "disk0", "top")),
        ];
        for (command, arguments) in nodes {
            self.secondary.command(command, arguments)?;
        }
        Ok(())
    }

    /// Starts the replication: the secondary must come first, or nothing is ever saved.
    fn begin(&mut self) -> Result<()> {
        let secondary = json!({ "enable": true, "primary": false });
        self.secondary.command("xen-set-replication", secondary)?;
        primary::begin(&mut self.primary)
    }

    /// A checkpoint. No write may be in flight: QEMU's contract, which nothing there enforces.
    pub fn checkpoint(&mut self) -> Result<()> {
        self.secondary.command("xen-colo-do-checkpoint", json!({}))?;
        self.primary.command("xen-colo-do-checkpoint", json!({}))?;
        Ok(())
    }

    /// Kills the primary, promotes the secondary, waits until the commit is done and serves the
    /// promoted disk again. Connections to the secondary end.
    pub fn failover(&mut self) -> Result<()> {
        self.primary.kill();
        // With its server up a late write of the old primary would land in the promoted disk.
        self.secondary.command("nbd-server-stop", json!({}))?;
        let stop = json!({ "enable": false, "primary": false, "failover": true });
        self.secondary.command("xen-set-replication", stop)?;
        // The commit is a job without a name; its filter node is what shows that it runs.
        let end = Instant::now() + COMMIT_LIMIT;
        let is_commit = |driver: &String| driver == "mirror_top" || driver == "commit_top";
        while self.secondary.drivers()?.iter().any(is_commit) {
            if Instant::now() > end {
                bail!("QEMU's failover commit did not end in {COMMIT_LIMIT:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.secondary.command("nbd-server-start", listen_on_port(self.port))?;
        self.secondary.command("block-export-add", export("export-again", "disk0", "top"))?;
        Ok(())
    }

    fn primary_socket(&self) -> PathBuf {
        self.directory.join("primary.nbd")
    }

    /// The file under the primary's (`local`) or the secondary's (`parent`) disk.
    pub fn disk_path(&self, name: &str) -> PathBuf {
        self.options.disks.join(format!("{name}.raw"))
    }

    /// The export that the primary's VM would use.
    pub fn primary_export(&self) -> Export {
        Export::unix(self.primary_socket(), "top")
    }

    /// The export that the secondary's VM would use: the view; after a failover the promoted disk.
    pub fn view_export(&self) -> Export {
        Export::local(self.port, "top")
    }

    /// Connects to the secondary disk itself.
    pub fn secondary_disk(&self) -> Result<Client> {
        Ok(Client::connect(&Export::local(self.port, "parent"))?)
    }

    /// The primary's process.
    pub fn primary(&mut self) -> &mut Qemu {
        &mut self.primary
    }

    /// The secondary's process.
    pub fn secondary(&mut self) -> &mut Qemu {
        &mut self.secondary
    }
}

fn export(id: &str, node: &str, name: &str) -> Value {
    json!({ "type": "nbd", "id": id, "node-name": node, "name": name, "writable": true })
}

fn quorum(child: &str) -> Value {
    json!({ "driver": "quorum", "node-name": "disk0", "discard": "unmap", "read-pattern": "fifo",
        "vote-threshold": 1, "children": [child] })
}

fn listen_on_port(port: u16) -> Value {
    let address = json!({ "host": "127.0.0.1", "port": port.to_string() });
    json!({ "addr": { "type": "inet", "data": address }, "max-connections": 0 })
}

/// A port that nobody uses at this moment.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
