//! The stage: two engines, the standalone operator, its manifests, and what its status says.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_yaml::Value;

use super::image::{Image, VOLUMES};
use crate::harness::engine::Engine;
use crate::harness::nbd::Client;
use crate::harness::nbd_address::Export;
use crate::harness::process::Child;
use crate::harness::tools;

/// How long a state may take to come.
const LIMIT: Duration = Duration::from_secs(30);

/// How often the status file is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Everything that runs.
pub(crate) struct Stage {
    manifests: PathBuf,
    a: Engine,
    /// Held for its life: the copy.
    b: Engine,
    /// Held for its life.
    operator: Child,
}

/// What the operator's status file says, as far as it is told here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub(crate) state: String,
    pub(crate) stage: String,
    pub(crate) primary: String,
    pub(crate) generation: String,
    pub(crate) epoch: u64,
    pub(crate) checkpoint: u64,
    pub(crate) at_risk: u64,
    pub(crate) missing: u64,
    trigger: String,
    age_ms: Option<u128>,
    exports: Vec<(String, String, String)>,
}

impl Status {
    /// The on-call line.
    pub(crate) fn line(&self) -> String {
        let age = self.age_ms.map_or("-".to_owned(), |ms| format!("{ms} ms"));
        format!(
            "{:<8} primary {}  generation {}  epoch {:<4} checkpoint {:<4} age {age:<8} at risk {} KiB",
            self.state,
            self.primary,
            self.generation.split('-').next().unwrap_or_default(),
            self.epoch,
            self.checkpoint,
            self.at_risk >> 10
        )
    }

    /// Whether every volume can be opened where it is primary.
    pub(crate) fn is_served(&self) -> bool {
        let offers = |volume: &str| {
            self.exports
                .iter()
                .any(|(v, kind, _)| v == volume && kind.eq_ignore_ascii_case("primary"))
        };
        VOLUMES.iter().all(|(v, ..)| offers(v))
    }

    fn parse(text: &str) -> Result<Self> {
        let all: Value = serde_yaml::from_str(text)?;
        let s = all.get("status").cloned().unwrap_or_default();
        let text =
            |v: &Value, k: &str| v.get(k).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |v: &Value, k: &str| v.get(k).and_then(Value::as_u64).unwrap_or_default();
        let checkpoint = s.get("checkpoint").cloned().unwrap_or_default();
        let list = |k: &str| s.get(k).and_then(Value::as_sequence).cloned().unwrap_or_default();
        Ok(Self {
            state: text(&s, "state"),
            stage: text(&s, "stage"),
            primary: text(&s, "primary"),
            generation: text(&s, "generation"),
            epoch: number(&s, "epoch"),
            checkpoint: number(&checkpoint, "epoch"),
            at_risk: number(&s, "bytesAtRisk"),
            missing: list("replicas").iter().map(|r| number(r, "missingBytes")).sum(),
            trigger: s.get("trigger").map(|t| text(t, "token")).unwrap_or_default(),
            age_ms: None,
            exports: list("exports")
                .iter()
                .map(|e| (text(e, "volume"), text(e, "kind"), text(e, "uri")))
                .collect(),
        })
    }
}

