//! Orders to a keeper, and starting one.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Place, leftovers};
use crate::harness::tools;

/// How long a cluster may take to come up.
const UP: Duration = Duration::from_secs(300);
/// How long it may take to go.
const DOWN: Duration = Duration::from_secs(90);

/// Someone who orders.
#[derive(Clone, Debug)]
pub struct Client(Place);

impl Client {
    /// For the cluster in this place.
    pub fn new(place: &Place) -> Self {
        Self(place.clone())
    }

    /// Gives an order, waits until it is done, returns what was said.
    pub fn order(&self, words: &str) -> Result<String> {
        let socket = self.0.socket();
        let mut stream = UnixStream::connect(&socket)
            .with_context(|| format!("no cluster answers at {}", socket.display()))?;
        writeln!(stream, "{words}")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        match answer.trim().split_once(' ').unwrap_or((answer.trim(), "")) {
            ("ok", text) => Ok(text.to_owned()),
            ("error", text) => bail!("{words}: {text}"),
            _ => bail!("{words}: the keeper went away"),
        }
    }

    /// Whether a keeper answers.
    pub fn is_up(&self) -> bool {
        self.order("ping").is_ok()
    }

    /// Ends the cluster and removes everything of it, also what a killed one left.
    pub fn down(&self) -> Result<()> {
        if let Ok(mut stream) = UnixStream::connect(self.0.socket()) {
            writeln!(stream, "down")?;
            let end = Instant::now() + DOWN;
            while self.0.root().exists() {
                if Instant::now() >= end {
                    bail!("the keeper did not end the cluster in {DOWN:?}");
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            return Ok(());
        }
        leftovers::clean(&self.0)
    }
}

/// Brings a cluster up with a keeper of its own, which outlives this process unless `owned`.
pub fn up(place: &Place, nodes: u8, owned: bool) -> Result<Client> {
    let client = Client::new(place);
    if client.is_up() {
        bail!("a cluster runs already in {}: end it with `cluster down`", place.root().display());
    }
    let log = place.root().with_extension("log");
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(tools::own("understudy-tests")?);
    command.args(["cluster", "run", "--nodes", &nodes.to_string()]);
    if owned {
        command.args(["--owner", &std::process::id().to_string()]);
    }
    // Its own process group: an interrupt of ours is not one of the keeper, which cleans up.
    command.process_group(0).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut keeper = command.spawn().context("cannot start the keeper")?;
    let end = Instant::now() + UP;
    while !client.is_up() {
        if let Some(status) = keeper.try_wait()? {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("the cluster did not come up ({status}):\n{said}");
        }
        if Instant::now() >= end {
            bail!("the cluster did not come up in {UP:?}; see {}", log.display());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(client)
}
