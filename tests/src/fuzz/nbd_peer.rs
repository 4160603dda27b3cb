//! An NBD server that says whatever its script wants, in answer to what it hears.
//!
//! ```text
//!   an option:   how(1)   bit 7: any kind and data; else as a server should
//!   a request:   how(1)   low half: what kind of answer; high half: to which of the open requests
//! ```
//!
//! Byte `n` of the volume is [`byte_at`] unless the script says raw bytes: so a read that ends well can
//! be judged.

use std::rc::Rc;

use understudy_core::nbd::BlockSizes;
use understudy_core::nbd::wire::{
    BASE_ALLOCATION, Chunk, ErrorChunk, Greeting, InfoReply, OptionReply, REQUEST_LEN, Request,
    SimpleReply, Writer, chunk, command, encode_export, option, reply,
};
use understudy_core::units::usize_of;

use super::input::Input;
use super::world::{Far, Next};

/// What a byte of the volume is; never 0.
pub(super) fn byte_at(offset: u64) -> u8 {
    1 + u8::try_from(offset % 127).unwrap()
}

/// The server.
pub(super) struct Peer {
    script: Rc<[u8]>,
    at: usize,
    /// Size, flags and block sizes that it offers.
    pub(super) size: u64,
    pub(super) flags: u16,
    pub(super) blocks: BlockSizes,
    greeting: Option<u16>,
    /// What was heard and not understood yet; the client's flags come first.
    heard: Vec<u8>,
    flags_heard: bool,
    serving: bool,
    open: Vec<Request>,
    /// How many requests were heard.
    pub(super) requests: usize,
    /// Whether all data it sent was the volume's.
    pub(super) honest: bool,
}

impl Peer {
    pub(super) fn new(
        greeting: u16,
        size: u64,
        flags: u16,
        blocks: BlockSizes,
        script: &[u8],
    ) -> Self {
        Self {
            script: script.into(),
            at: 0,
            size,
            flags,
            blocks,
            greeting: Some(greeting),
            heard: Vec::new(),
            flags_heard: false,
            serving: false,
            open: Vec::new(),
            requests: 0,
            honest: true,
        }
    }

    /// The answer to the next option; `None` if none was heard wholly.
    fn negotiate(&mut self, input: &mut Input<'_>) -> Option<Vec<u8>> {
        if !self.flags_heard {
            self.heard.get(..4)?;
            self.heard.drain(..4);
            self.flags_heard = true;
        }
        let word =
            |at: usize| Some(u32::from_be_bytes(self.heard.get(at..at + 4)?.try_into().ok()?));
        let (code, len) = (word(8)?, usize::try_from(word(12)?).ok()?);
        self.heard.get(..16 + len)?;
        self.heard.drain(..16 + len);
        let how = input.u8();
        if how & 0x80 != 0 {
            let kinds = [
                reply::ACK,
                reply::INFO,
                reply::META_CONTEXT,
                reply::SERVER,
                reply::ERR_UNSUP,
                reply::ERR_POLICY,
                reply::ERR_SHUTDOWN,
                input.u32(),
            ];
            self.honest = false;
            let kind = kinds[usize::from(how & 7)];
            self.serving = kind == reply::ACK && code == option::GO;
            let code = if how & 0x40 == 0 { code } else { input.u32() };
            return Some(OptionReply::encode(code, kind, input.short()));
        }
        let answer = |kind, data: &[u8]| OptionReply::encode(code, kind, data);
        Some(match code {
            option::STRUCTURED_REPLY if how & 1 == 0 => answer(reply::ACK, &[]),
            option::SET_META_CONTEXT if how & 1 == 0 => {
                let context = Writer::default().u32(1).bytes(BASE_ALLOCATION.as_bytes()).0;
                [answer(reply::META_CONTEXT, &context), answer(reply::ACK, &[])].concat()
            }
            option::GO if how & 1 == 0 => {
                self.serving = true;
                let size = InfoReply::Export(self.size, self.flags).encode();
                let blocks = InfoReply::Blocks(self.blocks).encode();
                let facts = [answer(reply::INFO, &size), answer(reply::INFO, &blocks)];
                [facts.concat(), answer(reply::ACK, &[])].concat()
            }
            option::EXPORT_NAME => {
                self.serving = true;
                encode_export(self.size, self.flags, how & 1 == 0)
            }
            option::LIST => {
                let one = Writer::default().text32("vol").bytes(b"a volume").0;
                [answer(reply::SERVER, &one), answer(reply::ACK, &[])].concat()
            }
            _ => answer(reply::ERR_UNSUP, b"no"),
        })
    }

