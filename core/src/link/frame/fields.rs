//! Fields one behind the other, little-endian: written and read.

use super::FrameError;
use crate::units::Name;

/// Writes one field behind the other.
pub(super) struct Put<'a>(pub(super) &'a mut [u8]);

impl Put<'_> {
    pub(super) fn bytes(&mut self, b: &[u8]) {
        let (head, rest) = std::mem::take(&mut self.0).split_at_mut(b.len());
        head.copy_from_slice(b);
        self.0 = rest;
    }
    pub(super) fn u32(&mut self, n: u32) {
        self.bytes(&n.to_le_bytes());
    }
    pub(super) fn u64(&mut self, n: u64) {
        self.bytes(&n.to_le_bytes());
    }
}

/// Reads one field behind the other; too short is an error.
pub(super) struct Take<'a>(pub(super) &'a [u8]);

impl Take<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (head, rest) =
            self.0.split_first_chunk::<N>().ok_or_else(|| FrameError("it is too short".into()))?;
        self.0 = rest;
        Ok(*head)
    }
    pub(super) fn u8(&mut self) -> Result<u8, FrameError> {
        Ok(u8::from_le_bytes(self.array()?))
    }
    pub(super) fn u16(&mut self) -> Result<u16, FrameError> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    pub(super) fn u32(&mut self) -> Result<u32, FrameError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub(super) fn u64(&mut self) -> Result<u64, FrameError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    pub(super) fn name(&mut self) -> Result<Name, FrameError> {
        let len = usize::from(self.u8()?);
        let (head, rest) =
            self.0.split_at_checked(len).ok_or_else(|| FrameError("it is too short".into()))?;
        self.0 = rest;
        let text = std::str::from_utf8(head).map_err(|e| FrameError(e.to_string()))?;
        text.parse().map_err(|e: crate::units::ParseError| FrameError(e.0))
    }
}