impl Stage {
    /// Starts everything; nothing is replicated yet.
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        let a = Engine::start("node-a", directory, &[])?;
        let b = Engine::start("node-b", directory, &[])?;
        let manifests = directory.join("manifests");
        fs::create_dir_all(&manifests)?;
        let node = |name: &str| {
            let own = directory.join(name);
            format!("{name}=unix:{0}/api.sock,link=unix:{0}/link.sock", own.display())
        };
        let arguments = [
            "standalone".to_owned(),
            manifests.display().to_string(),
            "--node".to_owned(),
            node("node-a"),
            "--node".to_owned(),
            node("node-b"),
        ];
        let program = tools::own("understudy-operator")?;
        let operator = Child::start("operator", &program, &arguments, directory)?;
        Ok(Self { manifests, a, b, operator })
    }

    fn replication(interval: &str, extra: &str) -> String {
        let claims: Vec<String> =
            VOLUMES.iter().map(|(v, ..)| format!("    - name: {v}")).collect();
        format!(
            "apiVersion: understudy.dev/v1alpha1\nkind: BlockReplication\nmetadata:\n  name: vm\n  namespace: demo\nspec:\n  source:\n    persistentVolumeClaims:\n{}\n  primary:\n    node: node-a\n  secondary:\n    node: node-b\n  checkpoint:\n    interval: {interval}\n{extra}",
            claims.join("\n")
        )
    }

    /// A manifest is there whole or not at all.
    fn put(&self, name: &str, text: &str) -> Result<()> {
        let new = self.manifests.join(format!(".{name}.new"));
        fs::write(&new, text)?;
        fs::rename(&new, self.manifests.join(name)).context("cannot write a manifest")
    }

    /// Declares claims and replication; returns the replication's manifest.
    pub(crate) fn declare(&self, interval: &str) -> Result<String> {
        for (volume, _, mib) in VOLUMES {
            let claim = format!(
                "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: {volume}\n  namespace: demo\nspec:\n  accessModes: [ReadWriteOnce]\n  volumeName: {volume}\n  resources:\n    requests:\n      storage: {mib}Mi\n"
            );
            self.put(&format!("{volume}.yaml"), &claim)?;
        }
        let text = Self::replication(interval, "");
        self.put("vm.yaml", &text)?;
        Ok(text)
    }

    /// One checkpoint by hand; says its number.
    pub(crate) fn checkpoint(&mut self, token: &str) -> Result<u64> {
        self.put("vm.yaml", &Self::replication("24h", &format!("    trigger: {token}\n")))?;
        Ok(self.wait("the checkpoint asked for", |s| s.trigger == token)?.checkpoint)
    }

    /// Asks for the failover; returns what was added to the manifest.
    pub(crate) fn fail_over(&self, status: &Status) -> Result<String> {
        let order = format!(
            "  failover:\n    trigger:\n      generation: {}\n      target: node-b\n",
            status.generation
        );
        self.put("vm.yaml", &Self::replication("24h", &order))?;
        Ok(format!("spec:\n{order}"))
    }

    fn read_status(&self) -> Result<Status> {
        let folder = self.manifests.join("status");
        let entries =
            fs::read_dir(&folder).with_context(|| format!("no {} yet", folder.display()))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().to_lowercase();
            if name.starts_with("blockreplication") {
                return Status::parse(&fs::read_to_string(entry.path())?);
            }
        }
        bail!("no status of the BlockReplication yet")
    }

    /// What the operator says now.
    pub(crate) fn status(&self) -> Result<Status> {
        self.read_status().map(|s| self.with_age(s))
    }

    /// Adds the age of the checkpoint in milliseconds, which a Kubernetes time can't say.
    fn with_age(&self, mut status: Status) -> Status {
        let engine = if status.primary == "node-a" { &self.a } else { &self.b };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let cut =
            engine.status().ok().and_then(|e| e.groups.first().and_then(|g| g.checkpoint_cut));
        status.age_ms = cut.map(|cut| now.saturating_sub(cut.0).as_millis());
        status
    }

    /// Waits until the status says so.
    pub(crate) fn wait(
        &mut self,
        what: &str,
        mut is: impl FnMut(&Status) -> bool,
    ) -> Result<Status> {
        let end = Instant::now() + LIMIT;
        loop {
            let status = self.read_status();
            if let Ok(s) = &status
                && is(s)
            {
                return status.map(|s| self.with_age(s));
            }
            if Instant::now() > end || !self.operator.is_running() {
                bail!(
                    "{what} did not come within {LIMIT:?}: {status:?}\noperator:\n{}\nnode-a:\n{}\nnode-b:\n{}",
                    self.operator.tail(),
                    self.a.log(),
                    self.b.log()
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// Opens a volume where it is primary now.
    pub(crate) fn open(&self, volume: &str) -> Result<Client> {
        let status = self.read_status()?;
        let found = status
            .exports
            .iter()
            .find(|(v, kind, _)| v == volume && kind.eq_ignore_ascii_case("primary"));
        let (_, _, uri) =
            found.with_context(|| format!("the status offers no primary export of {volume}"))?;
        Ok(Client::connect(&uri.parse::<Export>()?)?)
    }

    /// Writes an image to its volume.
    pub(crate) fn fill(&self, image: &Image) -> Result<()> {
        let bytes = fs::read(&image.path)?;
        let mut client = self.open(image.volume)?;
        for (i, piece) in bytes.chunks(1 << 20).enumerate() {
            client.write(u64::try_from(i)? << 20, piece)?;
        }
        Ok(client.flush()?)
    }

    /// What no one wants: both file systems' metadata and a third of their blocks overwritten.
    pub(crate) fn ruin(&self, images: &[Image]) -> Result<()> {
        for image in images {
            let mut client = self.open(image.volume)?;
            let junk = vec![0xdb; 64 << 10];
            for at in (0..image.bytes).step_by(192 << 10) {
                client.write(at, &junk[..junk.len().min(usize::try_from(image.bytes - at)?)])?;
            }
            client.trim(image.bytes / 2, 1 << 20)?;
            client.flush()?;
        }
        Ok(())
    }

    /// Waits until the copy has applied everything that was sent.
    pub(crate) fn settle(&self) -> Result<()> {
        let end = Instant::now() + LIMIT;
        loop {
            let status = self.a.status()?;
            let all =
                status.groups.iter().all(|g| g.frames_applied == g.frames_sent && g.missing.0 == 0);
            if all {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("node-b has not applied everything after {LIMIT:?}: {:?}", status.groups);
            }
            std::thread::sleep(POLL);
        }
    }

    /// SIGKILL.
    pub(crate) fn kill_primary(&mut self) {
        self.a.kill();
    }

    /// Reads from each promoted volume as soon as that is possible; when that was.
    pub(crate) fn first_byte(&self, images: &[Image]) -> Result<(Vec<u8>, Instant)> {
        let mut first = Vec::new();
        for image in images {
            first.extend(self.open(image.volume)?.read(0, 1)?);
        }
        Ok((first, Instant::now()))
    }

    /// Flips one byte of a promoted volume.
    pub(crate) fn alter(&self, images: &[Image], volume: usize, offset: u64) -> Result<()> {
        let image = images.get(volume).context("no such volume")?;
        let mut client = self.open(image.volume)?;
        let old = client.read(offset, 1)?;
        Ok(client.write(offset, &[!old.first().copied().unwrap_or_default()])?)
    }
}
