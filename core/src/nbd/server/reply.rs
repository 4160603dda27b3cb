//! Answers: from results to bytes in the outbox.

use crate::nbd::wire::{Chunk, ErrorChunk, Extent, SimpleReply, Writer, chunk};
use crate::runtime::{Buf, Data, Outbox};
use crate::units::{u32_of, u64_of};

/// The longest text sent with an error, in bytes.
const TEXT_MAX: usize = 512;

/// Where the answers of a connection go, in the form that was negotiated.
#[derive(Debug)]
pub(super) struct Replies {
    outbox: Outbox,
    structured: bool,
}

impl Replies {
    pub(super) fn new(outbox: Outbox, structured: bool) -> Self {
        Self { outbox, structured }
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Success of anything but a read. A simple reply is right also where chunks were negotiated.
    pub(super) fn done(&self, cookie: u64) {
        self.push(&SimpleReply { errno: 0, cookie }.encode());
    }

    /// What went wrong; ends the reply.
    pub(super) fn error(&self, cookie: u64, errno: u32, text: &str) {
        if !self.structured {
            self.push(&SimpleReply { errno, cookie }.encode());
            return;
        }
        let text = text.get(..text.floor_char_boundary(TEXT_MAX)).unwrap_or_default().to_owned();
        let error = ErrorChunk { errno, text, offset: None };
        self.chunk(error.kind(), cookie, &error.encode(), 0, true);
    }

    /// The data of a read, or of a part of one that begins at `offset`. Without chunks, `data` is
    /// the whole.
    pub(super) fn data(&self, cookie: u64, offset: u64, data: Vec<Data>, done: bool) {
        let length = data.iter().map(|d| u64_of(d.len())).sum::<u64>();
        if !self.structured {
            self.push(&SimpleReply { errno: 0, cookie }.encode());
        } else if length == 0 {
            self.chunk(chunk::NONE, cookie, &[], 0, done);
            return;
        } else if data.iter().all(|d| is_zero(d)) {
            let content = Writer::default().u64(offset).u32(u32_of(length)).0;
            self.chunk(chunk::OFFSET_HOLE, cookie, &content, 0, done);
            return;
        } else {
            self.chunk(chunk::OFFSET_DATA, cookie, &offset.to_be_bytes(), length, done);
        }
        for part in data {
            self.outbox.push(part, true);
        }
    }

    /// What is allocated.
    pub(super) fn extents(&self, cookie: u64, context: u32, extents: &[Extent]) {
        let head = Writer::default().u32(context);
        let content = extents.iter().fold(head, |w, e| w.u32(e.length).u32(e.flags)).0;
        self.chunk(chunk::BLOCK_STATUS, cookie, &content, 0, true);
    }

    /// A chunk's header and the begin of its content; `more` bytes of it follow.
    fn chunk(&self, kind: u16, cookie: u64, content: &[u8], more: u64, done: bool) {
        let flags = if done { chunk::DONE } else { 0 };
        let length = u32_of(u64_of(content.len()) + more);
        let header = Chunk { flags, kind, cookie, length }.encode();
        let mut bytes = Buf::new(header.len() + content.len());
        let (first, rest) = bytes.split_at_mut(header.len());
        first.copy_from_slice(&header);
        rest.copy_from_slice(content);
        self.outbox.push(bytes.freeze(), true);
    }

    fn push(&self, bytes: &[u8]) {
        self.outbox.push(Data::copy_of(bytes), true);
    }
}

/// Whether all bytes are zero. Real data ends it at the first block.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(256).all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_anywhere_makes_a_block_no_hole() {
        let mut bytes = vec![0; 1000];
        assert!(is_zero(&bytes) && is_zero(&[]));
        for at in [0, 255, 256, 999] {
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "{at}");
            bytes[at] = 0;
        }
    }
}
