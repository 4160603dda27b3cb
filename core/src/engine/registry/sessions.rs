//! Who may use the primary's export of a volume: one consumer's right to write.
//!
//! ```text
//!   OpenSession ─► a number, durable before it is told      CloseSession ─► the next need not wait
//!   NBD open VOLUME/primary@GENERATION#NUMBER ─► see `groups::admission`
//! ```

use super::{Engine, on_shard};
use crate::engine::api::{Generation, GroupId, Refusal, VolumeId};
use crate::engine::error::EngineError;

impl Engine {
    /// Gives a consumer the right to ask for the primary's export of a volume.
    pub(crate) async fn open_session(
        &self,
        volume: VolumeId,
        generation: Generation,
    ) -> Result<u64, EngineError> {
        let Some(group) = self.group_of(&volume)? else {
            let text = format!("volume {volume} is in no group here: start one first");
            return Err(EngineError::new(Refusal::WrongState, text));
        };
        let (name, v) = (group.clone(), volume.clone());
        let session =
            self.ask(&group, move |_| on_shard::open_session(name, v, generation)).await?;
        tracing::info!(%volume, %generation, session, "session given out");
        Ok(session)
    }

    /// Ends a session; fine if there is nothing of it here.
    pub(crate) async fn close_session(
        &self,
        volume: VolumeId,
        session: u64,
    ) -> Result<(), EngineError> {
        let group = match self.group_of(&volume) {
            Ok(Some(group)) => group,
            Ok(None) => return Ok(()),
            Err(e) if e.refusal == Refusal::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        let (name, v) = (group.clone(), volume.clone());
        self.ask(&group, move |_| async move { on_shard::close_session(&name, &v, session) })
            .await?;
        tracing::info!(%volume, session, "session ended by its consumer");
        Ok(())
    }

    fn group_of(&self, volume: &VolumeId) -> Result<Option<GroupId>, EngineError> {
        match self.state().replicas.get(volume) {
            Some(Ok(record)) => Ok(record.group.clone()),
            Some(Err(e)) => Err(e.clone()),
            None => {
                let text = format!("volume {volume} has no replica here");
                Err(EngineError::new(Refusal::NotFound, text))
            }
        }
    }
}
