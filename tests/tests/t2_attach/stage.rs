//! An engine with one solo volume, and an attach daemon, in a directory of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;
use understudy_core::engine::api::{ByteLen, Generation, Member, Policy, Role, Start, VolumeId};
use understudy_core::engine::attach::api::{Attach, Device};
use understudy_core::engine::client::EngineClient;
use understudy_tests::harness::attach::{Attachd, Leftovers, attach_to};
use understudy_tests::harness::engine::Engine;
use understudy_tests::harness::tools;

pub(crate) const MIB: u64 = 1 << 20;

/// Engine, daemon, volume.
pub(crate) struct Stage {
    // Dropped in this order: devices before what serves them.
    pub(crate) attachd: Attachd,
    pub(crate) engine: Engine,
    pub(crate) volume: VolumeId,
    pub(crate) generation: Generation,
    pub(crate) directory: TempDir,
}

pub(crate) fn generation(number: u64) -> Generation {
    Generation { number, id: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

/// A name that no other test, and no other run, has.
pub(crate) fn unique(name: &str) -> VolumeId {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{}-{number}", std::process::id()).parse().unwrap()
}

impl Stage {
    pub(crate) fn new(name: &str, size: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let engine = Engine::start("a", directory.path(), &[]).unwrap();
        let attachd = Attachd::start(directory.path()).unwrap();
        Self::of(directory, engine, attachd, name, size)
    }

    /// The same, of an engine and a daemon that run.
    pub(crate) fn of(
        directory: TempDir,
        engine: Engine,
        attachd: Attachd,
        name: &str,
        size: u64,
    ) -> Self {
        let (volume, generation) = (unique(name), generation(2));
        let stage = Self { attachd, engine, volume, generation, directory };
        stage.add_volume(&stage.volume, size);
        stage
    }

    /// Makes the volume longer.
    pub(crate) fn expand(&self, size: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = EngineClient::lazy(&self.engine.api_address()).unwrap();
            client.expand_replica(&self.volume, ByteLen(size)).await.unwrap();
        });
    }

    /// A further solo volume.
    pub(crate) fn add_volume(&self, volume: &VolumeId, size: u64) {
        let member = Member { volume: volume.clone(), size: ByteLen(size) };
        self.engine.create_replica(&member).unwrap();
        let start = Start {
            group: volume.clone(),
            generation: self.generation,
            role: Role::Primary,
            members: vec![member],
            peer: None,
            policy: Policy::default(),
            inbound: false,
            adopt: false,
        };
        self.engine.start_group(&start).unwrap();
    }

    /// What attaches the volume.
    pub(crate) fn wanted(&self) -> Attach {
        attach_to(&self.engine, &self.volume, self.generation)
    }

    pub(crate) fn attach(&self) -> Device {
        self.attachd
            .attach(&self.wanted())
            .unwrap_or_else(|e| panic!("{e}\n{}", self.attachd.log()))
    }

    /// What there is of devices of this test.
    pub(crate) fn leftovers(&self) -> Leftovers {
        self.attachd.leftovers(self.volume.as_str())
    }

    pub(crate) fn assert_nothing_is_left(&self, when: &str) {
        // A holder that was killed is gone in a moment, not at once.
        for _ in 0..200 {
            if self.leftovers() == Leftovers::default() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{when}: left are {:#?}\n{}", self.leftovers(), self.attachd.log());
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// Runs a tool to its end; what it printed.
pub(crate) fn run<A: AsRef<std::ffi::OsStr>>(
    tool: &str,
    arguments: impl IntoIterator<Item = A>,
) -> String {
    let output = Command::new(tools::find(tool).unwrap()).args(arguments).output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{tool}: {text}");
    text
}

/// A file system mounted for as long as this lives.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Mounted {
    pub(crate) fn new(device: &Path, at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        run("mount", [device, at]);
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let umount = tools::find("umount").map(|umount| Command::new(umount).arg(&self.0).status());
        drop(umount);
    }
}
