//! Zeroes without sending them, where the file system or device can.
//!
//! ```text
//!   punch ──► fallocate(PUNCH_HOLE) ── can't ──┐
//!   keep  ──► small: written ──────────────────┤
//!         └─► fallocate(ZERO_RANGE) ── can't ──┴─► written, 8 MiB at a time
//! ```
//!
//! Block devices take the same calls: unmapping where that reads as zeroes. What can't be done
//! once is not tried again.

use std::future::Future;
use std::io;

use futures::future::Either;
use rustix::fs::FallocateFlags;

use super::{File, Result};
use crate::runtime::{BUF_MAX, Data, Op};
use crate::units::{ByteRange, u64_of, usize_of};

/// Up to this size zeroes that keep their space are plainly written, in bytes: cheaper than a
/// change of metadata.
const SMALL: u64 = 128 << 10;

/// Zeroes written at once, in bytes.
const STEP: u64 = 8 << 20;

/// [`super::Disk::write_zeroes`] of a file. The first request is made at the call; zeroes that must be
/// written in several steps go on only while somebody waits for them.
pub(super) fn write_zeroes(
    file: &File,
    range: ByteRange,
    punch: bool,
) -> impl Future<Output = Result<()>> + use<> + 'static {
    if let Err(e) = file.check("write zeroes", range) {
        return Either::Left(file.reactor().ready(Err(e)));
    }
    if range.is_empty() {
        return Either::Left(file.reactor().ready(Ok(())));
    }
    let me = file.clone();
    match file.behind_fill(range) {
        Some(filled) => Either::Right(Either::Left(async move {
            filled.await;
            zero(&me, range, punch).await
        })),
        None => Either::Right(Either::Right(zero(&me, range, punch))),
    }
}

fn zero(
    file: &File,
    range: ByteRange,
    punch: bool,
) -> impl Future<Output = Result<()>> + use<> + 'static {
    let (mode, can) = if punch {
        (FallocateFlags::PUNCH_HOLE, &file.0.can_punch)
    } else {
        (FallocateFlags::ZERO_RANGE, &file.0.can_zero)
    };
    let me = file.clone();
    if !can.get() || !punch && range.len() <= SMALL {
        let first = write_step(&me, range);
        return Either::Left(async move {
            first.await?;
            write(&me, ByteRange::new(range.start + STEP, range.end)).await
        });
    }
    let mode = (mode | FallocateFlags::KEEP_SIZE).bits().cast_signed();
    let wait = me.reactor().submit(&me.0.fd, Op::Allocate { mode, range }, 0);
    Either::Right(async move {
        match wait.await.1 {
            Ok(_) => Ok(()),
            Err(e) if is_unsupported(&e) => {
                (if punch { &me.0.can_punch } else { &me.0.can_zero }).set(false);
                write(&me, range).await
            }
            Err(e) => Err(me.error("write zeroes", range, e)),
        }
    })
}

fn is_unsupported(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV))
}

async fn write(file: &File, range: ByteRange) -> Result<()> {
    let mut at = range.start;
    while at < range.end {
        write_step(file, ByteRange::new(at, range.end)).await?;
        at += STEP;
    }
    Ok(())
}

/// Writes the first step of `range`.
fn write_step(file: &File, range: ByteRange) -> impl Future<Output = Result<()>> + use<> + 'static {
    let part = ByteRange::new(range.start, range.end.min(range.start + STEP));
    let mut pieces = Vec::new();
    let mut rest = usize_of(part.len());
    while rest > 0 {
        let n = rest.min(BUF_MAX);
        pieces.push(Data::zeroes(n));
        rest -= n;
    }
    debug_assert_eq!(pieces.iter().map(|d| u64_of(d.len())).sum::<u64>(), part.len());
    file.write_now(part, pieces)
}
