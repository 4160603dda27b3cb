//! The requests, each to whoever serves this kind of access now.

use std::future::Future;

use super::super::align;
use super::super::primary::Payload;
use super::{ExportKind, Volume};
use crate::disk::{Disk, Error, ErrorKind, Host, Result};
use crate::runtime::{Buf, Data};
use crate::units::{ByteOffset, ByteRange, u64_of};

impl<H: Host> Disk for Volume<H> {
    fn len(&self) -> u64 {
        self.0.size
    }

    fn read(&self, at: ByteOffset, buf: Buf) -> impl Future<Output = (Buf, Result<()>)> + 'static {
        let o = self.0.clone();
        async move {
            if let Err(e) = o.check_range("read", at, u64_of(buf.len())) {
                return (buf, Err(e));
            }
            match o.kind {
                ExportKind::Primary => match o.group.primary() {
                    Some((p, _)) => p.read(o.index, at, buf).await,
                    None => (buf, Err(Error::own(ErrorKind::Stale, "no longer the primary"))),
                },
                ExportKind::View => match o.secondary() {
                    Ok(s) => s.view_read(o.index, at, buf).await,
                    Err(e) => (buf, Err(e)),
                },
                ExportKind::Secondary | ExportKind::Inbound => match o.secondary() {
                    Ok(s) => align::read(&s.volumes[o.index.get()].disk, at, buf).await,
                    Err(e) => (buf, Err(e)),
                },
            }
        }
    }

    fn write(&self, at: ByteOffset, data: Data) -> impl Future<Output = Result<()>> + 'static {
        let o = self.0.clone();
        async move {
            let len = u64_of(data.len());
            o.write(at, Payload::Data(data), len).await
        }
    }

    fn writev(
        &self,
        at: ByteOffset,
        data: Vec<Data>,
    ) -> impl Future<Output = Result<()>> + 'static {
        let o = self.0.clone();
        async move {
            let mut at = at.0;
            for d in data {
                let len = u64_of(d.len());
                o.write(ByteOffset(at), Payload::Data(d), len).await?;
                at += len;
            }
            Ok(())
        }
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        punch: bool,
    ) -> impl Future<Output = Result<()>> + 'static {
        let o = self.0.clone();
        async move {
            o.write(range.offset(), Payload::Zero { len: range.len(), punch }, range.len()).await
        }
    }

    fn flush(&self) -> impl Future<Output = Result<()>> + 'static {
        let o = self.0.clone();
        async move {
            o.check()?;
            match o.kind {
                ExportKind::Primary => match o.group.primary() {
                    Some((p, _)) => p.flush(o.index).await,
                    None => Err(Error::own(ErrorKind::Stale, "no longer the primary")),
                },
                ExportKind::View => o.secondary()?.view_flush(o.index).await,
                ExportKind::Secondary => Ok(()),
                ExportKind::Inbound => o.secondary()?.volumes[o.index.get()].disk.flush().await,
            }
        }
    }

    fn allocation(
        &self,
        range: ByteRange,
    ) -> impl Future<Output = Result<Vec<(ByteRange, bool)>>> + 'static {
        let o = self.0.clone();
        async move {
            o.check_range("block status", range.offset(), range.len())?;
            match o.kind {
                ExportKind::Primary => match o.group.primary() {
                    Some((p, _)) => p.volumes[o.index.get()].local.allocation(range).await,
                    None => Err(Error::own(ErrorKind::Stale, "no longer the primary")),
                },
                ExportKind::Secondary | ExportKind::Inbound => {
                    o.secondary()?.volumes[o.index.get()].disk.allocation(range).await
                }
                // What lies over the disk would have to be asked too: all of it counts as allocated.
                ExportKind::View => Ok(vec![(range, true)]),
            }
        }
    }
}
