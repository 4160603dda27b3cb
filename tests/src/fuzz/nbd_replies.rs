//! What an NBD server says in its transmission phase, taken apart without the product's reader.
//!
//! ```text
//!   simple reply  0x67446698(4) errno(4) cookie(8)                 data of a read that went well
//!   chunk         0x668e33ef(4) flags(2) kind(2) cookie(8) length(4) content
//! ```

use std::collections::BTreeMap;

use understudy_core::nbd::wire::Extent;

/// An answer, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) cookie: u64,
    pub(super) errno: u32,
    /// Offset and bytes.
    pub(super) data: Vec<(u64, Vec<u8>)>,
    pub(super) extents: Vec<Extent>,
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn short(bytes: &[u8]) -> u32 {
    u32::try_from(number(bytes)).unwrap()
}

/// Takes answers apart. `data_of` says how much data follows a simple reply that is no error. An answer
/// that is cut off at the end is left out.
pub(super) fn replies(mut bytes: &[u8], data_of: impl Fn(u64) -> usize) -> Vec<Reply> {
    let mut whole = Vec::new();
    let mut open: BTreeMap<u64, Reply> = BTreeMap::new();
    while bytes.len() >= 16 {
        match short(&bytes[..4]) {
            0x6744_6698 => {
                let (errno, cookie) = (short(&bytes[4..8]), number(&bytes[8..16]));
                let len = if errno == 0 { data_of(cookie) } else { 0 };
                let Some(data) = bytes.get(16..16 + len) else { break };
                let data = if len == 0 { Vec::new() } else { vec![(0, data.to_vec())] };
                whole.push(Reply { cookie, errno, data, extents: Vec::new() });
                bytes = &bytes[16 + len..];
            }
            0x668e_33ef => {
                let Some(head) = bytes.get(..20) else { break };
                let (flags, kind) = (number(&head[4..6]), number(&head[6..8]));
                let (cookie, len) =
                    (number(&head[8..16]), usize::try_from(number(&head[16..])).unwrap());
                let Some(content) = bytes.get(20..20 + len) else { break };
                bytes = &bytes[20 + len..];
                let reply = open.entry(cookie).or_insert(Reply { cookie, ..Reply::default() });
                chunk(reply, kind, content);
                if flags & 1 == 1 {
                    whole.extend(open.remove(&cookie));
                }
            }
            other => panic!("an answer that begins with {other:#x}"),
        }
    }
    whole
}

fn chunk(reply: &mut Reply, kind: u64, content: &[u8]) {
    match kind {
        0 => assert!(content.is_empty()),
        1 => {
            assert!(content.len() > 8, "a chunk without data");
            reply.data.push((number(&content[..8]), content[8..].to_vec()));
        }
        2 => {
            assert_eq!(content.len(), 12, "a hole");
            let len = usize::try_from(short(&content[8..])).unwrap();
            assert!((1..=1 << 25).contains(&len), "a hole of {len} bytes");
            reply.data.push((number(&content[..8]), vec![0; len]));
        }
        5 => {
            assert!(
                content.len() > 4 && content.len() % 8 == 4,
                "{} bytes of extents",
                content.len()
            );
            for pair in content[4..].chunks(8) {
                let extent = Extent { length: short(&pair[..4]), flags: short(&pair[4..]) };
                assert!(extent.length > 0, "an extent of nothing");
                reply.extents.push(extent);
            }
        }
        _ if kind & 0x8000 != 0 => {
            let text = usize::try_from(number(&content[4..6])).unwrap();
            assert_eq!(content.len(), 6 + text + if kind == 0x8002 { 8 } else { 0 });
            assert!(std::str::from_utf8(&content[6..6 + text]).is_ok());
            let errno = short(&content[..4]);
            assert!(errno != 0, "an error that is none");
            reply.errno = errno;
        }
        other => panic!("a chunk of kind {other}"),
    }
}
