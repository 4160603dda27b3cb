//! The right to write: asked of the engine for each device, and given back.

use std::time::Duration;

use tracing::warn;

use super::{Devices, Result};
use crate::attach::Record;
use crate::engine::api::{Address, Refusal};
use crate::engine::attach::api::Attach;
use crate::engine::client::{ClientError, EngineClient};
use crate::engine::error::EngineError;

/// How long the engine may take to open or close a session.
const SESSION: Duration = Duration::from_secs(5);

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

    /// Ends the session, if the engine is there to be told: it ends by itself a while after its last
    /// connection.
    pub(super) fn close_session(&self, record: &Record) {
        let (Some(session), Ok(api), Ok(volume)) =
            (record.session, record.engine_api.parse(), record.volume.parse())
        else {
            return;
        };
        let _inside = self.runtime.enter();
        let closed = self.engine(&api).and_then(|client| {
            let closing = client.close_session(&volume, session);
            self.runtime.block_on(closing).map_err(|e| refusal_of(&e))
        });
        if let Err(e) = closed {
            warn!("the session {session} of {volume} was not closed: {e}");
        }
    }
}
