//! A trace through a QEMU pair.

use std::io::Write;
use std::path::Path;

use anyhow::Result;

use super::{Pair, PairOptions};
use crate::harness::nbd::Client;
use crate::trace::{Digests, Operation, Step, apply, digest, digest_file};

/// Replays `steps` on a fresh pair in `directory` and prints one line a step.
pub fn replay(steps: &[Step], size: u64, directory: &Path, out: &mut dyn Write) -> Result<()> {
    let mut pair = Pair::start(directory, PairOptions::within(directory, size))?;
    let mut primary = Client::connect(&pair.primary_export())?;
    let mut view = Some(Client::connect(&pair.view_export())?);
    let mut disk = Some(pair.secondary_disk()?);
    for step in steps {
        let outcome = match step.operation {
            Operation::Checkpoint => {
                pair.checkpoint()?;
                Ok(())
            }
            Operation::Failover => {
                drop((view.take(), disk.take()));
                pair.failover()?;
                view = Some(Client::connect(&pair.view_export())?);
                Ok(())
            }
            Operation::SecondaryWrite { .. } => apply(&step.operation, view.as_mut()),
            _ => apply(&step.operation, Some(&mut primary)),
        };
        let on_disk = match disk.as_mut() {
            Some(disk) => digest(disk, size)?,
            None => digest_file(&pair.disk_path("parent"))?,
        };
        let digests = Digests {
            primary: if disk.is_some() { Some(digest(&mut primary, size)?) } else { None },
            view: view.as_mut().map(|view| digest(view, size)).transpose()?,
            disk: on_disk,
        };
        writeln!(out, "{}", step.line(&outcome, &digests))?;
        out.flush()?;
    }
    Ok(())
}
