//! Places in a group's list of members, and lengths of it.
//!
//! ```text
//!   members   v0  v1  v2 │ v3 │ v4       VolumeCount(3): those that a checkpoint covers
//!             VolumeIndex 0 ..           v3, v4: joining
//! ```

/// The place of a volume in its group's member list; what frames and logs name volumes by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct VolumeIndex(pub u16);

impl VolumeIndex {
    /// The volume at this place; a group has at most [`GROUP_VOLUMES_MAX`](super::GROUP_VOLUMES_MAX).
    pub fn of(place: usize) -> Self {
        Self(u16::try_from(place).unwrap_or(u16::MAX))
    }

    /// As an index into the member list.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

/// How many volumes of a group, counted from its first: those that a checkpoint covers stand before
/// those that are joining.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct VolumeCount(pub u16);

impl VolumeCount {
    /// All of so many; a group has at most [`GROUP_VOLUMES_MAX`](super::GROUP_VOLUMES_MAX).
    pub fn of(volumes: usize) -> Self {
        Self(u16::try_from(volumes).unwrap_or(u16::MAX))
    }

    /// Whether a volume is one of them.
    pub fn covers(self, volume: VolumeIndex) -> bool {
        volume.0 < self.0
    }

    /// As a length of the member list.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}
