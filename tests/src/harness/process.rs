//! A child process: started by its exact path, logged to a file, ended by its own pid.
//!
//! ```text
//!   test thread ──spawn──► spawner thread ──fork──► setpriv --pdeathsig KILL ──exec──► the program
//!                          (lives as long as the process does)
//! ```
//!
//! Nothing outlives us: a dropped [`Child`] is killed and reaped, and should we be killed ourselves
//! the kernel kills it, by the parent-death signal. That signal fires when the *thread* that forked
//! ends, so one thread that never ends does all the forking.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::tools;

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(2);

/// A request to the spawner: what to start, and where the answer goes.
type Order = (Command, Sender<io::Result<std::process::Child>>);

/// Forks on the one thread that lives as long as we do.
fn spawn_for_life(command: Command) -> io::Result<std::process::Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                // A receiver that is gone has given up on the child; dropping it leaves the kill to
                // the parent-death signal.
                let _gone = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, result) = channel();
    let ended = || io::Error::other("the spawner thread ended");
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer))
        .map_err(|_| ended())?;
    result.recv().map_err(|_| ended())?
}

/// One child process of ours.
#[derive(Debug)]
pub struct Child {
    /// What messages call it.
    name: String,
    /// The process itself; it is waited for exactly once.
    process: std::process::Child,
    /// Its exit status, once known.
    status: Option<ExitStatus>,
    /// Where its standard output and error go.
    log: PathBuf,
}

impl Child {
    /// Starts `program` with `arguments`; its output goes to `directory/name.log`.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        directory: &Path,
    ) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(tools::find("setpriv")?);
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command.args(arguments.into_iter().map(|a| OsString::from(a.as_ref())));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let process = spawn_for_life(command)
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { name: name.to_owned(), process, status: None, log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.exit_status().is_none()
    }

    /// Its exit status, if it has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.process.try_wait().ok().flatten();
        }
        self.status
    }

    /// Everything it has printed so far.
    pub fn output(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// SIGKILL, then waits: as a power cut, but for what the kernel still holds.
    pub fn kill(&mut self) {
        if self.exit_status().is_none() {
            // Fails only for a process that has ended, which is what is wanted.
            let _ended = self.process.kill();
            self.status = self.process.wait().ok();
        }
    }

    /// Sends a signal by name, as `TERM`, `STOP` or `CONT`.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let kill = tools::find("kill")?;
        let mut command = Command::new(kill);
        command.arg(format!("-{signal}")).arg(self.pid().to_string());
        if !command.status()?.success() {
            bail!("cannot send {signal} to {} (pid {})", self.name, self.pid());
        }
        Ok(())
    }

    /// Waits until `ready` answers with something. An error when the process ends first or the time
    /// is up; the message ends with the last of its output.
    pub fn wait_until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = ready() {
                return Ok(found);
            }
            if let Some(status) = self.exit_status() {
                bail!("{} ended ({status}) before {what}:\n{}", self.name, self.tail());
            }
            if Instant::now() >= end {
                bail!("{}: {what} did not happen in {limit:?}:\n{}", self.name, self.tail());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.exit_status() {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!("{} (pid {}) still runs after {limit:?}", self.name, self.pid());
            }
            std::thread::sleep(POLL);
        }
    }

    /// The last lines of its output.
    pub fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let child =
            Child::start("sleeper", &tools::find("sleep").unwrap(), ["60"], directory.path());
        let child = child.unwrap();
        let pid = child.pid();
        assert!(alive(pid));
        drop(child);
        assert!(!alive(pid));
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let start = move || Child::start("sleeper", &tools::find("sleep").unwrap(), ["60"], &path);
        let mut child = std::thread::spawn(start).join().unwrap().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(child.is_running());
    }

    #[test]
    fn a_child_that_ends_too_early_is_reported_with_its_output() {
        let directory = tempfile::tempdir().unwrap();
        let shell = tools::find("sh").unwrap();
        let mut child =
            Child::start("broken", &shell, ["-c", "echo no such pool; exit 3"], directory.path())
                .unwrap();
        let error = child
            .wait_until("it was ready", Duration::from_secs(10), || None::<()>)
            .unwrap_err()
            .to_string();
        assert!(error.contains("no such pool") && error.contains("exit status: 3"), "{error}");
    }
}
