//! QEMU's way to make a copy whole again after a lost link: a full mirror job to the other side.
//!
//! ```text
//!   source   local (raw) ── blockdev-mirror, sync=full ──► remote (nbd) ──TCP──► target: export of a raw file
//! ```

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::qmp::Qemu;
use super::{export, free_port, listen_on_port};
use crate::trace::fill_file;

/// How long one may take.
const LIMIT: Duration = Duration::from_mins(10);

/// Two processes and their disks.
pub struct Mirror {
    source: Qemu,
    _target: Qemu,
}

impl Mirror {
    /// Makes two disks that are full, and opens them past the page cache if `direct`.
    pub fn start(directory: &Path, size: u64, direct: bool) -> Result<Self> {
        let raw = |name: &str| -> Result<Value> {
            let path = directory.join(format!("{name}.raw"));
            fill_file(&path, size, 0x11)?;
            let cache = json!({ "direct": direct });
            let file = json!({ "driver": "file", "filename": path, "cache": cache });
            Ok(json!({ "driver": "raw", "node-name": name, "file": file }))
        };
        let mut source = Qemu::start("mirror-source", directory)?;
        let mut target = Qemu::start("mirror-target", directory)?;
        let port = free_port()?;
        target.command("blockdev-add", raw("target")?)?;
        target.command("nbd-server-start", listen_on_port(port))?;
        target.command("block-export-add", export("export", "target", "target"))?;
        source.command("blockdev-add", raw("source")?)?;
        let server = json!({ "type": "inet", "host": "127.0.0.1", "port": port.to_string() });
        let remote = json!({ "driver": "nbd", "node-name": "remote", "export": "target",
            "server": server });
        source.command("blockdev-add", remote)?;
        Ok(Self { source, _target: target })
    }

    /// Mirrors everything; how long it took until both were the same.
    pub fn run(&mut self) -> Result<Duration> {
        let job = json!({ "job-id": "mirror", "device": "source", "target": "remote",
            "sync": "full" });
        let began = Instant::now();
        self.source.command("blockdev-mirror", job)?;
        loop {
            let jobs = self.source.command("query-block-jobs", json!({}))?;
            match jobs.get(0) {
                Some(job) if job["ready"] == true => break,
                Some(_) if began.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(1)),
                Some(job) => bail!("QEMU's mirror is not ready after {LIMIT:?}: {job}"),
                None => bail!("QEMU's mirror ended without being ready"),
            }
        }
        let took = began.elapsed();
        let cancel = json!({ "device": "mirror", "force": true });
        self.source.command("block-job-cancel", cancel)?;
        while self.source.command("query-block-jobs", json!({}))?.get(0).is_some() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(took)
    }
}
