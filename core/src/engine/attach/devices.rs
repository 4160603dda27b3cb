//! The devices of a node: what each call does, and how what was left half-done is finished.
//!
//! ```text
//!   attach   record ─► OpenSession ─► record ─► holder ─► ready
//!   detach   holder releases ─► CloseSession ─► files ─► record        ◄── also when the holder is dead
//!   start    every record: held ─► stays │ left over ─► removed, unless somebody has its device open
//! ```
//!
//! All of it blocks, and runs on threads that may. One call at a time for each volume.

mod session;
mod told;

pub(super) use told::refused;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tracing::{info, warn};

use super::api::{Attach, Device, DeviceState, Generation, VolumeId};
use super::holders;
use crate::attach::steps::reached;
use crate::attach::{
    Answer, Ask, Cleared, Network, Record, Refused, StateDirectory, Status, ask, clear, find, probe,
};
use crate::engine::api::Refusal;
use crate::engine::error::EngineError;
use told::{device, in_use, same};

type Result<T> = std::result::Result<T, EngineError>;

/// How long a holder may take to answer; a release waits for a last flush, a resize for the engine.
const ANSWER: Duration = Duration::from_secs(15);

/// How long it may take to say how it stands.
const STATUS: Duration = Duration::from_secs(2);

/// A device that seems in use may only be looked at by udev: asked so often, after pauses.
const RELEASE: (u32, Duration) = (5, Duration::from_millis(100));

/// How long a holder may take to end once it said that it does, or said nothing any more.
const END: Duration = Duration::from_secs(5);

/// The devices of one state directory.
pub(super) struct Devices {
    state: StateDirectory,
    network: Network,
    runtime: Handle,
    busy: Mutex<BTreeMap<VolumeId, Arc<Mutex<()>>>>,
    /// One daemon for one directory.
    _lock: File,
}

/// What there is of a volume's device.
enum Found {
    Nothing,
    /// Its holder lives.
    Held(Record),
    /// Its holder is dead; the lock is ours.
    Left(Record, File),
}

impl Drop for Devices {
    fn drop(&mut self) {
        if let Err(e) = self.state.leave() {
            warn!("{} keeps its lock's file: {e}", self.state.path().display());
        }
    }
}

impl std::fmt::Debug for Devices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Devices({})", self.state.path().display())
    }
}

fn system(what: &str) -> impl Fn(std::io::Error) -> EngineError {
    let what = what.to_owned();
    move |e| EngineError::new(Refusal::Internal, format!("{what}: {e}"))
}

impl Devices {
    /// Takes the directory, and finds again what is attached.
    pub(super) fn open(state: StateDirectory, network: Network, runtime: Handle) -> Result<Self> {
        let lock = state.lock().map_err(system("can't lock the state directory"))?;
        let Some(lock) = lock else {
            let path = state.path().display();
            let text = format!("{path} belongs to an attach daemon that runs: stop it first");
            return Err(EngineError::new(Refusal::Unavailable, text));
        };
        let devices = Self { state, network, runtime, busy: Mutex::default(), _lock: lock };
        devices.state.sweep().map_err(system("can't tidy up the state directory"))?;
        for volume in devices.volumes()? {
            match devices.look(&volume)? {
                Found::Nothing => {}
                Found::Held(record) => info!(%volume, export = record.export(), "found attached"),
                Found::Left(record, lock) => match devices.forget(&volume, &record, lock) {
                    Ok(()) => info!(%volume, "removed what was left of its device"),
                    Err(e) => warn!("what is left of the device of {volume} stays: {e}"),
                },
            }
        }
        Ok(devices)
    }

    fn volumes(&self) -> Result<Vec<VolumeId>> {
        self.state.volumes().map_err(system("can't read the state directory"))
    }

