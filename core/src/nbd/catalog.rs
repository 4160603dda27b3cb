//! What a server has to offer: exports by name, each a disk with conditions.

use std::cell::Cell;
use std::rc::Rc;

use super::wire::REQUEST_MAX;
use crate::disk::Disk;
use crate::runtime::Signal;
use crate::units::u32_of;

/// The exports of a server. Asked anew by every connection.
pub trait Catalog {
    /// What lies behind the exports.
    type Disk: Disk;

    /// All exports, for `LIST`.
    fn list(&self) -> Vec<ExportInfo>;

    /// The export of this name, or why there is none for this client now.
    fn open(&self, name: &str) -> Result<Export<Self::Disk>, Refusal>;
}

/// One line of the list of exports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportInfo {
    /// What a client asks for.
    pub name: String,
    /// A text for people; may be empty.
    pub description: String,
}

/// A disk, and on which conditions it is served.
#[derive(Clone, Debug)]
pub struct Export<D> {
    /// Where the bytes are.
    pub disk: D,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Which requests are welcome.
    pub blocks: BlockSizes,
    /// A text for people; may be empty.
    pub description: String,
    /// Ends all its connections at once.
    pub revoked: Revocation,
}

impl<D: Disk> Export<D> {
    /// A writable export with the block sizes that fit the disk, never revoked by anyone.
    pub fn new(disk: D) -> Self {
        let blocks = BlockSizes::of(disk.alignment());
        let (description, revoked) = (String::new(), Revocation::new());
        Self { disk, read_only: false, blocks, description, revoked }
    }

    /// Its length: what of the disk can be reached in whole blocks.
    pub fn size(&self) -> u64 {
        let block = u64::from(self.blocks.minimum.max(1));
        self.disk.len() / block * block
    }
}

/// The block sizes of an export, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockSizes {
    /// Requests must be multiples of it; a power of two.
    pub minimum: u32,
    /// Requests should be multiples of it; a power of two.
    pub preferred: u32,
    /// No read or write may be longer.
    pub maximum: u32,
}

impl BlockSizes {
    /// What fits a disk of this alignment.
    pub fn of(alignment: u64) -> Self {
        let minimum = u32_of(alignment.clamp(1, 64 << 10));
        Self { minimum, preferred: minimum.max(4096), maximum: REQUEST_MAX }
    }

    /// Whether they are what the protocol allows.
    pub fn is_valid(&self) -> bool {
        self.minimum.is_power_of_two()
            && self.minimum <= 64 << 10
            && self.preferred.is_power_of_two()
            && self.preferred >= self.minimum
            && self.maximum >= self.minimum
            && (self.maximum == u32::MAX || self.maximum.is_multiple_of(self.minimum))
    }
}

impl Default for BlockSizes {
    /// What holds when a server says nothing.
    fn default() -> Self {
        Self::of(1)
    }
}

/// Why an export can't be had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// What a program may decide upon.
    pub kind: RefusalKind,
    /// Names the thing and the remedy.
    pub message: String,
}

/// Kinds of refusals. A client may wait and ask again, except for what is [`Gone`](Self::Gone).
///
/// ```text
///   Unknown, Busy ─► ERR_UNKNOWN  ─► NotPermitted    not here, or not here yet: try again
///   Gone          ─► ERR_POLICY   ─► Stale           never again: give up      (client::is_final)
///   Shutdown      ─► ERR_SHUTDOWN ─► Disconnected    try again
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalKind {
    /// There is no such export, or not yet.
    Unknown,
    /// It is there, but another client has it now.
    Busy,
    /// There was such an export and never will be again: an older generation or session.
    Gone,
    /// The server is about to stop.
    Shutdown,
}

impl Refusal {
    /// There is no such export; says which there are.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Unknown, message: message.into() }
    }

    /// Another client has it now; says which.
    pub fn busy(message: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Busy, message: message.into() }
    }

    /// There never will be such an export again; says what took its place.
    pub fn gone(message: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Gone, message: message.into() }
    }
}

/// A switch that cuts every connection to an export, for one that goes stale. Clones are the same
/// switch.
#[derive(Clone, Debug, Default)]
pub struct Revocation(Rc<(Cell<bool>, Signal)>);

impl Revocation {
    /// Not revoked.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts all connections that hold it, and every later one.
    pub fn revoke(&self) {
        self.0.0.set(true);
        self.0.1.notify();
    }

    /// Whether that has happened.
    pub fn is_revoked(&self) -> bool {
        self.0.0.get()
    }

    /// Ends when it happens.
    pub async fn wait(&self) {
        self.0.1.wait_until(|| self.is_revoked()).await;
    }
}
