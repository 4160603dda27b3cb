//! The forwarding leg alone, as a disk: what the seed calls the primary's filter.
//!
//! ```text
//!   primary volume:  write ─► range lock ─┬─► the leg ──► link     both
//!                                         └─► local disk
//!   forwarding leg:  write ─► range lock ───► the leg ──► link     done when acknowledged
//!                    read  ─► always an error: it has no data of its own
//! ```
//!
//! The seed's primary puts this filter beside its local disk under a quorum; ours does both in one
//! place ([`super::primary`]). What writes here by itself must write the same to the local disk by
//! itself: what is lost with a session is sent again from there. Unlike a [`super::Volume`] it is
//! bound to no generation: it lives as long as the group, and works while the group is a running
//! primary with a peer.

use std::future::Future;
use std::rc::Rc;

use super::group::Group;
use super::peer::Peer;
use super::primary::{Payload, Primary};
use crate::disk::{Disk, Error, ErrorKind, Host, Result};
use crate::link::frame::ZEROES_MAX;
use crate::overlay::{Role, Stage};
use crate::runtime::{Buf, Data};
use crate::units::{BUF_PIECE, ByteOffset, ByteRange, SECTOR, VolumeIndex, u64_of, usize_of};

/// Where writes go.
type Running<H> = (Rc<Primary<H>>, Rc<Peer<H>>);

/// The forwarding leg of one volume. Clones are the same.
pub struct ForwardingLeg<H: Host> {
    group: Group<H>,
    index: VolumeIndex,
    size: u64,
}

impl<H: Host> Clone for ForwardingLeg<H> {
    fn clone(&self) -> Self {
        Self { group: self.group.clone(), index: self.index, size: self.size }
    }
}

impl<H: Host> std::fmt::Debug for ForwardingLeg<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ForwardingLeg({:?}, volume {})", self.group, self.index.0)
    }
}

impl<H: Host> Group<H> {
    /// The forwarding leg of a volume, in whatever stage the group is.
    pub fn forwarding_leg(&self, index: VolumeIndex) -> Result<ForwardingLeg<H>> {
        let size = self.state().members.get(index.get()).map(|m| m.size);
        let size = size.ok_or_else(|| {
            Error::own(
                ErrorKind::Invalid,
                format!("group {} has no volume number {}", self.state().group, index.0),
            )
        })?;
        Ok(ForwardingLeg { group: self.clone(), index, size })
    }
}

impl<H: Host> ForwardingLeg<H> {
    /// Where a write goes now; an error before the start, after the stop, and without a peer.
    fn running(&self) -> Result<Running<H>> {
        let is_running = {
            let s = self.group.state();
            s.role == Role::Primary && s.stage == Stage::Running
        };
        let primary = self.group.primary().filter(|_| is_running).map(|(p, _)| p);
        let both = primary.and_then(|p| p.peer.borrow().clone().map(|peer| (p.clone(), peer)));
        both.ok_or_else(|| {
            let group = self.group.state().group.clone();
            Error::own(
                ErrorKind::NotPermitted,
                format!("group {group} forwards nothing: start it as primary with a peer"),
            )
        })
    }

    async fn write_range(
        &self,
        range: ByteRange,
        payload: impl Fn(ByteRange) -> Payload,
        piece: u64,
    ) -> Result<()> {
        self.running()?;
        if range.end > self.size {
            return Err(Error::beyond_end("forward", range, self.size));
        }
        if !range.is_aligned(SECTOR) {
            return Err(Error::own(
                ErrorKind::Invalid,
                format!("forward {range}: it is not of whole sectors of {SECTOR} bytes"),
            ));
        }
        for part in range.pieces(piece) {
            self.write_piece(part, payload(part)).await?;
        }
        Ok(())
    }

    async fn write_piece(&self, range: ByteRange, payload: Payload) -> Result<()> {
        let (primary, _) = self.running()?;
        let volume = primary.volume(self.index)?;
        let _guard = volume.lock.lock(range.round_out(volume.local.alignment())).await;
        let (primary, peer) = self.running()?;
        let ticket = primary.forward(&peer, self.index, range, &payload).await?;
        if peer.leg.acknowledgement(&ticket).await {
            return Ok(());
        }
        Err(Error::own(
            ErrorKind::Disconnected,
            format!(
                "forward {range} of volume {}: the peer did not take it, it is sent again from the local disk",
                self.index.0
            ),
        ))
    }
}

impl<H: Host> Disk for ForwardingLeg<H> {
    fn len(&self) -> u64 {
        self.size
    }

    fn alignment(&self) -> u64 {
        SECTOR
    }

    fn read(&self, at: ByteOffset, buf: Buf) -> impl Future<Output = (Buf, Result<()>)> + 'static {
        let range = ByteRange::new(at.0, at.0.saturating_add(u64_of(buf.len())));
        let why = format!(
            "read {range} of the forwarding leg of volume {}: it only forwards writes",
            self.index.0
        );
        std::future::ready((buf, Err(Error::own(ErrorKind::NotPermitted, why))))
    }

    fn write(&self, at: ByteOffset, data: Data) -> impl Future<Output = Result<()>> + 'static {
        let this = self.clone();
        async move {
            let range = ByteRange::new(at.0, at.0.saturating_add(u64_of(data.len())));
            let part = |p: ByteRange| {
                Payload::Data(
                    data.slice(usize_of(p.start - range.start)..usize_of(p.end - range.start)),
                )
            };
            this.write_range(range, part, BUF_PIECE).await
        }
    }

    fn writev(
        &self,
        at: ByteOffset,
        data: Vec<Data>,
    ) -> impl Future<Output = Result<()>> + 'static {
        let this = self.clone();
        async move {
            let mut at = at.0;
            for d in data {
                let len = u64_of(d.len());
                this.write(ByteOffset(at), d).await?;
                at = at.saturating_add(len);
            }
            Ok(())
        }
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        punch: bool,
    ) -> impl Future<Output = Result<()>> + 'static {
        let this = self.clone();
        async move {
            this.write_range(range, |p| Payload::Zero { len: p.len(), punch }, ZEROES_MAX).await
        }
    }

    /// Ends when the peer's disks are flushed.
    fn flush(&self) -> impl Future<Output = Result<()>> + 'static {
        let this = self.clone();
        async move {
            let (_, peer) = this.running()?;
            if peer.leg.flush_peer(|| peer.flushed.get()).await {
                return Ok(());
            }
            Err(Error::own(
                ErrorKind::Disconnected,
                "flush of the forwarding leg: the peer did not answer",
            ))
        }
    }

    fn allocation(
        &self,
        range: ByteRange,
    ) -> impl Future<Output = Result<Vec<(ByteRange, bool)>>> + 'static {
        // It has no data; whoever asks must not take that for zeroes.
        std::future::ready(Ok(vec![(range, true)]))
    }
}
