//! Who may use the primary's export of a volume: one consumer's right to write.

use super::Engine;
use crate::engine::api::{ByteLen, Generation, Refusal, VolumeId};
use crate::engine::error::EngineError;

impl Engine {
    /// Grows a replica.
    #[allow(clippy::unused_async, reason = "it will wait for its shard")]
    pub(crate) async fn expand_replica(
        &self,
        volume: VolumeId,
        size: ByteLen,
    ) -> Result<ByteLen, EngineError> {
        Err(unknown(&format!("volume {volume} can't be grown to {} bytes", size.0)))
    }

    /// Gives a consumer the right to ask for the primary's export of a volume.
    #[allow(clippy::unused_async, reason = "it will wait for its shard")]
    pub(crate) async fn open_session(
        &self,
        volume: VolumeId,
        generation: Generation,
    ) -> Result<u64, EngineError> {
        Err(unknown(&format!("no session of volume {volume} at {generation}")))
    }

    /// Ends a session.
    #[allow(clippy::unused_async, reason = "it will wait for its shard")]
    pub(crate) async fn close_session(
        &self,
        volume: VolumeId,
        session: u64,
    ) -> Result<(), EngineError> {
        Err(unknown(&format!("no session {session} of volume {volume}")))
    }
}

fn unknown(what: &str) -> EngineError {
    EngineError::new(Refusal::Unimplemented, format!("{what}: this engine does not know how yet"))
}
