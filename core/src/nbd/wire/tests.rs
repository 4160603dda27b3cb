//! Every message reads back as it was written, and no bytes make a decoder panic.

use super::*;
use crate::nbd::BlockSizes;

/// A seed from the environment or the clock; printed, so that a failure can be had again.
pub(in crate::nbd) fn seed() -> u64 {
    let given = std::env::var("UNDERSTUDY_SEED").ok().and_then(|s| s.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        u64::try_from(now.unwrap().as_nanos() & u128::from(u64::MAX)).unwrap()
    });
    println!("UNDERSTUDY_SEED={seed}");
    seed
}

/// A small random generator (xorshift64*).
pub(in crate::nbd) struct Random(pub(in crate::nbd) u64);

impl Random {
    pub(in crate::nbd) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(in crate::nbd) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }

    pub(in crate::nbd) fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }
}

fn decode_all(bytes: &[u8]) {
    fn head<const N: usize>(bytes: &[u8]) -> [u8; N] {
        let mut out = [0; N];
        for (o, b) in out.iter_mut().zip(bytes) {
            *o = *b;
        }
        out
    }
    let _ = Greeting::decode(&head(bytes));
    let _ = OptionHeader::decode(&head(bytes));
    let _ = OptionReply::decode(&head(bytes));
    let _ = Request::decode(&head(bytes));
    let _ = SimpleReply::decode(&head(bytes));
    let _ = Chunk::decode(&head(bytes));
    let _ = InfoRequest::decode(bytes);
    let _ = InfoReply::decode(bytes);
    let _ = ContextQuery::decode(bytes);
    let _ = ErrorChunk::decode(chunk::ERROR, bytes);
    let _ = ErrorChunk::decode(chunk::ERROR_OFFSET, bytes);
    let _ = decode_context(bytes);
    let _ = decode_listed(bytes);
    let _ = decode_hole(bytes);
    let _ = decode_extents(bytes);
    let _ = decode_export(&head(bytes));
}

fn samples() -> Vec<Vec<u8>> {
    vec![
        Greeting { flags: 3 }.encode(),
        OptionHeader::encode(option::GO, b"data"),
        OptionReply::encode(option::GO, reply::ACK, b""),
        Request { flags: 1, command: 1, cookie: 7, offset: 8, length: 9 }.encode().to_vec(),
        SimpleReply { errno: 5, cookie: 7 }.encode().to_vec(),
        Chunk { flags: 1, kind: 2, cookie: 3, length: 4 }.encode().to_vec(),
        InfoRequest { name: "a".into(), wanted: vec![1, 2, 3] }.encode(),
        ContextQuery { name: "a".into(), queries: vec!["b:".into(), "c:d".into()] }.encode(),
        ErrorChunk { errno: 5, text: "no".into(), offset: Some(9) }.encode(),
    ]
}

#[test]
fn any_bytes_are_a_message_or_malformed_but_never_a_panic() {
    let mut random = Random(seed() | 1);
    let samples = samples();
    for _ in 0..20_000 {
        let len = random.below(80);
        decode_all(&random.bytes(len));
        // A good message with a few bytes changed goes deeper than noise does.
        let which = usize_below(&mut random, samples.len());
        let mut bytes = samples[which].clone();
        for _ in 0..random.below(4) {
            let at = usize_below(&mut random, bytes.len());
            bytes[at] = random.bytes(1)[0];
        }
        bytes.truncate(usize_below(&mut random, bytes.len() + 1));
        decode_all(&bytes);
    }
}

fn usize_below(random: &mut Random, n: usize) -> usize {
    usize::try_from(random.below(u64::try_from(n).unwrap())).unwrap()
}

#[test]
fn messages_read_back_as_they_were_written() {
    let request = Request { flags: 3, command: 6, cookie: u64::MAX, offset: 1 << 40, length: 77 };
    assert_eq!(Request::decode(&request.encode()), Ok(request));
    let header = Chunk { flags: 1, kind: chunk::OFFSET_HOLE, cookie: 9, length: 12 };
    assert_eq!(Chunk::decode(&header.encode()), Ok(header));
    let wanted = InfoRequest { name: "vol/primary".into(), wanted: vec![3, 0] };
    assert_eq!(InfoRequest::decode(&wanted.encode()), Ok(wanted));
    let query = ContextQuery { name: String::new(), queries: vec!["base:allocation".into()] };
    assert_eq!(ContextQuery::decode(&query.encode()), Ok(query));
    for fact in [
        InfoReply::Export(1 << 41, 0x1ed),
        InfoReply::Name("n".into()),
        InfoReply::Description("what it is".into()),
        InfoReply::Blocks(BlockSizes::of(512)),
    ] {
        assert_eq!(InfoReply::decode(&fact.encode()), Ok(fact));
    }
    for offset in [None, Some(4096)] {
        let e = ErrorChunk { errno: 28, text: "voll".into(), offset };
        assert_eq!(ErrorChunk::decode(e.kind(), &e.encode()), Ok(e));
    }
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    let r = Request { flags: 1, command: 1, cookie: 2, offset: 3, length: 4 };
    assert_eq!(
        &r.encode(),
        b"\x25\x60\x95\x13\0\x01\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\x04"
    );
    assert_eq!(&Greeting { flags: 3 }.encode(), b"NBDMAGICIHAVEOPT\x00\x03");
    assert_eq!(
        OptionReply::encode(7, reply::ERR_UNKNOWN, b"x"),
        b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x80\x00\x00\x06\x00\x00\x00\x01x"
    );
}

#[test]
fn counts_that_do_not_fit_are_refused_before_they_cost_memory() {
    let huge = Writer::default().text32("a").u32(u32::MAX).0;
    assert!(ContextQuery::decode(&huge).is_err());
    let long = Writer::default().u32(u32::MAX).bytes(b"a").0;
    assert!(InfoRequest::decode(&long).is_err());
    assert!(decode_extents(&[0, 0, 0, 1]).is_err());
    assert!(decode_extents(&[0; 12]).is_err(), "an extent of no bytes");
}

#[test]
fn an_oldstyle_server_is_named_as_such() {
    let bytes = *b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\x00\x00";
    assert!(Greeting::decode(&bytes).unwrap_err().0.contains("oldstyle"));
}
