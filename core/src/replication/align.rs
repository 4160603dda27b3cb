//! Requests of any alignment on disks that want whole sectors: read, merge, write back.
//!
//! ```text
//!        request      ┌────────────┐
//!   ├────sector────┼────sector────┼────sector────┤
//!   └── read, keep ┘  from request   └ read, keep ┘     under the caller's lock of the whole sectors
//! ```

use crate::disk::{Disk, Result};
use crate::runtime::{Buf, Data};
use crate::units::{BUF_PIECE, ByteOffset, ByteRange, u64_of, usize_of};

/// Reads `buf.len()` bytes at any offset; at most [`BUF_PIECE`] of them.
pub(crate) async fn read<D: Disk>(disk: &D, at: ByteOffset, mut buf: Buf) -> (Buf, Result<()>) {
    let range = ByteRange::new(at.0, at.0 + u64_of(buf.len()));
    let align = disk.alignment();
    if range.is_aligned(align) {
        return disk.read(at, buf).await;
    }
    let wide = range.round_out(align);
    let (whole, r) = disk.read(wide.offset(), Buf::new(usize_of(wide.len()))).await;
    let skip = usize_of(range.start - wide.start);
    let n = buf.len();
    if let Some(part) = whole.get(skip..skip + n) {
        buf.copy_from_slice(part);
    }
    (buf, r)
}

/// `data` at `at`, widened to whole sectors of `align` bytes with what `disk` holds around it.
/// The caller holds the lock of the widened range. At most [`BUF_PIECE`] bytes of data.
pub(crate) async fn widen<D: Disk>(
    disk: &D,
    align: u64,
    at: ByteOffset,
    data: Data,
) -> Result<(ByteRange, Data)> {
    let range = ByteRange::new(at.0, at.0 + u64_of(data.len()));
    if range.is_aligned(align) {
        return Ok((range, data));
    }
    let wide = range.round_out(align.max(disk.alignment()));
    let (mut whole, r) = disk.read(wide.offset(), Buf::new(usize_of(wide.len()))).await;
    r?;
    let skip = usize_of(range.start - wide.start);
    if let Some(part) = whole.get_mut(skip..skip + data.len()) {
        part.copy_from_slice(&data);
    }
    Ok((wide, whole.freeze()))
}

/// Makes any range read as zeroes: what is not a whole sector is written, the rest deallocated.
/// The caller holds the lock of the range rounded out to the disk's alignment.
pub(crate) async fn zero<D: Disk>(disk: &D, range: ByteRange, punch: bool) -> Result<()> {
    let align = disk.alignment();
    let inner = range.round_in(align);
    if inner.is_empty() {
        return zero_part(disk, range).await;
    }
    zero_part(disk, ByteRange::new(range.start, inner.start)).await?;
    disk.write_zeroes(inner, punch).await?;
    zero_part(disk, ByteRange::new(inner.end, range.end)).await
}

async fn zero_part<D: Disk>(disk: &D, range: ByteRange) -> Result<()> {
    for part in range.pieces(BUF_PIECE) {
        let (wide, data) =
            widen(disk, disk.alignment(), part.offset(), Data::zeroes(usize_of(part.len())))
                .await?;
        disk.write(wide.offset(), data).await?;
    }
    Ok(())
}

/// Writes at any alignment. The caller holds the lock of the widened range.
pub(crate) async fn write<D: Disk>(disk: &D, at: ByteOffset, data: Data) -> Result<()> {
    let (wide, data) = widen(disk, disk.alignment(), at, data).await?;
    disk.write(wide.offset(), data).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Memory;
    use futures::executor::block_on;

    #[test]
    fn a_write_below_a_sector_keeps_its_neighbours() {
        let d = Memory::new(8192, 0x11);
        let (wide, data) =
            block_on(widen(&d, 512, ByteOffset(510), Data::copy_of(&[7; 4]))).unwrap();
        assert_eq!(wide, ByteRange::new(0, 1024));
        assert_eq!(data[509..515], [0x11, 7, 7, 7, 7, 0x11]);
    }
}
