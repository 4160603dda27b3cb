//! The VM: everything that uses the volumes, on devices, at the same time.
//!
//! ```text
//!   each volume   │ 0 ledger 2 MiB │ 4 probe 4 MiB │ 8 fio 8 MiB │
//!                    one, over both   one each        one each
//! ```
//!
//! No request may fail, but for those of a VM whose node is lost.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::probe::{Probe, SlowOnes, Zone};
use super::stage::{Stage, VOLUMES};
use crate::harness::fio::{self, Fio};
use crate::ledger::{KeepOptions, Life, Plan};

/// How many places the ledger has on each volume, and how long each is.
const SLOTS: u64 = 512;
const RECORD: u64 = 4096;

/// Between two records: the machine has other things to do.
const PAUSE: Duration = Duration::from_millis(1);

const PROBE: Zone = Zone { at: 4 << 20, len: 4 << 20 };
const FIO: Zone = Zone { at: 8 << 20, len: 8 << 20 };

/// What fio writes of each volume in a second, at most, in bytes. It fills the window of a hung peer in
/// less than a second and leaves a slow link far behind.
const FIO_RATE: u64 = 8 << 20;

/// How long fio may take to write for the first time.
const BEGIN: Duration = Duration::from_secs(20);

/// The ledger's layout; it is one ledger from the first round to the last.
pub(super) fn ledger_plan(owner: u32) -> Result<Plan> {
    Plan::new(u64::from(owner), VOLUMES, RECORD, SLOTS, 0)
}

/// A VM that runs.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    ledger: JoinHandle<Result<Option<anyhow::Error>>>,
    /// Where what the ledger completed is noted.
    pub(super) journal: PathBuf,
    probes: Vec<Probe>,
    fio: Fio,
}

/// What it saw.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ran {
    /// How many bytes the probes read that they had not written.
    pub(super) wrong: u64,
    pub(super) fio: fio::Found,
}

impl Load {
    /// Starts it on the devices of the stage.
    pub(super) fn start(stage: &Stage, plan: &Plan, seed: u64, slow: &SlowOnes) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let options = KeepOptions {
            plan: plan.clone(),
            targets: stage.device_names(),
            journals: stage.directory.join("ledger"),
            pause: PAUSE,
        };
        let mut said = Vec::new();
        let life = Life::begin(&options, &mut said);
        let life = life.with_context(|| String::from_utf8_lossy(&said).into_owned())?;
        let journal = life.journal().to_owned();
        let stopped = stop.clone();
        let ledger = std::thread::spawn(move || life.write(&options, &stopped));
        let probe = |(device, seed): (&PathBuf, u64)| {
            Probe::start(device.clone(), PROBE, seed, stop.clone(), slow.clone())
        };
        let probes = stage.devices.iter().zip(seed..).map(probe).collect();
        let part =
            |device: &PathBuf| fio::Part { device: device.clone(), at: FIO.at, len: FIO.len };
        let parts: Vec<_> = stage.devices.iter().map(part).collect();
        let fio = Fio::start("fio", &stage.directory, &parts, FIO_RATE)?;
        Ok(Self { stop, ledger, journal, probes, fio })
    }

    /// An error as soon as something of it has ended, which it must not.
    pub(super) fn must_run(&mut self) -> Result<()> {
        ensure!(self.fio.is_running(), "fio has ended: a request failed, or a read was wrong");
        ensure!(!self.ledger.is_finished(), "the ledger has ended: a request failed");
        Ok(())
    }

    /// Waits until fio has written as much as its part of one volume: on a busy machine it begins late.
    pub(super) fn works(&mut self) -> Result<()> {
        let end = Instant::now() + BEGIN;
        while self.fio.written() < FIO.len {
            self.must_run()?;
            ensure!(Instant::now() < end, "fio has written next to nothing in {BEGIN:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Shuts it down; no request may have failed.
    pub(super) fn stop(self) -> Result<Ran> {
        self.stop.store(true, Ordering::Relaxed);
        // First fio: the others are done in a moment, and then it alone would have the machine.
        let fio = self.fio.stop();
        let ledger = self.ledger.join().map_err(|_| anyhow!("the ledger ended badly"))?;
        let wrong: Result<Vec<u64>> = self.probes.into_iter().map(Probe::end).collect();
        if let Some(error) = ledger? {
            return Err(error.context("a write of the ledger failed"));
        }
        Ok(Ran { wrong: wrong?.into_iter().sum(), fio: fio? })
    }

    /// Its node is lost: its devices fail, and whatever it was at ends. Nothing of that counts.
    pub(super) fn die(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let _wrong = self.fio.stop();
        let ledger = self.ledger.join().map_err(|_| anyhow!("the ledger ended badly"))?;
        for probe in self.probes {
            let _failed = probe.end();
        }
        ledger.map(drop)
    }
}
