//! One real engine: a process with a pool and sockets in a directory, and a blocking client of it.
//!
//! ```text
//!   directory/NAME/   pool/   api.sock   nbd.sock   link.sock      directory/NAME.log
//!                     metrics.sock
//!                     tls/    and, if it is to have one, a second API, NBD and metrics, and the link over TLS
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use understudy_core::engine::api::{
    ByteLen, EngineStatus, ExportKind, Failover, Generation, GroupId, GroupStatus, Member, Start,
    VolumeId,
};
use understudy_core::engine::client::{ClientError, EngineClient};
use understudy_core::runtime::Address;
use understudy_core::units::Epoch;

use super::certs::Authority;
use super::nbd_address::Export;
use super::process::Child;
use super::tools;

/// How long an engine may take to answer after its start: it opens what it finds in its pool.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How long a state that must come may take.
const STATE_LIMIT: Duration = Duration::from_secs(15);

/// How often a state is asked for while waiting for it.
const POLL: Duration = Duration::from_millis(1);

/// The flag without which there is no `tcp:` address.
pub const PLAINTEXT: &str = "--insecure-plaintext";

/// A port that nobody listens at now.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// An address as a listener is told it: without a node.
fn listening(address: &Address) -> String {
    match address {
        Address::Tls { host_port, .. } => format!("tls:{host_port}"),
        other => other.to_string(),
    }
}

/// An engine.
pub struct Engine {
    name: String,
    directory: PathBuf,
    extra: Vec<String>,
    /// Where it takes links.
    link: Address,
    /// Where its API, NBD and metrics are over TLS too.
    secure: Option<[Address; 3]>,
    /// `None` while it is down.
    process: Option<Child>,
    runtime: tokio::runtime::Runtime,
    client: EngineClient,
}

impl Engine {
    /// Starts one with an empty pool. `extra` are further flags.
    pub fn start(name: &str, directory: &Path, extra: &[&str]) -> Result<Self> {
        Self::launch(name, directory, extra, None)
    }

    /// The same with a certificate of `engine/NAME`: it takes links over TLS only, and serves the API
    /// and NBD over TLS too.
    pub fn start_secure(
        name: &str,
        directory: &Path,
        extra: &[&str],
        authority: &Authority,
    ) -> Result<Self> {
        Self::launch(name, directory, extra, Some(authority))
    }

    fn launch(
        name: &str,
        directory: &Path,
        extra: &[&str],
        authority: Option<&Authority>,
    ) -> Result<Self> {
        let own = directory.join(name);
        std::fs::create_dir_all(own.join("pool"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let api = Address::Unix(own.join("api.sock"));
        let client = {
            let _inside = runtime.enter();
            EngineClient::lazy(&api)?
        };
        let mut link = Address::Unix(own.join("link.sock"));
        let mut secure = None;
        if let Some(authority) = authority {
            authority.issue(&own.join("tls"), &format!("engine/{name}"))?;
            let at = || {
                let host_port = format!("127.0.0.1:{}", free_port()?);
                anyhow::Ok(Address::Tls { node: Some(name.to_owned()), host_port })
            };
            link = at()?;
            secure = Some([at()?, at()?, at()?]);
        }
        let mut engine = Self {
            link,
            secure,
            name: name.to_owned(),
            directory: directory.to_owned(),
            extra: extra.iter().map(|flag| (*flag).to_owned()).collect(),
            process: None,
            runtime,
            client,
        };
        engine.restart()?;
        Ok(engine)
    }

    fn own(&self, file: &str) -> PathBuf {
        self.directory.join(&self.name).join(file)
    }

    /// Starts the process again, over what the last one left.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let address = |file: &str| format!("unix:{}", self.own(file).display());
        let mut arguments = vec!["--pool".to_owned(), self.own("pool").display().to_string()];
        for (flag, file) in
            [("--api", "api.sock"), ("--nbd", "nbd.sock"), ("--metrics", "metrics.sock")]
        {
            arguments.extend([flag.to_owned(), address(file)]);
        }
        if let Some([api, nbd, metrics]) = &self.secure {
            arguments.extend(["--tls".to_owned(), self.certificates().display().to_string()]);
            for (flag, at) in [("--api", api), ("--nbd", nbd), ("--metrics", metrics)] {
                arguments.extend([flag.to_owned(), listening(at)]);
            }
        }
        arguments.extend(["--link".to_owned(), listening(&self.link)]);
        arguments.extend(["--node".to_owned(), self.name.clone()]);
        arguments.extend(self.extra.iter().cloned());
        let program = tools::own("understudyd")?;
        let mut process = Child::start(&self.name, &program, &arguments, &self.directory)?;
        process.wait_until("it answered", START_LIMIT, || self.status().ok())?;
        self.process = Some(process);
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Its process while it is up.
    pub fn process(&mut self) -> Result<&mut Child> {
        let name = &self.name;
        self.process.as_mut().with_context(|| format!("engine {name} is down"))
    }

    /// Its process id while it is up.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::pid)
    }

    /// The last of its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join(format!("{}.log", self.name)))
            .unwrap_or_default()
    }

    /// Where it takes calls.
    pub fn api_address(&self) -> Address {
        Address::Unix(self.own("api.sock"))
    }

    /// Where it serves NBD.
    pub fn nbd_address(&self) -> Address {
        Address::Unix(self.own("nbd.sock"))
    }

