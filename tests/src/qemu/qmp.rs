//! One `qemu-system` process without a guest, steered over its QMP socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::harness::process::Child;
use crate::harness::tools;

/// A command that takes longer hangs.
const COMMAND_LIMIT: Duration = Duration::from_mins(2);

/// How long QEMU may take to open its socket.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The process and its control connection.
pub struct Qemu {
    process: Child,
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Qemu {
    /// Starts one; socket and log lie in `directory`.
    pub fn start(name: &str, directory: &Path) -> Result<Self> {
        let socket = directory.join(format!("{name}.qmp"));
        let program = tools::find("qemu-system-x86_64")?;
        let control = format!("unix:{},server=on,wait=off", socket.display());
        let plain = ["-machine", "none", "-nodefaults", "-display", "none", "-monitor", "none"];
        let arguments = plain.into_iter().chain(["-serial", "none", "-S", "-qmp", &control]);
        let mut process = Child::start(name, &program, arguments, directory)?;
        let writer = process.wait_until("it opened its control socket", START_LIMIT, || {
            UnixStream::connect(&socket).ok()
        })?;
        writer.set_read_timeout(Some(COMMAND_LIMIT))?;
        let mut reader = BufReader::new(writer.try_clone()?);
        let mut greeting = String::new();
        reader.read_line(&mut greeting)?;
        let mut qemu = Self { process, reader, writer };
        qemu.command("qmp_capabilities", json!({}))?;
        Ok(qemu)
    }

    /// Runs one command and returns what it returns. Events on the way are dropped.
    pub fn command(&mut self, name: &str, arguments: Value) -> Result<Value> {
        let mut message = json!({ "execute": name });
        if arguments.as_object().is_some_and(|object| !object.is_empty()) {
            message["arguments"] = arguments;
        }
        // A QEMU that went away shows in the read below, which says more.
        let _sent = self.writer.write_all(format!("{message}\n").as_bytes());
        loop {
            let mut line = String::new();
            let read = self.reader.read_line(&mut line);
            if read.with_context(|| format!("{name}: QEMU does not answer"))? == 0 {
                bail!("{name}: QEMU went away:\n{}", self.process.tail());
            }
            let mut reply: Value = serde_json::from_str(&line)?;
            if let Some(error) = reply.get("error") {
                bail!("{name}: {}", error["desc"].as_str().unwrap_or("failed without a reason"));
            }
            if let Some(value) = reply.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// The drivers of all its block nodes.
    pub fn drivers(&mut self) -> Result<Vec<String>> {
        let nodes = self.command("query-named-block-nodes", json!({ "flat": true }))?;
        let nodes = nodes.as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(nodes.iter().filter_map(|node| node["drv"].as_str()).map(str::to_owned).collect())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Its process, for signals and logs.
    pub fn process(&mut self) -> &mut Child {
        &mut self.process
    }
}
