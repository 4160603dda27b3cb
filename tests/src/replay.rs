//! A trace through two real engines, in the very form that [`crate::qemu::replay`] prints.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, ensure};
use understudy_core::engine::api::{ExportKind, Policy};

use crate::harness::engines::{Engines, EnginesOptions};
use crate::trace::{Digests, Operation, Step, apply, digest, digest_file};

/// Replays `steps` on two fresh engines in `directory` and prints one line a step.
pub fn replay(steps: &[Step], size: u64, directory: &Path, out: &mut dyn Write) -> Result<()> {
    let policy = Policy { checkpoint_interval: None, ..Policy::default() };
    let mut engines = Engines::start(directory, &EnginesOptions::new(&[size], policy))?;
    let volume = engines.members[0].volume.clone();
    let mut primary = Some(engines.open_primary(&volume)?);
    let mut view = engines.open_on_secondary(&volume, ExportKind::View)?;
    let mut disk = Some(engines.open_on_secondary(&volume, ExportKind::Secondary)?);
    for step in steps {
        let outcome = match step.operation {
            Operation::Checkpoint => {
                engines.checkpoint().map(drop).map_err(|error| format!("{error:#}"))
            }
            Operation::Failover => {
                drop((primary.take(), disk.take()));
                engines.primary.kill();
                engines.failover(true)?;
                view = engines.open_on_secondary(&volume, ExportKind::Primary)?;
                // What is served while the roll-back is merged is what is there afterwards.
                let during = digest(&mut view, size)?;
                engines.wait_for_commit()?;
                let after = digest(&mut view, size)?;
                ensure!(during == after, "the commit changed what is read: {during}, then {after}");
                Ok(())
            }
            Operation::SecondaryWrite { .. } => apply(&step.operation, Some(&mut view)),
            Operation::Write { .. }
            | Operation::Zeroes { .. }
            | Operation::Discard { .. }
            | Operation::Flush => apply(&step.operation, primary.as_mut()),
        };
        if primary.is_some() {
            engines.quiesce()?;
        }
        let digests = Digests {
            primary: primary.as_mut().map(|disk| digest(disk, size)).transpose()?,
            view: Some(digest(&mut view, size)?),
            disk: match disk.as_mut() {
                Some(disk) => digest(disk, size)?,
                None => digest_file(&engines.secondary.disk_path(&volume))?,
            },
        };
        writeln!(out, "{}", step.line(&outcome, &digests))?;
        out.flush()?;
    }
    Ok(())
}
