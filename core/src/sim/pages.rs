//! Content of a file, kept only where something was written.
//!
//! ```text
//!   page number ─► Rc<4 KiB>     absent: nothing allocated, reads as zeroes
//! ```
//!
//! Pages are shared until written: the cache and the platter of a disk at rest are one copy.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::runtime::Data;
use crate::units::{ByteRange, usize_of};

const PAGE: u64 = 4096;
const PAGE_LEN: usize = 4096;

/// What a disk can't tear, in bytes.
pub(super) const SECTOR: u64 = 512;

/// What a request puts at its range.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Bytes(Data),
    Zero { punch: bool },
}

/// A request's effect on a file.
#[derive(Clone, Debug)]
pub(super) struct Effect {
    pub(super) range: ByteRange,
    pub(super) content: Content,
}

impl Effect {
    /// The part of it inside `range`.
    pub(super) fn part(&self, range: ByteRange) -> Self {
        let range = self.range.intersect(range);
        let content = match &self.content {
            Content::Bytes(_) if range.is_empty() => Content::Zero { punch: false },
            Content::Bytes(data) => {
                let from = usize_of(range.start - self.range.start);
                Content::Bytes(data.slice(from..from + usize_of(range.len())))
            }
            Content::Zero { punch } => Content::Zero { punch: *punch },
        };
        Self { range, content }
    }

    /// Its sectors, each of which takes effect whole or not at all.
    pub(super) fn sectors(&self) -> impl Iterator<Item = Self> {
        self.range.pieces(SECTOR).map(|sector| self.part(sector))
    }
}

#[derive(Clone, Default)]
pub(super) struct Pages(BTreeMap<u64, Rc<[u8; PAGE_LEN]>>);

impl Pages {
    pub(super) fn read(&self, range: ByteRange, out: &mut [u8]) {
        for piece in range.pieces(PAGE) {
            let from = usize_of(piece.start - range.start);
            let Some(out) = out.get_mut(from..from + usize_of(piece.len())) else { return };
            match self.0.get(&(piece.start / PAGE)) {
                Some(page) => {
                    let at = usize_of(piece.start % PAGE);
                    out.copy_from_slice(page.get(at..at + out.len()).unwrap_or_default());
                }
                None => out.fill(0),
            }
        }
    }

    pub(super) fn apply(&mut self, effect: &Effect) {
        for piece in effect.range.pieces(PAGE) {
            let number = piece.start / PAGE;
            let whole = piece.len() == PAGE;
            let at = usize_of(piece.start % PAGE);
            let part = at..at + usize_of(piece.len());
            match &effect.content {
                Content::Zero { punch: true } if whole => {
                    self.0.remove(&number);
                }
                Content::Zero { punch } => {
                    if *punch && !self.0.contains_key(&number) {
                        continue;
                    }
                    if let Some(out) = self.page(number).get_mut(part) {
                        out.fill(0);
                    }
                }
                Content::Bytes(data) => {
                    let from = usize_of(piece.start - effect.range.start);
                    let bytes = data.get(from..from + part.len()).unwrap_or_default();
                    if let Some(out) = self.page(number).get_mut(part) {
                        out.copy_from_slice(bytes);
                    }
                }
            }
        }
    }

    fn page(&mut self, number: u64) -> &mut [u8; PAGE_LEN] {
        Rc::make_mut(self.0.entry(number).or_insert_with(|| Rc::new([0; PAGE_LEN])))
    }

    /// The parts of `range` and whether each is allocated, in order.
    pub(super) fn allocation(&self, range: ByteRange) -> Vec<(ByteRange, bool)> {
        let mut parts: Vec<(ByteRange, bool)> = Vec::new();
        for piece in range.pieces(PAGE) {
            let allocated = self.0.contains_key(&(piece.start / PAGE));
            match parts.last_mut() {
                Some((last, same)) if *same == allocated => last.end = piece.end,
                _ => parts.push((piece, allocated)),
            }
        }
        parts
    }
}
