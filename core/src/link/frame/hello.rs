//! The payload of the first frame: who one side is and where it stands.

use super::FrameError;
use super::fields::Take;
use crate::units::{Epoch, Generation, GroupId, Name, Uuid, VolumeCount};

/// Who one side is and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The group.
    pub group: GroupId,
    /// Its generation; both sides must agree.
    pub generation: Generation,
    /// The pool of the sender: no engine replicates to itself.
    pub pool: Uuid,
    /// The highest epoch the sender ever opened. The higher one of both is the open epoch.
    pub epoch: Epoch,
    /// The sender's last record. The secondary's decides what completed.
    pub record: Epoch,
    /// The sender's replicas were just made and hold nothing but zeroes.
    pub blank: bool,
    /// Primary: nothing is known of what the peer holds; it has to forget its checkpoint. Secondary: it
    /// was started since the primary last spoke to it.
    pub anew: bool,
    /// Names and sizes of the volumes, in group order. The secondary may have more: they wait for the
    /// primary to take them too.
    pub members: Vec<(Name, u64)>,
    /// How many of them the record covers. The secondary's word decides, as with the record.
    pub joined: VolumeCount,
}

impl Hello {
    /// ```text
    ///   generation number u64, id u64 │ pool u128 │ flags u8 (1 blank, 2 anew) │ group │ count u16 │ count × (name, size u64) │ joined u16
    ///   a name: length u8, bytes
    /// ```
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut b = Vec::with_capacity(64);
        b.extend(self.generation.number.to_le_bytes());
        b.extend(self.generation.id.to_le_bytes());
        b.extend(self.pool.0.to_le_bytes());
        b.push(u8::from(self.blank) | u8::from(self.anew) << 1);
        let name = |b: &mut Vec<u8>, n: &Name| {
            // A name has at most 128 bytes.
            b.push(u8::try_from(n.as_str().len()).unwrap_or(0));
            b.extend(n.as_str().as_bytes());
        };
        name(&mut b, &self.group);
        b.extend(u16::try_from(self.members.len()).unwrap_or(u16::MAX).to_le_bytes());
        for (n, size) in &self.members {
            name(&mut b, n);
            b.extend(size.to_le_bytes());
        }
        b.extend(self.joined.0.to_le_bytes());
        b
    }

    pub(super) fn decode(b: &[u8]) -> Result<Self, FrameError> {
        let mut t = Take(b);
        let generation = Generation { number: t.u64()?, id: t.u64()? };
        let pool = Uuid(u128::from_le_bytes(t.array()?));
        let flags = t.u8()?;
        let (blank, anew) = (flags & 1 != 0, flags & 2 != 0);
        let group = t.name()?;
        let count = t.u16()?;
        if usize::from(count) > crate::units::GROUP_VOLUMES_MAX {
            return Err(FrameError(format!("a hello with {count} volumes")));
        }
        let members =
            (0..count).map(|_| Ok((t.name()?, t.u64()?))).collect::<Result<_, FrameError>>()?;
        let joined = VolumeCount(t.u16()?);
        if joined.0 > count {
            return Err(FrameError(format!("a hello with {} of {count} volumes joined", joined.0)));
        }
        Ok(Self {
            group,
            generation,
            pool,
            epoch: Epoch::NONE,
            record: Epoch::NONE,
            blank,
            anew,
            members,
            joined,
        })
    }
}
