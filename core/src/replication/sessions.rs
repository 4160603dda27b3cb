//! Who of a volume's consumers may write: numbers that grow, each durable before it means anything.
//!
//! ```text
//!   issue ─► issued + 1 durable ─► the consumer        a restart gives no number out twice
//!   first request under N ─► let_in = N durable ─► the request         older ones never again
//! ```
//!
//! Who is refused or has to wait meanwhile is decided where connections are known: in the engine.

use super::group::Group;
use crate::disk::{Error, ErrorKind, Host, Result};
use crate::overlay::{GroupState, Member, Role, Sessions};
use crate::units::{Generation, VolumeIndex};

impl<H: Host> Group<H> {
    /// Gives out the next session of a volume, for a device of this generation.
    pub async fn issue_session(&self, v: VolumeIndex, generation: Generation) -> Result<u64> {
        let sessions = self.sessions(v, generation)?;
        let number = sessions.issued.saturating_add(1);
        let mut given = number;
        self.0
            .store
            .update(|s| {
                if let Some(m) = member(s, v, generation) {
                    // Another may have been given out while this one waited for its turn.
                    given = number.max(m.sessions.issued.saturating_add(1));
                    m.sessions.issued = given;
                }
            })
            .await?;
        self.sessions(v, generation)?;
        Ok(given)
    }

    /// Lets a session in: from now on every older one is refused for good.
    pub async fn let_in(&self, v: VolumeIndex, number: u64, generation: Generation) -> Result<()> {
        let superseded = |sessions: Sessions| {
            let text = format!(
                "session {number} has ended: session {} took its place; attach the volume anew",
                sessions.let_in
            );
            Error::own(ErrorKind::Stale, text)
        };
        let now = self.sessions(v, generation)?;
        if now.let_in > number {
            return Err(superseded(now));
        }
        if now.let_in == number && now.bound == generation {
            return Ok(());
        }
        self.0
            .store
            .update(|s| {
                if let Some(m) = member(s, v, generation).filter(|m| m.sessions.let_in <= number) {
                    m.sessions.let_in = number;
                    m.sessions.bound = generation;
                }
            })
            .await?;
        let now = self.sessions(v, generation)?;
        if now.let_in == number { Ok(()) } else { Err(superseded(now)) }
    }

    /// The sessions of a volume whose primary this is, in this generation or carrying it.
    fn sessions(&self, v: VolumeIndex, generation: Generation) -> Result<Sessions> {
        let s = self.state();
        let found = s.members.get(v.get()).filter(|m| is_primary_of(&s, m, generation));
        found.map(|m| m.sessions).ok_or_else(|| {
            Error::own(
                ErrorKind::Stale,
                format!(
                    "group {} is no primary of generation {generation} here: it is of {}",
                    s.group, s.generation
                ),
            )
        })
    }
}

/// Whether devices bound to `generation` may use this member as the primary.
pub(super) fn is_primary_of(s: &GroupState, m: &Member, generation: Generation) -> bool {
    s.role == Role::Primary && (s.generation == generation || m.carried.contains(&generation))
}

fn member(s: &mut GroupState, v: VolumeIndex, generation: Generation) -> Option<&mut Member> {
    let serves = s.members.get(v.get()).is_some_and(|m| is_primary_of(s, m, generation));
    s.members.get_mut(v.get()).filter(|_| serves)
}
