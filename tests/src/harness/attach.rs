//! One real attach daemon with its holders, and what they leave behind: counted, and cleaned up.
//!
//! ```text
//!   directory/attach/   *.json, *.lock, *.sock      directory/attach.sock      directory/attachd.log
//! ```
//!
//! Holders outlive the daemon on purpose, so they are found by the state directory in their command
//! line, and their loop devices by the file that they are over.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use understudy_core::attach;
use understudy_core::engine::attach::api::{Attach, Device, EngineAddresses, Generation, VolumeId};
use understudy_core::engine::attach::client::{AttachClient, AttachError};

use super::engine::Engine;
use super::process::Child;
use super::tools;

/// How long a daemon may take to answer after its start.
const START_LIMIT: Duration = Duration::from_secs(20);

/// An attach daemon.
pub struct Attachd {
    directory: PathBuf,
    flags: Vec<String>,
    process: Option<Child>,
    runtime: tokio::runtime::Runtime,
    client: AttachClient,
}

/// What there is of devices.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Leftovers {
    /// Loop devices over our files.
    pub loops: Vec<String>,
    /// Processes that hold devices of this directory.
    pub holders: Vec<u32>,
    /// Files of the state directory.
    pub files: Vec<String>,
    /// FUSE mounts of ours in any table we see.
    pub mounts: Vec<String>,
}

/// Whether this machine can make devices; says what is skipped if not.
pub fn possible(test: &str) -> bool {
    match attach::probe() {
        Ok(_) => true,
        Err(e) => {
            tools::skip(test, &e.to_string());
            false
        }
    }
}

impl Attachd {
    /// Starts one over an empty state directory.
    pub fn start(directory: &Path) -> Result<Self> {
        Self::start_with(directory, &[])
    }

    /// The same with further flags.
    pub fn start_with(directory: &Path, flags: &[&str]) -> Result<Self> {
        let mut attachd = Self::beside(directory)?;
        attachd.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        attachd.restart()?;
        Ok(attachd)
    }

    /// One that somebody else starts in this directory, under the same names.
    pub fn beside(directory: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = {
            let _inside = runtime.enter();
            AttachClient::lazy(&directory.join("attach.sock"))
        };
        let directory = directory.to_owned();
        Ok(Self { directory, flags: Vec::new(), process: None, runtime, client })
    }

    fn state(&self) -> PathBuf {
        self.directory.join("attach")
    }

    /// Starts the daemon again, over what the last one left.
    pub fn restart(&mut self) -> Result<()> {
        self.restart_to_die_at("")
    }

    /// The same; it, or a holder that it starts, kills itself at this step.
    pub fn restart_to_die_at(&mut self, step: &str) -> Result<()> {
        self.kill();
        let arguments = [
            format!("UNDERSTUDY_DIE_AT={step}"),
            tools::own("understudy-attachd")?.display().to_string(),
            "serve".to_owned(),
            "--socket".to_owned(),
            self.directory.join("attach.sock").display().to_string(),
            "--state".to_owned(),
            self.state().display().to_string(),
        ];
        let arguments = arguments.iter().chain(&self.flags);
        let mut process =
            Child::start("attachd", &tools::find("env")?, arguments, &self.directory)?;
        process.wait_until("it answered", START_LIMIT, || self.list().ok())?;
        self.process = Some(process);
        Ok(())
    }

    /// SIGKILL of the daemon; its holders go on.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Its process while it is up.
    pub fn process(&mut self) -> Result<&mut Child> {
        self.process.as_mut().context("the attach daemon is down")
    }

    /// Its process id while it is up.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::pid)
    }

    /// What it and its holders printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("attachd.log")).unwrap_or_default()
    }

    /// Makes a device.
    pub fn attach(&self, attach: &Attach) -> Result<Device, AttachError> {
        self.runtime.block_on(self.client.attach(attach))
    }

    /// Removes one.
    pub fn detach(&self, volume: &VolumeId) -> Result<(), AttachError> {
        self.runtime.block_on(self.client.detach(volume))
    }

    /// Gives one the volume's length.
    pub fn resize(&self, volume: &VolumeId) -> Result<Device, AttachError> {
        self.runtime.block_on(self.client.resize(volume))
    }

    /// Makes one fail.
    pub fn fail(
        &self,
        volume: &VolumeId,
        generation: Generation,
        reason: &str,
    ) -> Result<Device, AttachError> {
        self.runtime.block_on(self.client.fail(volume, generation, reason))
    }

    /// All of them.
    pub fn list(&self) -> Result<Vec<Device>, AttachError> {
        self.runtime.block_on(self.client.list())
    }

    /// The one of a volume.
    pub fn device(&self, volume: &VolumeId) -> Result<Device> {
        let found = self.list()?.into_iter().find(|d| d.volume == *volume);
        found.with_context(|| format!("{volume} is not attached"))
    }

    /// Waits until the device of a volume is in a state.
    pub fn wait_for(
        &self,
        volume: &VolumeId,
        what: &str,
        is: impl Fn(&Device) -> bool,
    ) -> Result<Device> {
        let end = std::time::Instant::now() + START_LIMIT;
        loop {
            let device = self.device(volume)?;
            if is(&device) {
                return Ok(device);
            }
            anyhow::ensure!(std::time::Instant::now() < end, "{what} did not come: {device:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What there is now of devices of the volumes whose names begin with `prefix`.
    pub fn leftovers(&self, prefix: &str) -> Leftovers {
        let mut files: Vec<_> = names(&self.state());
        files.retain(|name| name != ".lock");
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Leftovers {
            loops: loops(prefix),
            holders: holders(&self.state()),
            files,
            mounts: table
                .lines()
                .filter(|line| line.contains(" - fuse understudy"))
                .map(str::to_owned)
                .collect(),
        }
    }
}

impl Drop for Attachd {
    fn drop(&mut self) {
        self.kill();
        let ids = names(&self.state())
            .into_iter()
            .filter(|name| Path::new(name).extension().is_some_and(|e| e == "json"))
            .filter_map(|name| std::fs::read(self.state().join(name)).ok())
            .filter_map(|text| serde_json::from_slice::<attach::Record>(&text).ok())
            .map(|record| record.id);
        let ids: Vec<_> = ids.collect();
        for pid in holders(&self.state()) {
            let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                // It may have ended by itself.
                let _ended = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        for id in ids {
            // Dead holders let go of their devices within moments.
            for _ in 0..100 {
                if matches!(attach::clear(&id), Ok(attach::Cleared::Nothing)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Loop devices over files of volumes whose names begin with `prefix`.
fn loops(prefix: &str) -> Vec<String> {
    let mut found = names(Path::new("/sys/block"));
    found.retain(|name| {
        let over = std::fs::read_to_string(format!("/sys/block/{name}/loop/backing_file"));
        over.is_ok_and(|over| over.contains(&format!("understudy-{prefix}")))
    });
    found
}

/// Processes whose command line names this state directory as holders do.
fn holders(state: &Path) -> Vec<u32> {
    let wanted = state.display().to_string();
    let pids = names(Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok());
    pids.filter(|pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).collect();
        words.contains(&b"hold".as_slice()) && words.contains(&wanted.as_bytes())
    })
    .collect()
}

/// What attaches this volume of this engine.
pub fn attach_to(engine: &Engine, volume: &VolumeId, generation: Generation) -> Attach {
    Attach {
        volume: volume.clone(),
        generation,
        engine: EngineAddresses { api: engine.api_address(), nbd: engine.nbd_address() },
        read_only: false,
    }
}
