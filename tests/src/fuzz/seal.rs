//! Checksums from outside: put right after a change, or left for the change to be found.
//!
//! ```text
//!   sealed block:   0 magic(8)  8 version(2)  10 own(2)  12 CRC-32C of all but these four  16 ...
//!
//!   patch, in a target's bytes:   block(2) how(1) offset(2) length(1) bytes
//!      how: bit 0 sealed again afterwards; bit 1 xor instead of set
//! ```

use super::input::Input;

/// Where the checksum stands in a sealed block.
const CHECKSUM: std::ops::Range<usize> = 12..16;

/// Most patches of one input.
const PATCHES_MAX: usize = 32;

fn checksum(block: &[u8]) -> [u8; 4] {
    crc32c::crc32c_append(crc32c::crc32c(&block[..12]), &block[16..]).to_le_bytes()
}

/// Computes the checksum of a block anew.
pub(super) fn seal(block: &mut [u8]) {
    let sum = checksum(block);
    block[CHECKSUM].copy_from_slice(&sum);
}

/// Whether the checksum of a block is right.
pub(super) fn is_sealed(block: &[u8]) -> bool {
    block[CHECKSUM] == checksum(block)
}

/// Patches `content`, which consists of blocks of `size` bytes. `span` says how much of what begins
/// at a block its seal covers. Says how many patches there were.
pub(super) fn patch(
    content: &mut [u8],
    size: usize,
    span: impl Fn(&[u8]) -> usize,
    input: &mut Input<'_>,
) -> usize {
    let mut done = 0;
    while !input.is_empty() && done < PATCHES_MAX {
        let block = input.below(content.len() / size);
        let how = input.u8();
        let rest = &mut content[block * size..];
        let at = input.below(rest.len());
        for (to, from) in rest[at..].iter_mut().zip(input.short()) {
            *to = if how & 2 == 0 { *from } else { *to ^ *from };
        }
        if how & 1 == 1 {
            let len = span(rest).min(rest.len());
            seal(&mut rest[..len]);
        }
        done += 1;
    }
    done
}

/// Changes up to four neighbouring bytes within one block, wholly inside or outside of its checksum:
/// what a CRC of 32 bits finds for certain. Says which block has changed; `None`: none has.
pub(super) fn rot(content: &mut [u8], size: usize, input: &mut Input<'_>) -> Option<usize> {
    let at = usize::try_from(input.u32()).unwrap() % content.len();
    let start = at % size;
    let end = match start {
        0..12 => 12,
        12..16 => 16,
        _ => size,
    };
    let mut changed = false;
    for (to, by) in content[at..at - start + end].iter_mut().zip(input.take(4)) {
        *to ^= by;
        changed |= *by != 0;
    }
    changed.then_some(at / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_that_is_sealed_again_is_a_good_block() {
        let mut content = vec![7; 64];
        let script = [1, 0, 1, 20, 0, 2, 9, 9];
        let done = patch(&mut content, 32, |_| 32, &mut Input(&script));
        assert_eq!(done, 1);
        assert_eq!(content[32 + 20..32 + 23], [9, 9, 7]);
        assert!(is_sealed(&content[32..]) && !is_sealed(&content[..32]));
    }

    #[test]
    fn rot_stays_on_one_side_of_the_checksum() {
        for at in 0..64u8 {
            let mut content = vec![0; 64];
            let block = rot(&mut content, 32, &mut Input(&[at, 0, 0, 0, 1, 1, 1, 1]));
            assert_eq!(block, Some(usize::from(at) / 32));
            let hit: Vec<usize> = (0..64).filter(|i| content[*i] != 0).map(|i| i % 32).collect();
            let inside = hit.iter().filter(|i| CHECKSUM.contains(i)).count();
            assert!(inside == 0 || inside == hit.len(), "{at}: {hit:?}");
        }
    }
}
