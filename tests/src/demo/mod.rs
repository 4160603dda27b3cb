//! The main job as a story: disks full of files survive the SIGKILL of their primary.
//!
//! ```text
//!   ext4 images ──NBD──► engine a ──link──► engine b            operator standalone DIR
//!        │                  │ checkpoints under load                │ manifests in, status out
//!        │                  ✗ SIGKILL           └─ failover ◄───────┘
//!        └──────────── compare every byte and every file ──► one verdict
//! ```
//!
//! Nothing here knows how the engines work inside: it uses the manifests, the status files and NBD.

mod check;
mod image;
mod load;
mod stage;
mod tell;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::check::Expected;
use self::stage::Stage;
use self::tell::Teller;

/// How a demo is run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Alter one byte of a promoted volume before the check, as VOLUME:OFFSET (as 1:4096): the demo
    /// must then fail and say where.
    #[arg(long, value_name = "VOLUME:OFFSET", value_parser = place)]
    pub alter: Option<(usize, u64)>,
    /// The seed of the files' content.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

fn place(text: &str) -> Result<(usize, u64), String> {
    let wrong = || format!("'{text}' is no place: write VOLUME:OFFSET, as in 1:4096");
    let (volume, offset) = text.split_once(':').ok_or_else(wrong)?;
    Ok((volume.parse().map_err(|_| wrong())?, offset.parse().map_err(|_| wrong())?))
}

/// How long checkpoints run under load.
const UNDER_LOAD: Duration = Duration::from_secs(4);

/// Plays the story in `directory`; success only if everything held.
pub fn run(options: &Options, directory: &std::path::Path) -> Result<ExitCode> {
    let mut tell = Teller::new();
    if options.alter.is_some_and(|(volume, _)| volume >= image::VOLUMES.len()) {
        bail!("--alter: there are volumes 0 to {}", image::VOLUMES.len() - 1);
    }

    tell.chapter("Two ext4 images full of files, and two nodes with nothing on them");
    let images = image::make(directory, options.seed)?;
    for i in &images {
        tell.say(&format!(
            "{}: {} files in an ext4 file system of {} MiB",
            i.volume,
            i.files,
            i.bytes >> 20
        ));
    }
    let mut stage = Stage::start(directory)?;
    tell.say(
        "engine node-a, engine node-b (understudyd) and understudy-operator standalone are up",
    );

    tell.chapter("A BlockReplication: both volumes, one group, a checkpoint each 250 ms");
    tell.manifest(&stage.declare("250ms")?);
    let status =
        stage.wait("the first checkpoint", |s| s.state == "Running" && s.checkpoint > 0)?;
    tell.status(&status);

    tell.chapter(
        "The images are written to the volumes through NBD, then load, checkpoints running",
    );
    for image in &images {
        stage.fill(image)?;
    }
    let load = load::Load::start(&stage, &images)?;
    tell.while_running(UNDER_LOAD, || stage.status())?;
    let written = load.stop()?;
    tell.say(&format!(
        "the load wrote {written} blocks of 4 KiB and none of them waited for a checkpoint"
    ));

    tell.chapter("One more checkpoint by hand, then the clock is stopped: no further one comes");
    stage.declare("24h")?;
    stage.checkpoint("before-the-crash")?;
    let expected = Expected::read(&stage, &images)?;
    let status = stage.status()?;
    tell.status(&status);
    let agreed = status.checkpoint;
    tell.say(&format!(
        "checkpoint {agreed} is complete; what the volumes hold now is what must come back"
    ));

    tell.chapter("After that checkpoint the VM ruins both file systems, and node-a dies");
    stage.ruin(&images)?;
    let status = stage.wait("the ruin on the other node", |s| s.at_risk > 0 && s.missing == 0)?;
    stage.settle()?;
    tell.status(&status);
    tell.say("node-b's disks hold the ruin as well: every write was streamed there");
    let died = std::time::Instant::now();
    stage.kill_primary();
    tell.mark("SIGKILL of node-a's engine");

    tell.chapter("Failover by hand: the generation to replace, and the node that takes over");
    tell.manifest(&stage.fail_over(&status)?);
    let promoted = stage.wait("the promotion", |s| s.primary == "node-b" && s.is_served())?;
    tell.mark("node-b is primary");
    let (first, ready) = stage.first_byte(&images)?;
    tell.mark("first byte read from a promoted volume");
    tell.status(&promoted);

    if let Some((volume, offset)) = options.alter {
        stage.alter(&images, volume, offset)?;
        tell.say(&format!("(as asked: one byte of volume {volume} at {offset} was altered)"));
    }

    tell.chapter("Is it the state of the checkpoint? Every byte and every file, while the roll-back is merged");
    let mut faults = Vec::new();
    faults.extend(check::content(&stage, &expected, "while merging")?);
    stage.wait("the merge", |s| s.stage == "Done")?;
    tell.mark("the roll-back is merged");
    faults.extend(check::content(&stage, &expected, "after the merge")?);
    for image in &images {
        faults.extend(check::files(&stage, image, directory)?);
    }
    let outage = ready.saturating_duration_since(died);
    drop(stage);
    drop(first);
    tell.timeline(outage);
    if faults.is_empty() {
        tell.verdict(
            true,
            "both volumes came back as checkpoint said, byte for byte and file for file",
        );
        return Ok(ExitCode::SUCCESS);
    }
    for fault in &faults {
        tell.say(fault);
    }
    tell.verdict(false, &format!("{} differences", faults.len()));
    Ok(ExitCode::FAILURE)
}

/// A temporary directory of the demo, with its reason if it can't be made.
pub fn directory() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("understudy-demo-")
        .tempdir()
        .context("cannot make a temporary directory")
}
