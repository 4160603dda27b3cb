//! An NBD server, fed by any client.
//!
//! ```text
//!   script:  mode(1)   bit 0 raw bytes in pieces; else options and requests:
//!            read-only and so on(1) block(1) options(1)  { code(1) data(1+n) }…
//!            request:  command(1) flags(2) offset(4) length(4)  │ fill(1) of a write
//! ```
//!
//! Holds: it ends; nothing reaches beyond the export, misaligned, or into one that is read-only;
//! each request that was wholly sent to a client that stays is answered exactly once; reads bring
//! what a plain array holds after the writes that were answered well.

use std::collections::BTreeMap;

use understudy_core::disk::{Disk, Memory};
use understudy_core::nbd::server::{End, Limits, serve_within};
use understudy_core::nbd::wire::{
    BASE_ALLOCATION, ContextQuery, InfoRequest, OptionHeader, REQUEST_MAX, Request, command, option,
};
use understudy_core::nbd::{BlockSizes, Catalog, Export, ExportInfo, Refusal};
use understudy_core::runtime::Data;
use understudy_core::units::{ByteOffset, u64_of, usize_of};

use super::input::{Input, Script};
use super::nbd_replies::{Reply, replies};
use super::watched::{Watched, now};
use super::world::{Far, Next, Wire, World};

/// What lies behind the export's last whole block, and must never be touched.
const LEN: usize = (192 << 10) + 100;
/// The most that the server may say: a read of all for each request, and its chunks.
const SAID_MAX: usize = 64 << 20;
const REQUESTS_MAX: usize = 32;

/// The client: what it says, one message at a time.
#[derive(Default)]
struct Client {
    messages: Vec<Vec<u8>>,
    next: usize,
    /// Which message is the first request.
    first: usize,
    said: Vec<u8>,
    /// How much the server had said when the first request was taken.
    negotiated: Option<usize>,
}

impl Far for Client {
    fn next(&mut self) -> Next {
        if self.next == self.first && self.negotiated.is_none() {
            self.negotiated = Some(self.said.len());
        }
        let Some(message) = self.messages.get(self.next) else { return Next::End };
        self.next += 1;
        if message.is_empty() { self.next() } else { Next::Bytes(message.clone()) }
    }

    fn sent(&mut self, bytes: &[u8]) {
        self.said.extend_from_slice(bytes);
        assert!(self.said.len() <= SAID_MAX, "a server that never stops talking");
    }
}

/// One export.
struct One {
    disk: Watched,
    read_only: bool,
    minimum: u32,
}

impl Catalog for One {
    type Disk = Watched;

    fn list(&self) -> Vec<ExportInfo> {
        vec![ExportInfo { name: "vol".into(), description: "a volume".into() }]
    }

    fn open(&self, name: &str) -> Result<Export<Watched>, Refusal> {
        match name {
            "vol" => {
                let mut export = Export::new(self.disk.clone());
                export.read_only = self.read_only;
                export.blocks =
                    BlockSizes { maximum: 1 << 20, ..BlockSizes::of(self.minimum.into()) };
                Ok(export)
            }
            "old" => Err(Refusal::gone("it is stale")),
            _ => Err(Refusal::unknown("there is 'vol'")),
        }
    }
}

struct Case {
    messages: Vec<Vec<u8>>,
    first: usize,
    requests: Vec<(Request, u8)>,
    read_only: bool,
    minimum: u32,
}

fn negotiation(what: u8, input: &mut Input<'_>) -> Vec<Vec<u8>> {
    let mut messages = vec![if what & 32 == 0 { vec![0, 0, 0, 3] } else { vec![0, 0, 0, 1] }];
    for _ in 0..input.u8() % 8 {
        let code = u32::from(input.u8());
        messages.push(OptionHeader::encode(code, input.short()));
    }
    if what & 2 != 0 {
        messages.push(OptionHeader::encode(option::STRUCTURED_REPLY, &[]));
    }
    if what & 4 != 0 {
        let queries = vec![BASE_ALLOCATION.to_owned(), "base:".to_owned()];
        let query = ContextQuery { name: "vol".into(), queries };
        messages.push(OptionHeader::encode(option::SET_META_CONTEXT, &query.encode()));
    }
    messages.push(if what & 8 == 0 {
        let go = InfoRequest { name: "vol".into(), wanted: vec![3, 1, 0, 2, 9] };
        OptionHeader::encode(option::GO, &go.encode())
    } else {
        OptionHeader::encode(option::EXPORT_NAME, b"vol")
    });
    messages
}

