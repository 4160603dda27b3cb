//! `understudyd supervise -- PROGRAM …`: the first process of a container.
//!
//! ```text
//!   SIGTERM, SIGINT ──► understudy-init ──► PROGRAM          started again when it dies (policy)
//!                              ▲               └── children: orphans when it dies, ours from then on;
//!                              └────────────────── they live on, and are reaped
//! ```
//!
//! A container ends with its first process, and all its processes with it. Were that the daemon itself,
//! its crash would end the processes that hold devices, and whoever runs the container would wait ever
//! longer before starting it again, and VMs with it.

mod policy;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tracing::{error, info, warn};

use policy::{End, Life, Next, Policy};

/// What the process calls itself: whoever looks for the program by its name must not find us.
const NAME: &std::ffi::CStr = c"understudy-init";

/// The exit status of a program that can't be started, as shells have it.
const NOT_STARTED: u8 = 127;

/// Runs the program until it ends for good; the exit status to end with.
pub fn run(command: &[OsString]) -> anyhow::Result<u8> {
    rustix::thread::set_name(NAME).context("can't take a name")?;
    // Orphans come to us also where we are not the first process.
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).context("can't adopt orphans")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut heard = Heard::new().context("can't listen for signals")?;
        supervise(command, &mut heard).await
    })
}

async fn supervise(command: &[OsString], heard: &mut Heard) -> anyhow::Result<u8> {
    let (program, arguments) = command.split_first().context("which program?")?;
    let name = program.display();
    let mut policy = Policy::default();
    let mut first = true;
    loop {
        let began = Instant::now();
        // A group of its own: a terminal's interrupt comes to it once, from us.
        let started = Command::new(program).args(arguments).process_group(0).spawn();
        let (end, told) = match started {
            Ok(child) => {
                let pid = Pid::from_child(&child);
                info!("{name} runs as process {pid}");
                live(pid, heard).await?
            }
            Err(e) if first => return Err(e).with_context(|| format!("can't start {name}")),
            Err(e) => {
                error!("can't start {name}: {e}");
                (End::Exit(NOT_STARTED), false)
            }
        };
        first = false;
        let life = Life { end, length: began.elapsed(), told, others: reap(None)?.others };
        match policy.after(life) {
            Next::Finish(code) => {
                info!("{name} ended after {:?}: {end}", life.length);
                return Ok(code);
            }
            Next::GiveUp(code) => {
                error!(
                    "{name} died after {:?}: {end}; it does not stay up: giving up",
                    life.length
                );
                return Ok(code);
            }
            Next::Restart(pause) => {
                warn!("{name} died after {:?}: {end}; starting it again in {pause:?}", life.length);
                if heard.told_within(pause).await? {
                    return Ok(end.code());
                }
            }
        }
    }
}

/// Waits for the program's end, and passes signals on; whether there were any. It has as long as whoever
/// sent the signal gives it: that one ends us, too.
async fn live(pid: Pid, heard: &mut Heard) -> anyhow::Result<(End, bool)> {
    let mut told = false;
    loop {
        if let Some(end) = reap(Some(pid))?.end {
            return Ok((end, told));
        }
        if let Some(signal) = heard.next().await {
            told = true;
            match rustix::process::kill_process(pid, signal) {
                // It has ended just now.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(e) => warn!("can't pass {signal:?} on to process {pid}: {e}"),
            }
        }
    }
}

/// What a look at the children showed.
#[derive(Default)]
struct Reaped {
    /// How the program ended, if it did.
    end: Option<End>,
    /// Whether any child lives.
    others: bool,
}

/// Takes note of every child that has ended.
fn reap(program: Option<Pid>) -> anyhow::Result<Reaped> {
    let mut reaped = Reaped::default();
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let Some(end) = end(status) else { continue };
                if Some(pid) == program {
                    reaped.end = Some(end);
                } else {
                    info!("process {pid}, left behind by the program, ended: {end}");
                }
            }
            Ok(None) => {
                reaped.others = true;
                return Ok(reaped);
            }
            Err(Errno::CHILD) => return Ok(reaped),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e).context("can't wait for children"),
        }
    }
}

/// `None`: it was only stopped.
fn end(status: WaitStatus) -> Option<End> {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    let exit = status.exit_status().map(|code| End::Exit(byte(code)));
    exit.or_else(|| status.terminating_signal().map(|signal| End::Signal(byte(signal))))
}

/// The signals that matter.
struct Heard {
    child: Signals,
    terminate: Signals,
    interrupt: Signals,
}

impl Heard {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// `None`: a child has ended.
    async fn next(&mut self) -> Option<Signal> {
        tokio::select! {
            _ = self.terminate.recv() => Some(Signal::TERM),
            _ = self.interrupt.recv() => Some(Signal::INT),
            _ = self.child.recv() => None,
        }
    }

    /// Waits; whether we were told to end meanwhile. Children are reaped.
    async fn told_within(&mut self, pause: Duration) -> anyhow::Result<bool> {
        let until = tokio::time::Instant::now() + pause;
        loop {
            match tokio::time::timeout_at(until, self.next()).await {
                Ok(Some(_)) => return Ok(true),
                Ok(None) => {
                    reap(None)?;
                }
                Err(_) => return Ok(false),
            }
        }
    }
}
