//! What is on a device, from its first and last bytes. Pure.
//!
//! ```text
//!   0          1024   1080        4096                       128 KiB    …    last 128 KiB
//!   ├──────────┼──────┼───────────┼──────────────────────────┤          ├──────────────┤
//!   │ ours     │ ext4: 0xEF53 at 1080                        │          │              │
//!   └ the mark of an ext4 that is being made                              GPT's copy, RAID marks
//!
//!   all zeroes ─► Blank      mark ─► Unfinished      ext4's magic ─► Ext4      else ─► Foreign
//! ```
//!
//! Only a blank or unfinished device is ever formatted.

/// How much is looked at, at each end, in bytes: every signature that `blkid` knows for disks of whole
/// MiB lies there.
pub(super) const LOOK: usize = 128 << 10;

/// What stands at the start of a device while an ext4 is made on it; the last write of the making
/// puts ext4's first block over it.
pub(super) const MARK: &[u8; 48] = b"understudy: an ext4 is being made here; format 1";

/// Where ext4's magic lies, and what it is.
const EXT4_MAGIC: (usize, [u8; 2]) = (1080, [0x53, 0xEF]);

/// Signatures of what people put on disks: where, what, and its name for messages.
const SIGNATURES: [(usize, &[u8], &str); 9] = [
    (0, b"XFSB", "an XFS"),
    (0x1_0040, b"_BHRfS_M", "a Btrfs"),
    (0, b"LUKS\xba\xbe", "a LUKS container"),
    (512, b"LABELONE", "an LVM physical volume"),
    (512, b"EFI PART", "a GPT partition table"),
    (4096, b"EFI PART", "a GPT partition table"),
    (510, b"\x55\xaa", "an MBR partition table or boot sector"),
    (4086, b"SWAPSPACE2", "a swap space"),
    (0x8001, b"CD001", "an ISO 9660"),
];

/// What is on a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// Nothing: zeroes.
    Blank,
    /// An ext4 that was not made to its end.
    Unfinished,
    /// An ext4.
    Ext4,
    /// Something else.
    Foreign(&'static str),
}

/// What is on a device that begins and ends like this.
pub(super) fn content(first: &[u8], last: &[u8]) -> Content {
    let has = |at: usize, magic: &[u8]| first.get(at..at + magic.len()) == Some(magic);
    if has(0, MARK) {
        return Content::Unfinished;
    }
    if has(EXT4_MAGIC.0, &EXT4_MAGIC.1) {
        return Content::Ext4;
    }
    if let Some((.., name)) = SIGNATURES.iter().find(|(at, magic, _)| has(*at, magic)) {
        return Content::Foreign(name);
    }
    if first.iter().chain(last).any(|byte| *byte != 0) {
        return Content::Foreign("data without a file system");
    }
    Content::Blank
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(at: usize, magic: &[u8]) -> Vec<u8> {
        let mut first = vec![0; LOOK];
        first[at..at + magic.len()].copy_from_slice(magic);
        first
    }

    #[test]
    fn zeroes_at_both_ends_are_blank() {
        assert_eq!(content(&vec![0; LOOK], &vec![0; LOOK]), Content::Blank);
    }

    #[test]
    fn an_ext4_is_one_even_with_a_boot_sector() {
        let mut first = device(1080, &[0x53, 0xef]);
        first[510] = 0x55;
        first[511] = 0xaa;
        assert_eq!(content(&first, &vec![0; LOOK]), Content::Ext4);
    }

    #[test]
    fn any_byte_that_is_not_zero_keeps_a_device_from_being_formatted() {
        for at in [0, 1, 511, 4095, 70_000, LOOK - 1] {
            let found = content(&device(at, &[1]), &vec![0; LOOK]);
            assert_eq!(found, Content::Foreign("data without a file system"), "{at}");
            let found = content(&vec![0; LOOK], &device(at, &[1]));
            assert_eq!(found, Content::Foreign("data without a file system"), "{at} at the end");
        }
    }

    #[test]
    fn what_is_there_is_called_by_its_name() {
        for (at, magic, name) in SIGNATURES {
            assert_eq!(content(&device(at, magic), &vec![0; LOOK]), Content::Foreign(name));
        }
    }

    #[test]
    fn a_making_that_broke_off_is_recognized_whatever_lies_behind_its_mark() {
        let mut first = device(0, MARK);
        first[5000] = 7;
        assert_eq!(content(&first, &vec![1; LOOK]), Content::Unfinished);
    }
}