fn case(bytes: &[u8]) -> Case {
    let mut input = Input(bytes);
    let mode = input.u8();
    if mode & 1 == 1 {
        let piece = [1 << 20, 1, 28, 100][usize::from(mode >> 1 & 3)];
        let messages = input.rest().chunks(piece).map(<[u8]>::to_vec).collect();
        let (first, requests) = (usize::MAX, Vec::new());
        return Case { messages, first, requests, read_only: false, minimum: 512 };
    }
    let what = input.u8();
    let minimum = [1, 512, 4096][usize::from(input.u8() % 3)];
    let mut messages = negotiation(what, &mut input);
    let first = messages.len();
    let mut requests = Vec::new();
    while !input.is_empty() && requests.len() < REQUESTS_MAX {
        let (command, flags) = (u16::from(input.u8()), input.u16());
        let (offset, length) = (u64::from(input.u32()), input.u32());
        // The highest bit asks for the unlikely; else it is somewhere around the export.
        let offset = if offset >> 31 == 1 { offset << 32 } else { offset % (2 * u64_of(LEN)) };
        let length = if length >> 31 == 1 { length } else { length % (1 << 18) };
        let (offset, length) = match what & 16 {
            0 => (offset, length),
            _ => (offset & !4095, length & !4095),
        };
        let fill = input.u8();
        let request =
            Request { flags, command, cookie: u64_of(requests.len()) + 100, offset, length };
        let mut message = request.encode().to_vec();
        // What is far too long is not read at all.
        if command == command::WRITE && length <= 2 * REQUEST_MAX {
            message.resize(message.len() + usize_of(length.into()), fill);
        }
        messages.push(message);
        requests.push((request, fill));
    }
    Case { messages, first, requests, read_only: what & 1 != 0, minimum }
}

