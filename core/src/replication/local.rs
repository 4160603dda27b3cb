//! The primary's own copy of a volume: a plain disk, or a promoted replica whose roll-back is still
//! being merged.

use std::future::Future;
use std::rc::Rc;

use futures::future::Either;

use super::promoted::Promoted;
use crate::disk::{Disk, Host, Result};
use crate::runtime::{Buf, Data};
use crate::units::{ByteOffset, ByteRange, VolumeIndex};

/// Where the primary reads and writes.
pub(crate) enum Local<H: Host> {
    /// The replica's disk.
    Plain(H::Disk),
    /// The view of a promoted secondary; its disk once the commit has passed.
    Promoted(Rc<Promoted<H>>, VolumeIndex),
}

impl<H: Host> Clone for Local<H> {
    fn clone(&self) -> Self {
        match self {
            Self::Plain(d) => Self::Plain(d.clone()),
            Self::Promoted(p, v) => Self::Promoted(p.clone(), *v),
        }
    }
}

impl<H: Host> Disk for Local<H> {
    fn len(&self) -> u64 {
        match self {
            Self::Plain(d) => d.len(),
            Self::Promoted(p, v) => p.disk(*v).len(),
        }
    }

    fn alignment(&self) -> u64 {
        match self {
            Self::Plain(d) => d.alignment(),
            Self::Promoted(p, v) => p.disk(*v).alignment(),
        }
    }

    fn read(&self, at: ByteOffset, buf: Buf) -> impl Future<Output = (Buf, Result<()>)> + 'static {
        match self {
            Self::Plain(d) => Either::Left(d.read(at, buf)),
            Self::Promoted(p, v) => Either::Right(p.clone().read(*v, at, buf)),
        }
    }

    fn write(&self, at: ByteOffset, data: Data) -> impl Future<Output = Result<()>> + 'static {
        match self {
            Self::Plain(d) => Either::Left(d.write(at, data)),
            Self::Promoted(p, v) => Either::Right(p.clone().write(*v, at, data)),
        }
    }

    fn writev(
        &self,
        at: ByteOffset,
        data: Vec<Data>,
    ) -> impl Future<Output = Result<()>> + 'static {
        match self {
            Self::Plain(d) => Either::Left(d.writev(at, data)),
            Self::Promoted(p, v) => {
                let (p, v) = (p.clone(), *v);
                Either::Right(async move {
                    let mut at = at.0;
                    for d in data {
                        let len = crate::units::u64_of(d.len());
                        p.clone().write(v, ByteOffset(at), d).await?;
                        at += len;
                    }
                    Ok(())
                })
            }
        }
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        punch: bool,
    ) -> impl Future<Output = Result<()>> + 'static {
        match self {
            Self::Plain(d) => Either::Left(d.write_zeroes(range, punch)),
            Self::Promoted(p, v) => Either::Right(p.clone().write_zeroes(*v, range, punch)),
        }
    }

    fn flush(&self) -> impl Future<Output = Result<()>> + 'static {
        match self {
            Self::Plain(d) => Either::Left(d.flush()),
            Self::Promoted(p, v) => Either::Right(p.clone().flush(*v)),
        }
    }

    fn allocation(
        &self,
        range: ByteRange,
    ) -> impl Future<Output = Result<Vec<(ByteRange, bool)>>> + 'static {
        match self {
            Self::Plain(d) => Either::Left(d.allocation(range)),
            Self::Promoted(p, v) => Either::Right(p.clone().allocation(*v, range)),
        }
    }
}