    /// The one at a time of a volume.
    fn turn(&self, volume: &VolumeId) -> Arc<Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|_, turn| Arc::strong_count(turn) > 1);
        busy.entry(volume.clone()).or_default().clone()
    }

    fn look(&self, volume: &VolumeId) -> Result<Found> {
        let failed = system("can't read the state directory");
        let Some(record) = self.state.read(volume).map_err(&failed)? else {
            return Ok(Found::Nothing);
        };
        Ok(match self.state.lock_volume(volume).map_err(failed)? {
            Some(lock) => Found::Left(record, lock),
            None => Found::Held(record),
        })
    }

    fn ask(&self, record: &Record, question: &Ask, limit: Duration) -> Result<Answer> {
        ask(&self.state.socket(&record.id), question, limit).map_err(|e| {
            let text = format!("{}: {e}: try again, or look for its process", record.volume);
            EngineError::new(Refusal::Unavailable, text)
        })
    }

    fn status(&self, record: &Record, question: &Ask, limit: Duration) -> Result<Device> {
        match self.ask(record, question, limit)? {
            Answer::Status(status) => device(record, status),
            Answer::Refused { why, message } => Err(refused(&record.volume, why, &message)),
            Answer::Released => {
                Err(EngineError::new(Refusal::Internal, "a holder ended that was not asked to"))
            }
        }
    }

    /// Makes a device, or says which one there is.
    pub(super) fn attach(&self, attach: &Attach) -> Result<Device> {
        let turn = self.turn(&attach.volume);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let volume = &attach.volume;
        probe().map_err(|e| EngineError::new(Refusal::Unimplemented, e.to_string()))?;
        let reached = self.network.certificates(&attach.engine.nbd);
        reached.map_err(|text| EngineError::new(Refusal::WrongState, text))?;
        match self.look(volume)? {
            Found::Nothing => {}
            Found::Left(record, lock) => self.forget(volume, &record, lock)?,
            Found::Held(record) => {
                let there = self.status(&record, &Ask::Status, ANSWER)?;
                if there.generation == attach.generation && there.state != DeviceState::Gone {
                    return same(there, attach);
                }
                if let Some(there) = self.adopted(&record, &there, attach) {
                    return same(there, attach);
                }
                self.release(volume, &record).map_err(|e| {
                    let (path, old) = (there.path.display(), there.generation);
                    let state = there.error.unwrap_or_else(|| there.state.to_string());
                    e.context(format!(
                        "{volume} is attached as {path} under generation {old} ({state}): end what uses \
                         it before it is attached under {}",
                        attach.generation
                    ))
                })?;
            }
        }
        self.make(attach)
    }

    fn make(&self, attach: &Attach) -> Result<Device> {
        let volume = &attach.volume;
        let failed = system("can't write the state directory");
        reached("attach.begun");
        let lock = self.state.lock_volume(volume).map_err(&failed)?.ok_or_else(|| {
            EngineError::new(
                Refusal::Unavailable,
                format!("{volume}: its lock is taken: try again"),
            )
        })?;
        let mut record = Record {
            version: Record::version(),
            id: holders::new_id().map_err(system("no randomness"))?,
            volume: volume.to_string(),
            generation: attach.generation.to_string(),
            engine_api: attach.engine.api.to_string(),
            engine_nbd: attach.engine.nbd.to_string(),
            read_only: attach.read_only,
            session: None,
        };
        self.state.write(volume, &record).map_err(&failed)?;
        reached("attach.recorded");
        let made = self.open_session(attach).and_then(|session| {
            reached("attach.session-opened");
            record.session = session;
            self.state.write(volume, &record).map_err(&failed)?;
            reached("attach.session-recorded");
            let starting = holders::start(&self.state, &self.network, volume, &record.id, &lock);
            self.runtime.block_on(starting)
        });
        match made {
            Ok(status) => {
                reached("attach.holder-ready");
                device(&record, status)
            }
            Err(e) => {
                // The lock is shared with the holder, which is dead.
                if let Err(left) = self.forget(volume, &record, lock) {
                    warn!("what is left of the device of {volume} stays: {left}");
                }
                Err(e)
            }
        }
    }

    /// Removes the device of a volume.
    pub(super) fn detach(&self, volume: &VolumeId) -> Result<()> {
        let turn = self.turn(volume);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        match self.look(volume)? {
            Found::Nothing => Ok(()),
            Found::Held(record) => self.release(volume, &record),
            Found::Left(record, lock) => self.forget(volume, &record, lock),
        }
    }

    /// Has a living holder remove its device and end, and removes the rest.
    fn release(&self, volume: &VolumeId, record: &Record) -> Result<()> {
        reached("detach.begun");
        let mut tries = RELEASE.0;
        loop {
            match self.ask(record, &Ask::Release, ANSWER) {
                Ok(Answer::Refused { why: Refused::InUse, .. }) if tries > 1 => {
                    tries -= 1;
                    std::thread::sleep(RELEASE.1);
                }
                Ok(Answer::Refused { why: Refused::InUse, message }) => {
                    return Err(in_use(record, &message));
                }
                Ok(Answer::Refused { why, message }) => {
                    return Err(refused(&record.volume, why, &message));
                }
                // No answer: it may be dying just now.
                Ok(Answer::Released | Answer::Status(_)) | Err(_) => break,
            }
        }
        reached("detach.released");
        let until = Instant::now() + END;
        loop {
            match self.look(volume)? {
                Found::Nothing => return Ok(()),
                Found::Left(record, lock) => return self.forget(volume, &record, lock),
                Found::Held(_) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Found::Held(_) => {
                    let text =
                        format!("the holder of {volume} neither answers nor ends: try again");
                    return Err(EngineError::new(Refusal::Unavailable, text));
                }
            }
        }
    }

    /// Removes everything of a device that has no holder, its record last.
    fn forget(&self, volume: &VolumeId, record: &Record, lock: File) -> Result<()> {
        let cleared = clear(&record.id).map_err(system("can't release a loop device"))?;
        if let Cleared::InUse(path) = cleared {
            return Err(in_use(
                record,
                &format!("{}, whose holder is dead, is in use", path.display()),
            ));
        }
        self.close_session(record);
        reached("detach.session-closed");
        let failed = system("can't write the state directory");
        self.state.remove_rest(volume, &record.id).map_err(&failed)?;
        reached("detach.files-removed");
        self.state.remove(volume).map_err(failed)?;
        reached("detach.forgotten");
        drop(lock);
        Ok(())
    }

    /// Gives the device the length that the volume has.
    pub(super) fn resize(&self, volume: &VolumeId) -> Result<Device> {
        let turn = self.turn(volume);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let record = self.held(volume)?;
        self.status(&record, &Ask::Resize, ANSWER)
    }

    /// Makes every request of the device fail.
    pub(super) fn fail(
        &self,
        volume: &VolumeId,
        generation: Generation,
        reason: &str,
    ) -> Result<Device> {
        let turn = self.turn(volume);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let record = self.held(volume)?;
        if record.generation != generation.to_string() {
            let text = format!("{volume} is attached under generation {}", record.generation);
            return Err(EngineError::new(Refusal::WrongState, text));
        }
        self.status(&record, &Ask::Fail { reason: reason.to_owned() }, ANSWER)
    }

    fn held(&self, volume: &VolumeId) -> Result<Record> {
        match self.look(volume)? {
            Found::Held(record) => Ok(record),
            Found::Nothing => {
                let text = format!("{volume} is not attached on this node");
                Err(EngineError::new(Refusal::NotFound, text))
            }
            Found::Left(..) => {
                let text =
                    format!("the holder of {volume} is dead: detach it, and attach it again");
                Err(EngineError::new(Refusal::WrongState, text))
            }
        }
    }

    /// All devices, by volume; not those that are just coming or going.
    pub(super) fn list(&self) -> Result<Vec<Device>> {
        let mut devices = Vec::new();
        for volume in self.volumes()? {
            let record = self.state.read(&volume).map_err(system("can't read a record"))?;
            let Some(record) = record else { continue };
            match self.status(&record, &Ask::Status, STATUS) {
                Ok(device) => devices.push(device),
                Err(e) => devices.extend(self.silent(&volume, &record, &e)?),
            }
        }
        Ok(devices)
    }

    /// What there is of a device whose holder says nothing.
    fn silent(
        &self,
        volume: &VolumeId,
        record: &Record,
        why: &EngineError,
    ) -> Result<Option<Device>> {
        let turn = self.turn(volume);
        let Ok(_turn) = turn.try_lock() else { return Ok(None) };
        let (state, error) = match self.look(volume)? {
            Found::Nothing => return Ok(None),
            Found::Held(_) => (DeviceState::Waiting, why.to_string()),
            Found::Left(record, lock) => {
                if self.forget(volume, &record, lock).is_ok() {
                    return Ok(None);
                }
                (DeviceState::Gone, "its holder is dead: detach it once nothing uses it".to_owned())
            }
        };
        let found = find(&record.id).map_err(system("can't read loop devices"))?;
        found
            .map(|(path, size)| {
                let status = Status {
                    path,
                    size,
                    state,
                    error: Some(error),
                    reconnects: 0,
                    longest_stall: 0,
                    io: crate::attach::IoCounters::default(),
                };
                device(record, status)
            })
            .transpose()
    }
}