/// What the disk holds at first.
fn content() -> Vec<u8> {
    (0..LEN).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

/// What a server did.
struct Served {
    end: End,
    client: Client,
    content: Vec<u8>,
}

fn serve(case: &Case) -> Served {
    let memory = Memory::new(u64_of(LEN), 0);
    now(memory.write(ByteOffset(0), Data::copy_of(&content()))).unwrap();
    let border = u64_of(LEN) / u64::from(case.minimum) * u64::from(case.minimum);
    let disk = Watched::over(memory.clone(), border, case.minimum.into());
    let catalog = One { disk, read_only: case.read_only, minimum: case.minimum };
    let client = Client { messages: case.messages.clone(), first: case.first, ..Client::default() };
    let (world, wire) = (World::new(), Wire::new(client));
    let (env, stream) = (world.clone(), wire.clone());
    let limits = Limits::default();
    let end = world.run(async move { serve_within(&env, stream, &catalog, &limits).await });
    let client = wire.far(std::mem::take);
    Served { end, client, content: memory.content() }
}

/// The target.
pub fn nbd_server(bytes: &[u8]) {
    let case = case(bytes);
    let Served { end, client, content } = serve(&case);
    let mut model = self::content();
    let Some(from) = client.negotiated.filter(|_| case.first != usize::MAX) else {
        // A raw client may have written; what is behind the last block it can't have reached.
        let tail = LEN / 512 * 512;
        assert!(content[tail..] == model[tail..]);
        return;
    };
    let length = |cookie: u64| {
        let asked =
            case.requests.iter().find(|(r, _)| r.cookie == cookie && r.command == command::READ);
        asked.map_or(0, |(r, _)| usize_of(r.length.into()))
    };
    let mut answers: BTreeMap<u64, Vec<Reply>> = BTreeMap::new();
    for reply in replies(&client.said[from..], length) {
        answers.entry(reply.cookie).or_default().push(reply);
    }
    let mut unanswered = 0;
    for (request, fill) in &case.requests {
        let Some(answer) = answers.remove(&request.cookie) else {
            unanswered += 1;
            continue;
        };
        assert_eq!(answer.len(), 1, "{request:?} was answered {} times", answer.len());
        apply(&case, request, *fill, &answer[0], &mut model);
    }
    assert!(answers.is_empty(), "answers to nothing: {answers:?}");
    if matches!(end, End::Left) && client.next == client.messages.len() {
        let left = case.requests.iter().any(|(r, _)| r.command == command::DISCONNECT);
        assert!(unanswered == 0 || left, "{unanswered} requests were not answered");
    }
    assert!(content == model, "the disk differs from what was answered");
}

/// Does to the model what the answer says was done.
fn apply(case: &Case, request: &Request, fill: u8, reply: &Reply, model: &mut [u8]) {
    if reply.errno != 0 {
        return;
    }
    let size = u64_of(LEN) / u64::from(case.minimum) * u64::from(case.minimum);
    let end = request.offset + u64::from(request.length);
    let range = usize_of(request.offset)..usize_of(end);
    let changes = [command::WRITE, command::TRIM, command::WRITE_ZEROES].contains(&request.command);
    assert!(!(changes && case.read_only), "{request:?} of a read-only export");
    assert!(request.command == command::FLUSH || end <= size, "{request:?} is beyond {size}");
    match request.command {
        command::READ => {
            let mut bytes = vec![None; range.len()];
            for (offset, data) in &reply.data {
                // A simple reply does not say where.
                let at = usize_of(offset.saturating_sub(request.offset));
                for (n, byte) in data.iter().enumerate() {
                    assert_eq!(bytes[at + n].replace(*byte), None, "a byte comes twice");
                }
            }
            let model = model[range].iter().map(|byte| Some(*byte));
            assert!(bytes.into_iter().eq(model), "{request:?} brings something else");
        }
        command::WRITE => model[range].fill(fill),
        command::TRIM | command::WRITE_ZEROES => model[range].fill(0),
        command::BLOCK_STATUS => {
            let told: u64 = reply.extents.iter().map(|e| u64::from(e.length)).sum();
            assert!(told > 0 && told <= u64::from(request.length), "{request:?}: {told} bytes");
        }
        command::FLUSH => {}
        other => panic!("the command {other} was answered well"),
    }
}

pub(super) fn reaches(bytes: &[u8]) -> bool {
    let case = case(bytes);
    let served = serve(&case);
    served.client.said.len() > 18 + 20
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let ask = |s: Script, command: u8, flags: u16, offset: u32, length: u32| {
        s.u8(command).u16(flags).u32(offset).u32(length).u8(0x77)
    };
    let all = |what: u8, block: u8| {
        let s = Script::default().u8(0).u8(what).u8(block).u8(1).u8(3).short(&[]);
        let s = ask(s, 1, 0, 4096, 8192);
        let s = ask(s, 0, 0, 0, 16384);
        let s = ask(s, 6, 0, 8192, 4096);
        let s = ask(s, 4, 1, 0, 4096);
        let s = ask(s, 3, 0, 0, 0);
        let s = ask(s, 7, 0, 0, 1 << 16);
        let s = ask(s, 0, 4, 4096, 1 << 17);
        ask(ask(s, 0, 0, 1 << 31, 4096), 2, 0, 0, 0).0
    };
    let raw: Vec<u8> = case(&all(6, 1)).messages.concat();
    vec![
        ("simple", all(0, 0)),
        ("structured", all(2 | 4 | 16, 1)),
        ("structured-read-only", all(1 | 2 | 4, 2)),
        ("export-name", all(8 | 16, 1)),
        ("export-name-zeroes", all(8 | 32, 0)),
        ("raw-in-pieces", Script::default().u8(5).raw(&raw).0),
        (
            "raw-options",
            Script::default()
                .u8(1)
                .raw(&[0, 0, 0, 3])
                .raw(&OptionHeader::encode(option::LIST, &[]))
                .0,
        ),
    ]
}
