//! The right to write: asked of the engine for each device, and given back.

use std::time::{Duration, Instant};

use tracing::warn;

use super::{ANSWER, Devices, Result};
use crate::attach::{Ask, DeviceState, Record};
use crate::engine::api::{Address, Refusal, VolumeId};
use crate::engine::attach::api::{Attach, Device};
use crate::engine::client::{ClientError, EngineClient};
use crate::engine::error::EngineError;

/// How long the engine may take to open or close a session.
const SESSION: Duration = Duration::from_secs(5);

/// How long a device of a volume that was taken into a group may take to find it again: its holder tries
/// each second at most.
const SERVES_AGAIN: Duration = Duration::from_secs(5);
/// How often that is asked.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

fn refusal_of(e: &ClientError) -> EngineError {
    EngineError::new(e.refusal().unwrap_or(Refusal::Unavailable), e.to_string())
}

impl Devices {
    /// A client of an engine; called within the runtime.
    fn engine(&self, api: &Address) -> Result<EngineClient> {
        let tls = self.network.certificates(api);
        let tls = tls.map_err(|text| EngineError::new(Refusal::WrongState, text))?;
        let client = EngineClient::lazy_with(api, tls.as_ref()).map_err(|e| refusal_of(&e))?;
        Ok(client.with_deadline(SESSION))
    }

    /// A session of the engine; `None` from one that knows none.
    pub(super) fn open_session(&self, attach: &Attach) -> Result<Option<u64>> {
        let _inside = self.runtime.enter();
        let client = self.engine(&attach.engine.api)?;
        let opening = client.open_session(&attach.volume, attach.generation);
        let opened = self.runtime.block_on(opening);
        match opened {
            Ok(session) => Ok(Some(session)),
            Err(e) if e.refusal() == Some(Refusal::Unimplemented) => Ok(None),
            Err(e) => Err(refusal_of(&e)),
        }
    }

    /// The device that is there, if what it shows is served on under the generation that is asked for: its
    /// volume was taken into a group without a loss. The engine says so twice: it would give out a session
    /// of that generation, and it takes the device's own connection anew after that.
    pub(super) fn adopted(
        &self,
        record: &Record,
        there: &Device,
        attach: &Attach,
    ) -> Option<Device> {
        let is_later = attach.generation.number > there.generation.number;
        if !is_later || there.state == DeviceState::Gone || there.engine != attach.engine {
            return None;
        }
        let session = self.open_session(attach).ok()??;
        self.close(&attach.engine.api, &attach.volume, session);
        // Its connection ended when the volume changed groups: it may be about to make the next one.
        let end = Instant::now() + SERVES_AGAIN;
        loop {
            let there = self.status(record, &Ask::Resize, ANSWER).ok()?;
            match there.state {
                DeviceState::Serving => return Some(there),
                DeviceState::Gone => return None,
                DeviceState::Waiting if Instant::now() >= end => return None,
                DeviceState::Waiting => std::thread::sleep(LOOK_AGAIN),
            }
        }
    }

    /// Ends the session of a device.
    pub(super) fn close_session(&self, record: &Record) {
        if let (Some(session), Ok(api), Ok(volume)) =
            (record.session, record.engine_api.parse(), record.volume.parse())
        {
            self.close(&api, &volume, session);
        }
    }

    /// Ends a session, if the engine is there to be told: it ends by itself a while after its last
    /// connection.
    fn close(&self, api: &Address, volume: &VolumeId, session: u64) {
        let _inside = self.runtime.enter();
        let closed = self.engine(api).and_then(|client| {
            let closing = client.close_session(volume, session);
            self.runtime.block_on(closing).map_err(|e| refusal_of(&e))
        });
        if let Err(e) = closed {
            warn!("the session {session} of {volume} was not closed: {e}");
        }
    }
}
