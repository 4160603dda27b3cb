//! The room in which it is played: namespaces of its own, so that whatever ends it leaves nothing.
//!
//! ```text
//!   make soak ── understudy-tests soak                        waits; cleans; SIGINT, SIGTERM: ends it
//!                  └─ unshare: mounts, processes
//!                       └─ sh, the first process              its end is the end of every one in it
//!                            └─ understudy-tests soak --inside …
//!                                 ├─ understudyd a, b
//!                                 ├─ understudy-attachd ─ holders
//!                                 └─ fio
//! ```
//!
//! The first process must not use a device: who waits for one can't end, and holders, without which it
//! waits for ever, would be killed only when the first process has.
//!
//! Loop devices belong to the kernel and outlive their holders on purpose: they are taken apart by the
//! names of their volumes, which hold our process id.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use tokio::signal::unix::{SignalKind, signal};
use understudy_core::attach;

use super::Options;
use crate::harness::tools;

/// What every volume's name begins with.
const PREFIX: &str = "soak-";

/// What the first process does: it runs the program that it is given, and is not replaced by it.
const FIRST: &str = r#""$0" "$@"; exit $?"#;

/// How long the kernel may take to let go of devices.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a process is looked at.
const POLL: Duration = Duration::from_millis(50);

/// The name of a volume of the soak of this process.
pub(super) fn volume(owner: u32, number: usize) -> String {
    format!("{PREFIX}{owner}-{number}")
}

/// What this machine lacks for it, with the remedy.
pub fn possible() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the soak makes block devices and mounts file systems: run it as root"
    );
    attach::probe()?;
    for tool in ["fio", "mkfs.ext4", "mount", "unshare", "setpriv"] {
        tools::find(tool)?;
    }
    Ok(())
}

/// Plays it in a room of its own, and removes what is left of it.
pub(super) fn enclose(options: &Options, seed: u64) -> Result<ExitCode> {
    possible()?;
    clear_orphans()?;
    let owner = std::process::id();
    let directory = std::env::temp_dir().join(format!("understudy-soak-{owner}"));
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut inside = start(options, seed, owner, &directory)?;
        let interrupted = tokio::signal::ctrl_c();
        let ended = tokio::select! {
            ended = wait(&mut inside) => ended.map(Some),
            _ = interrupted => Ok(None),
            _ = terminate.recv() => Ok(None),
        };
        // Reaped already, unless it was interrupted.
        let _ended = inside.kill();
        let _reaped = inside.wait();
        ended
    });
    clear(owner)?;
    match ended? {
        Some(status) if status.success() => {
            std::fs::remove_dir_all(&directory)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(status) => {
            println!("It failed ({status}); logs and journals are in {}", directory.display());
            Ok(ExitCode::FAILURE)
        }
        None => {
            std::fs::remove_dir_all(&directory)?;
            bail!("interrupted");
        }
    }
}

fn start(options: &Options, seed: u64, owner: u32, directory: &Path) -> Result<Child> {
    let mut command = Command::new(tools::find("setpriv")?);
    command.args(["--pdeathsig", "KILL", "--"]).arg(tools::find("unshare")?);
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.arg(tools::find("sh")?).args(["-c", FIRST]).arg(std::env::current_exe()?).arg("soak");
    command.arg("--inside").arg(directory).args(["--owner", &owner.to_string()]);
    command.args(["--seed", &seed.to_string(), "--from", &options.from.to_string()]);
    if let Some(minutes) = options.minutes {
        command.args(["--minutes", &minutes.to_string()]);
    }
    if let Some(rounds) = options.rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    if let Some(harm) = options.harm.and_then(|harm| harm.to_possible_value()) {
        command.args(["--harm", harm.get_name()]);
    }
    command.spawn().context("cannot start the soak in namespaces of its own")
}

async fn wait(child: &mut Child) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Takes the devices of this soak apart.
fn clear(owner: u32) -> Result<()> {
    let name = format!("understudy-{PREFIX}{owner}-");
    let end = Instant::now() + PATIENCE;
    while let Some((device, _)) = attach::find(&name)? {
        // In use: whoever has it open is about to end.
        attach::clear(&name)?;
        ensure!(Instant::now() < end, "{} is left, and in use", device.display());
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Takes the devices of soaks apart that were killed and could not. Each soak begins with it.
pub fn clear_orphans() -> Result<()> {
    for entry in std::fs::read_dir("/sys/block")?.flatten() {
        let file = std::fs::read_to_string(entry.path().join("loop/backing_file"));
        let owner = file.ok().as_deref().and_then(owner_of);
        if let Some(owner) = owner.filter(|owner| !process(*owner).exists()) {
            clear(owner)?;
        }
    }
    Ok(())
}

fn process(pid: u32) -> PathBuf {
    format!("/proc/{pid}").into()
}

/// The process whose soak a loop device is of, by its backing file.
fn owner_of(file: &str) -> Option<u32> {
    let rest = file.split_once(&format!("understudy-{PREFIX}"))?.1;
    rest.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_of_a_soak_names_its_process() {
        let file = |owner| format!("/understudy-{}-0123abcd\n", volume(owner, 1));
        assert_eq!(owner_of(&file(4711)), Some(4711));
        for other in ["/understudy-pvc-1-ab", "/understudy-soak-x-1", "", "/tmp/image"] {
            assert_eq!(owner_of(other), None, "{other}");
        }
    }
}
