//! A target's bytes as a script: fields one behind the other; what is beyond the end is zero.

/// The bytes that are left.
#[derive(Clone, Debug)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        for (to, from) in out.iter_mut().zip(self.take(N)) {
            *to = *from;
        }
        out
    }

    /// Up to `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub(super) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    /// Two bytes.
    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Four bytes.
    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// Eight bytes.
    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// Two bytes as a number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.u16()) % end.max(1)
    }

    /// A length in two bytes, and so many.
    pub(super) fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.u16());
        self.take(len)
    }

    /// A length in one byte, and so many.
    pub(super) fn short(&mut self) -> &'a [u8] {
        let len = usize::from(self.u8());
        self.take(len)
    }
}

/// Writes such a script: for seeds.
#[derive(Clone, Debug, Default)]
pub(super) struct Script(pub(super) Vec<u8>);

impl Script {
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn u8(self, n: u8) -> Self {
        self.raw(&[n])
    }

    pub(super) fn u16(self, n: u16) -> Self {
        self.raw(&n.to_le_bytes())
    }

    pub(super) fn u32(self, n: u32) -> Self {
        self.raw(&n.to_le_bytes())
    }

    pub(super) fn u64(self, n: u64) -> Self {
        self.raw(&n.to_le_bytes())
    }

    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        self.u16(bytes.len().try_into().unwrap()).raw(bytes)
    }

    pub(super) fn short(self, bytes: &[u8]) -> Self {
        self.u8(bytes.len().try_into().unwrap()).raw(bytes)
    }
}
