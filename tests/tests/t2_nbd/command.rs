//! Running programs, and what to do where they are missing.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Whether every program is there. If not: fails under `CI=true`, else says what to install.
pub(crate) fn have(programs: &[(&str, &str)]) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = |name: &str| path.split(':').any(|dir| Path::new(dir).join(name).is_file());
    let missing: Vec<_> = programs.iter().filter(|(name, _)| !found(name)).collect();
    let remedy = |(name, package): &&(&str, &str)| {
        format!("{name} is missing; install it with: apt-get install {package}")
    };
    let words: Vec<_> = missing.iter().copied().map(|m| remedy(&m)).collect();
    let must = std::env::var("CI").is_ok_and(|v| v == "true");
    assert!(missing.is_empty() || !must, "{}", words.join("\n"));
    for line in &words {
        // Past the test harness, which would swallow what a passing test prints.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {line}");
    }
    missing.is_empty()
}

/// Runs a program to its end; its standard output. Panics with all its words if it fails.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let out = output(program, args);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {args:?}: {}\n{text}\n{errors}", out.status);
    text
}

/// Runs a program to its end.
pub(crate) fn output(program: &str, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"))
}

/// A program that runs until this is dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Starts it, and waits until it listens at its socket.
    pub(crate) fn start(program: &str, args: &[&str], socket: &Path) -> Self {
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{program}: {e}"));
        let mut running = Self(child);
        let begun = Instant::now();
        while !is_listening(socket) {
            let ended = running.0.try_wait().unwrap();
            assert!(ended.is_none(), "{program} {args:?} ended: {ended:?}");
            assert!(begun.elapsed() < Duration::from_secs(20), "{program} {args:?}: no socket");
            std::thread::sleep(Duration::from_millis(5));
        }
        running
    }
}

/// Whether somebody listens there. Asked of the kernel: some servers end with their first client.
fn is_listening(socket: &Path) -> bool {
    const ACCEPTS: &str = "00010000";
    let table = std::fs::read_to_string("/proc/net/unix").unwrap();
    table.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.nth(3) == Some(ACCEPTS) && words.last().is_some_and(|path| Path::new(path) == socket)
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
