//! Records, statuses and refusals of holders, in the words of the API.

use std::time::Duration;

use super::Result;
use crate::attach::{Record, Refused, Status, find, users_of};
use crate::engine::api::Refusal;
use crate::engine::attach::api::{Attach, ByteLen, Device, EngineAddresses};
use crate::engine::error::EngineError;

/// The device that is there, if it is what is asked for.
pub(super) fn same(there: Device, attach: &Attach) -> Result<Device> {
    if there.read_only == attach.read_only {
        return Ok(there);
    }
    let how = if there.read_only { "read-only" } else { "writable" };
    let text = format!("{} is attached {how}: detach it first", attach.volume);
    Err(EngineError::new(Refusal::Exists, text))
}

pub(super) fn in_use(record: &Record, message: &str) -> EngineError {
    let path = find(&record.id).ok().flatten().map(|(path, _)| path);
    let users = path.map(|path| users_of(&path)).unwrap_or_default();
    let users = if users.is_empty() {
        "by something that can't be seen from here".to_owned()
    } else {
        users.join(", ")
    };
    let text = format!("{}: {message}: {users}; unmount or close it first", record.volume);
    EngineError::new(Refusal::WrongState, text)
}

/// A holder's refusal, as the API says it.
pub(in crate::engine::attach) fn refused(volume: &str, why: Refused, message: &str) -> EngineError {
    let refusal = match why {
        Refused::InUse | Refused::Gone => Refusal::WrongState,
        Refused::Away => Refusal::Unavailable,
        Refused::System => Refusal::Internal,
    };
    EngineError::new(refusal, format!("{volume}: {message}"))
}

pub(super) fn device(record: &Record, status: Status) -> Result<Device> {
    let bad = |e: crate::units::ParseError| {
        EngineError::new(Refusal::DataLoss, format!("the record of {}: {e}", record.volume))
    };
    Ok(Device {
        volume: record.volume.parse().map_err(bad)?,
        generation: record.generation.parse().map_err(bad)?,
        path: status.path,
        size: ByteLen(status.size),
        read_only: record.read_only,
        state: status.state,
        error: status.error,
        session: record.session,
        reconnects: status.reconnects,
        longest_stall: Duration::from_micros(status.longest_stall),
        io: status.io,
        engine: EngineAddresses {
            api: record.engine_api.parse().map_err(bad)?,
            nbd: record.engine_nbd.parse().map_err(bad)?,
        },
    })
}
