//! `understudyd supervise` as the first process of a pid namespace, which is what a container's is.
//!
//! ```text
//!   test ──► unshare ──► understudy-init (process 1) ──► sh … ──► orphans
//!            kills process 1 when it ends, and the kernel kills all others then
//! ```

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use understudy_tests::harness::attach::{Attachd, attach_to, possible};
use understudy_tests::harness::process::Child;
use understudy_tests::harness::tools;

/// How long anything may take on a slow machine.
const LIMIT: Duration = Duration::from_secs(20);

/// A supervisor over `program`, with its log.
struct Supervised {
    child: Child,
    _directory: TempDir,
}

fn is_possible(test: &str) -> bool {
    let Some([unshare]) = tools::require(test, ["unshare"]) else { return false };
    let tried = Command::new(unshare).args(["--pid", "--fork", "true"]).output().unwrap();
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr);
        tools::skip(test, &format!("no pid namespace: {}: run as root", why.trim()));
    }
    tried.status.success()
}

/// The living children of a process.
fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).filter(|pid| is_alive(*pid)).collect()
}

/// Neither gone nor a zombie.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

fn comm(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(began.elapsed() < LIMIT, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Supervised {
    fn start<A: AsRef<std::ffi::OsStr>>(program: &[A]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let supervisor = tools::own("understudyd").unwrap();
        let mut words: Vec<std::ffi::OsString> =
            ["--pid", "--fork", "--kill-child"].map(Into::into).to_vec();
        words.extend([supervisor.into(), "supervise".into(), "--".into()]);
        words.extend(program.iter().map(|word| word.as_ref().to_owned()));
        let unshare = tools::find("unshare").unwrap();
        let child = Child::start("supervise", &unshare, words, directory.path()).unwrap();
        Self { child, _directory: directory }
    }

    /// A script whose name the process keeps: `sh`.
    fn script(text: &str) -> Self {
        Self::start(&["sh", "-c", text])
    }

    /// The supervisor itself.
    fn init(&self) -> u32 {
        until("the supervisor's start", || {
            children(self.child.pid()).into_iter().find(|pid| comm(*pid) == "understudy-init")
        })
    }

    /// The program, once it is another than `last`.
    fn program(&self, name: &str, last: u32) -> u32 {
        let init = self.init();
        until(&format!("a start of {name}:\n{}", self.child.output()), || {
            children(init).into_iter().find(|pid| *pid != last && comm(*pid) == name)
        })
    }

    fn ends_with(mut self, code: i32) -> String {
        let status = self.child.wait(LIMIT).unwrap();
        assert_eq!(status.code(), Some(code), "{}", self.child.output());
        self.child.output()
    }
}

#[test]
fn a_killed_program_comes_back_and_what_it_left_behind_lives_on() {
    if !is_possible("a killed program") {
        return;
    }
    // Each life leaves one sleeper behind.
    let stage = Supervised::script("sleep 600 & while :; do sleep 0.01; done");
    let init = stage.init();
    let mut program = 0;
    let mut orphans = Vec::new();
    for _ in 0..4 {
        program = stage.program("sh", program);
        let orphan = until("its sleeper", || {
            children(program).into_iter().find(|pid| {
                std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.contains("600"))
            })
        });
        orphans.push(orphan);
        signal(program, Signal::KILL);
        until("adoption", || children(init).contains(&orphan).then_some(()));
    }
    stage.program("sh", program);
    assert!(orphans.iter().all(|pid| is_alive(*pid)), "{orphans:?}\n{}", stage.child.output());

    // What ends is reaped: no zombie stays.
    signal(orphans[0], Signal::KILL);
    let gone = format!("/proc/{}", orphans[0]);
    until("reaping", || (!Path::new(&gone).exists()).then_some(()));

    // Told to end, all of it ends: it is the first process.
    signal(init, Signal::TERM);
    let log = stage.ends_with(128 + 15);
    assert_eq!(log.matches("signal 9; starting it again").count(), 4, "{log}");
    until("the end of all", || (!orphans.iter().any(|pid| is_alive(*pid))).then_some(()));
}

#[test]
fn a_signal_is_passed_on_and_the_exit_status_too() {
    if !is_possible("a signal that is passed on") {
        return;
    }
    for (sent, code) in [(Signal::TERM, 7), (Signal::INT, 9)] {
        let stage = Supervised::script(
            "trap 'exit 7' TERM; trap 'exit 9' INT; echo ready; while :; do sleep 0.01; done",
        );
        until("its start", || stage.child.output().contains("ready").then_some(()));
        signal(stage.init(), sent);
        stage.ends_with(code);
    }
}

#[test]
fn a_program_that_ends_cleanly_by_itself_is_not_started_again() {
    if !is_possible("a program that ends") {
        return;
    }
    let log = Supervised::script("echo once").ends_with(0);
    assert_eq!(log.lines().filter(|line| *line == "once").count(), 1, "{log}");
}

#[test]
fn a_program_that_does_not_come_up_is_given_up_with_its_exit_status() {
    if !is_possible("a program that fails") {
        return;
    }
    let log = Supervised::script("echo up; exit 3").ends_with(3);
    assert_eq!(log.lines().filter(|line| *line == "up").count(), 8, "{log}");
    assert!(log.contains("exit status 3") && log.contains("giving up"), "{log}");
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    if !is_possible("a program that does not exist") {
        return;
    }
    let log = Supervised::start(&["/no/such/program"]).ends_with(1);
    assert!(log.contains("can't start /no/such/program: No such file"), "{log}");
}

#[test]
fn a_killed_attach_daemon_is_back_and_its_device_never_noticed() {
    use understudy_core::engine::api::{ByteLen, Generation, Member, Policy, Role, Start};
    let test = "a killed attach daemon";
    if !is_possible(test) || !possible(test) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let engine =
        understudy_tests::harness::engine::Engine::start("a", directory.path(), &[]).unwrap();
    let volume = format!("supervised-{}", std::process::id()).parse().unwrap();
    let generation = Generation { number: 2, id: 77 };
    let member = Member { volume, size: ByteLen(8 << 20) };
    engine.create_replica(&member).unwrap();
    let volume = member.volume.clone();
    let start = Start {
        group: volume.clone(),
        generation,
        role: Role::Primary,
        members: vec![member],
        peer: None,
        policy: Policy::default(),
        inbound: false,
        adopt: false,
    };
    engine.start_group(&start).unwrap();
    let daemon = tools::own("understudy-attachd").unwrap().display().to_string();
    let words = [
        daemon,
        "serve".into(),
        "--socket".into(),
        path("attach.sock"),
        "--state".into(),
        path("attach"),
    ];
    let stage = Supervised::start(&words);
    let attachd = Attachd::beside(directory.path()).unwrap();
    until("the daemon's answer", || attachd.list().ok());
    let device = attachd.attach(&attach_to(&engine, &volume, generation)).unwrap();
    let mut last = 0;
    for round in 1..=3_u8 {
        last = stage.program("understudy-atta", last);
        signal(last, Signal::KILL);
        // Without the daemon, too.
        std::fs::write(&device.path, [round; 4096]).unwrap();
        until("the daemon's return", || attachd.list().ok().filter(|found| found.len() == 1));
        let found = attachd.device(&volume).unwrap();
        assert_eq!(
            (&found.path, found.session, found.io.errors),
            (&device.path, device.session, 0)
        );
        assert_eq!(std::fs::read(&device.path).unwrap()[..4096], [round; 4096]);
    }
    attachd.detach(&volume).unwrap();
    // Its end, asked for, is clean.
    signal(stage.init(), Signal::TERM);
    stage.ends_with(0);
}