    /// Where it tells metrics.
    pub fn metrics_address(&self) -> Address {
        Address::Unix(self.own("metrics.sock"))
    }

    /// Where it tells them over TLS, with the node's name in it.
    pub fn secure_metrics(&self) -> Result<Address> {
        Ok(self.secure.as_ref().context("the engine was started without TLS")?[2].clone())
    }

    /// Where it takes links of primaries.
    pub fn link_address(&self) -> Address {
        self.link.clone()
    }

    /// Takes links at a free TCP port of this machine from now on, in plaintext; restarts it.
    pub fn link_by_tcp(&mut self) -> Result<()> {
        self.link = Address::Tcp(format!("127.0.0.1:{}", free_port()?));
        if !self.extra.iter().any(|flag| flag == PLAINTEXT) {
            self.extra.push(PLAINTEXT.to_owned());
        }
        self.restart()
    }

    /// The directory of its certificates.
    pub fn certificates(&self) -> PathBuf {
        self.own("tls")
    }

    /// Where its API is over TLS, with the node's name in it.
    pub fn secure_api(&self) -> Result<Address> {
        Ok(self.secure.as_ref().context("the engine was started without TLS")?[0].clone())
    }

    /// Where its NBD is over TLS, with the node's name in it.
    pub fn secure_nbd(&self) -> Result<Address> {
        Ok(self.secure.as_ref().context("the engine was started without TLS")?[1].clone())
    }

    /// Where its API is without.
    pub fn api(&self) -> &Address {
        self.client.address()
    }

    /// The file under a volume's disk.
    pub fn disk_path(&self, volume: &VolumeId) -> PathBuf {
        self.own("pool").join("volumes").join(volume.as_str()).join("disk")
    }

    fn call<T>(&self, call: impl Future<Output = Result<T, ClientError>>) -> Result<T> {
        self.runtime.block_on(call).with_context(|| format!("engine {}", self.name))
    }

    /// Makes a replica.
    pub fn create_replica(&self, replica: &Member) -> Result<()> {
        self.call(self.client.create_replica(replica)).map(drop)
    }

    /// Deletes a replica.
    pub fn delete_replica(&self, volume: &VolumeId) -> Result<()> {
        self.call(self.client.delete_replica(volume))
    }

    /// Grows a replica.
    pub fn expand_replica(&self, volume: &VolumeId, size: ByteLen) -> Result<ByteLen> {
        self.call(self.client.expand_replica(volume, size))
    }

    /// Gives out a session of a volume.
    pub fn open_session(&self, volume: &VolumeId, generation: Generation) -> Result<u64> {
        self.call(self.client.open_session(volume, generation))
    }

    /// Ends a session of a volume.
    pub fn close_session(&self, volume: &VolumeId, session: u64) -> Result<()> {
        self.call(self.client.close_session(volume, session))
    }

    /// An export of this name, whether it is there or not.
    pub fn named(&self, export: &str) -> Export {
        Export::unix(self.own("nbd.sock"), export)
    }

    /// Begins a role in a group.
    pub fn start_group(&self, start: &Start) -> Result<()> {
        self.call(self.client.start(start))
    }

    /// Makes a checkpoint and waits until it is complete.
    pub fn checkpoint(&self, group: &GroupId, generation: Generation) -> Result<Epoch> {
        self.call(self.client.checkpoint(group, generation))
    }

    /// Promotes the secondary.
    pub fn failover(&self, failover: &Failover) -> Result<Epoch> {
        self.call(self.client.failover(failover))
    }

    /// Ends replication.
    pub fn stop(&self, group: &GroupId, generation: Generation, abandon_peer: bool) -> Result<()> {
        self.call(self.client.stop(group, generation, abandon_peer))
    }

    /// The first error that no later checkpoint has cleared.
    pub fn error_of(&self, group: &GroupId, generation: Generation) -> Result<Option<String>> {
        self.call(self.client.get_error(group, generation))
    }

    /// All of its state.
    pub fn status(&self) -> Result<EngineStatus> {
        self.call(self.client.status())
    }

    /// The state of a group.
    pub fn group(&self, group: &GroupId) -> Result<GroupStatus> {
        let status = self.status()?;
        let found = status.group(group).cloned();
        found.with_context(|| format!("engine {} knows no group {group}", self.name))
    }

    /// Waits until a group is in a state.
    pub fn wait_for(
        &self,
        group: &GroupId,
        what: &str,
        mut is: impl FnMut(&GroupStatus) -> bool,
    ) -> Result<GroupStatus> {
        let end = Instant::now() + STATE_LIMIT;
        loop {
            let status = self.group(group)?;
            if is(&status) {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!(
                    "engine {}, group {group}: {what} did not come in {STATE_LIMIT:?}; it is {status:#?}",
                    self.name
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// Where an export of a volume can be opened now.
    pub fn export(&self, group: &GroupId, volume: &VolumeId, kind: ExportKind) -> Result<Export> {
        let status = self.group(group)?;
        let wanted = |export: &&_| {
            let export: &understudy_core::engine::api::ExportStatus = export;
            export.volume == *volume && export.kind == kind
        };
        let found = status.exports.iter().find(wanted).with_context(|| {
            let names: Vec<&str> = status.exports.iter().map(|e| e.name.as_str()).collect();
            format!("engine {} offers no {kind} of {volume}, only {names:?}", self.name)
        })?;
        found.uri.parse()
    }
}