    /// Takes requests out of what was heard.
    fn take_requests(&mut self) {
        while let Some(head) = self.heard.first_chunk::<REQUEST_LEN>() {
            let request = Request::decode(head).expect("the client sends requests");
            let payload = if request.command == command::WRITE { request.length } else { 0 };
            let len = REQUEST_LEN + usize_of(payload.into());
            if self.heard.len() < len {
                return;
            }
            self.heard.drain(..len);
            self.requests += 1;
            if request.command != command::DISCONNECT {
                self.open.push(request);
            }
        }
    }

    /// An answer to one of the open requests.
    fn answer(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let how = input.u8();
        let which = usize::from(how >> 4) % self.open.len();
        let request = self.open[which];
        let Request { cookie, offset, length, .. } = request;
        let data = |from: u64, len: u64| (from..from + len).map(byte_at).collect::<Vec<u8>>();
        let (mut done, mut kind) = (true, chunk::NONE);
        let mut content = Vec::new();
        // Somewhere within the request, or a little beyond.
        let part = |input: &mut Input<'_>| {
            let from = offset + u64::from(input.u16()) % (u64::from(length) + 1);
            (from, u64::from(input.u16()))
        };
        match how & 0xf {
            0 | 1 => {
                self.open.remove(which);
                let errno = if how & 1 == 0 { 0 } else { u32::from(input.u8()) };
                let mut out = SimpleReply { errno, cookie }.encode().to_vec();
                if errno == 0 && request.command == command::READ {
                    out.extend(data(offset, length.into()));
                }
                return out;
            }
            2 => {}
            3 | 4 => {
                let (from, len) = part(input);
                done = input.u8() & 1 == 1;
                kind = if how & 1 == 1 { chunk::OFFSET_DATA } else { chunk::OFFSET_HOLE };
                content.extend(from.to_be_bytes());
                if how & 1 == 1 {
                    content.extend(data(from, len));
                } else {
                    content.extend(u32::try_from(len).unwrap().to_be_bytes());
                }
            }
            5 => {
                kind = chunk::BLOCK_STATUS;
                let count = input.u8();
                done = count & 0x80 == 0;
                content.extend(1u32.to_be_bytes());
                for _ in 0..count % 8 {
                    content.extend((u32::from(input.u16()) << 4).to_be_bytes());
                    content.extend(u32::from(input.u8() & 3).to_be_bytes());
                }
            }
            6 | 7 => {
                let errno = u32::from(input.u8());
                let text = String::from_utf8_lossy(input.short()).into_owned();
                let error = ErrorChunk { errno, text, offset: (how & 1 == 1).then_some(offset) };
                (kind, content) = (error.kind(), error.encode());
            }
            8 => {
                kind = chunk::OFFSET_DATA;
                content.extend(offset.to_be_bytes());
                content.extend(data(offset, length.into()));
            }
            9 => {
                kind = chunk::OFFSET_HOLE;
                content.extend(offset.to_be_bytes());
                content.extend(length.to_be_bytes());
            }
            10 => {
                kind = chunk::BLOCK_STATUS;
                content.extend(1u32.to_be_bytes());
                content.extend(length.to_be_bytes());
                content.extend(3u32.to_be_bytes());
            }
            11 | 12 => {
                self.honest = false;
                kind = input.u16();
                content = input.short().to_vec();
                done = how & 1 == 1;
            }
            _ => {
                self.honest = false;
                return input.short().to_vec();
            }
        }
        if done {
            self.open.remove(which);
        }
        let length = u32::try_from(content.len()).unwrap();
        let header = Chunk { flags: u16::from(done), kind, cookie, length };
        [header.encode().to_vec(), content].concat()
    }
}

impl Far for Peer {
    fn next(&mut self) -> Next {
        if let Some(flags) = self.greeting.take() {
            return Next::Bytes(Greeting { flags }.encode());
        }
        let script = self.script.clone();
        let mut input = Input(&script[self.at..]);
        let bytes = if self.serving {
            self.take_requests();
            if self.open.is_empty() {
                return Next::Wait;
            }
            if input.is_empty() {
                return Next::End;
            }
            self.answer(&mut input)
        } else {
            match self.negotiate(&mut input) {
                Some(bytes) => bytes,
                None => return Next::Wait,
            }
        };
        self.at = script.len() - input.rest().len();
        // Of an answer that is no bytes at all nothing arrives.
        if bytes.is_empty() { self.next() } else { Next::Bytes(bytes) }
    }

    fn sent(&mut self, bytes: &[u8]) {
        self.heard.extend_from_slice(bytes);
    }
}
