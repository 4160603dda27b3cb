//! The client's side of option negotiation.

use crate::disk::{Error, ErrorKind, Result};
use crate::nbd::wire::{
    BASE_ALLOCATION, ContextQuery, Greeting, InfoReply, InfoRequest, OPTION_MAX, OptionHeader,
    OptionReply, Writer, decode_context, decode_export, decode_listed, flag, handshake_flag, info,
    option, reply,
};
use crate::nbd::{BlockSizes, ExportInfo};
use crate::units::VOLUME_MAX;

/// The most replies we read to one option, and the most exports we list.
const REPLIES_MAX: usize = 10_000;

/// The least that a server must take at once, in bytes: an operation costs no more memory for its
/// requests than it is long.
const MAXIMUM_LEAST: u32 = 4096;

/// What the server agreed to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Negotiated {
    /// The export's length in bytes.
    pub size: u64,
    /// What it can do; see [`flag`].
    pub flags: u16,
    /// Which requests it takes.
    pub blocks: BlockSizes,
    /// Whether it answers in chunks.
    pub structured: bool,
    /// Its number for `base:allocation`, if it has that.
    pub context: Option<u32>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this, then read a reply.
    Send(Vec<u8>),
    /// Read another reply.
    Read,
    /// Send this, then read the export's size and flags and this many zeroes.
    Export(Vec<u8>, usize),
    /// Send requests.
    Ready(Negotiated),
}

/// One negotiation for an export.
#[derive(Debug)]
pub struct Client {
    name: String,
    no_zeroes: bool,
    /// The option whose answer is awaited.
    awaited: u32,
    replies: usize,
    /// What the server agreed to so far; the size is there after its `EXPORT` fact.
    agreed: Negotiated,
    sized: bool,
}

impl Client {
    /// Answers a greeting, and asks for TLS before all else.
    pub fn starttls(greeting: Greeting) -> Result<Vec<u8>> {
        if greeting.flags & handshake_flag::FIXED_NEWSTYLE == 0 {
            let what = "the NBD server is not of the fixed newstyle: it has no TLS";
            return Err(Error::own(ErrorKind::NotPermitted, what));
        }
        let ask = OptionHeader::encode(option::STARTTLS, &[]);
        Ok([client_flags(greeting), ask].concat())
    }

    /// Takes the header of the answer to [`starttls`](Self::starttls) in, and its data.
    pub fn starttls_granted(header: OptionReply, data: &[u8]) -> Result<()> {
        match header.kind {
            reply::ACK if header.length == 0 => Ok(()),
            kind if kind & reply::ERROR != 0 => Err(refusal("TLS", kind, data)),
            kind => Err(corrupt(format!("reply of kind {kind} to STARTTLS"))),
        }
    }

    /// How many bytes of data follow the header of the answer to [`starttls`](Self::starttls).
    pub fn starttls_header(header: OptionReply) -> Result<usize> {
        check_reply(header, option::STARTTLS, &mut 0)
    }

    /// Asks for the first option over TLS; the greeting was answered before.
    pub fn resume(name: &str, greeting: Greeting) -> (Self, Step) {
        let (client, _) = Self::begin(name, greeting);
        (client, Step::Send(OptionHeader::encode(option::STRUCTURED_REPLY, &[])))
    }

    /// Answers a greeting, and asks for the first option.
    pub fn begin(name: &str, greeting: Greeting) -> (Self, Step) {
        let fixed = greeting.flags & handshake_flag::FIXED_NEWSTYLE != 0;
        let no_zeroes = greeting.flags & handshake_flag::NO_ZEROES != 0;
        let agreed = Negotiated {
            size: 0,
            flags: 0,
            blocks: BlockSizes::default(),
            structured: false,
            context: None,
        };
        let client = Self {
            name: name.to_owned(),
            no_zeroes,
            awaited: option::STRUCTURED_REPLY,
            replies: 0,
            agreed,
            sized: false,
        };
        let flags = client_flags(greeting);
        let step = if fixed {
            let first = OptionHeader::encode(option::STRUCTURED_REPLY, &[]);
            Step::Send([flags, first].concat())
        } else {
            // A server of the old kind closes at any option but this one.
            match client.export_name() {
                Step::Export(bytes, zeroes) => Step::Export([flags, bytes].concat(), zeroes),
                other => other,
            }
        };
        (client, step)
    }

    /// What the header of a reply says is next: how many bytes of data to read.
    pub fn header(&mut self, header: OptionReply) -> Result<usize> {
        check_reply(header, self.awaited, &mut self.replies)
    }

    /// Takes a reply in.
    pub fn reply(&mut self, kind: u32, data: &[u8]) -> Result<Step> {
        let refused = kind & reply::ERROR != 0;
        match self.awaited {
            option::STRUCTURED_REPLY => {
                self.agreed.structured = kind == reply::ACK;
                if self.agreed.structured {
                    let queries = vec![BASE_ALLOCATION.to_owned()];
                    let query = ContextQuery { name: self.name.clone(), queries };
                    Ok(self.ask(option::SET_META_CONTEXT, &query.encode()))
                } else {
                    Ok(self.go())
                }
            }
            option::SET_META_CONTEXT if kind == reply::META_CONTEXT => {
                let (id, name) = decode_context(data).map_err(corrupt)?;
                if name == BASE_ALLOCATION {
                    self.agreed.context = Some(id);
                }
                Ok(Step::Read)
            }
            option::SET_META_CONTEXT => {
                if refused {
                    self.agreed.context = None;
                }
                Ok(self.go())
            }
            option::GO if kind == reply::INFO => {
                match InfoReply::decode(data).map_err(corrupt)? {
                    InfoReply::Export(size, flags) => {
                        self.sized = true;
                        (self.agreed.size, self.agreed.flags) = (size, flags);
                    }
                    InfoReply::Blocks(blocks) => self.agreed.blocks = blocks,
                    InfoReply::Name(_) | InfoReply::Description(_) | InfoReply::Other(_) => {}
                }
                Ok(Step::Read)
            }
            option::GO if kind == reply::ACK => self.ready(),
            option::GO if kind == reply::ERR_UNSUP => Ok(self.export_name()),
            option::GO if kind == reply::ERR_POLICY => {
                let error = refusal(&format!("export '{}'", self.name), kind, data);
                // Our servers say so of what never comes back: see `RefusalKind`.
                Err(Error::own(ErrorKind::Stale, error.to_string()))
            }
            _ if refused => Err(refusal(&format!("export '{}'", self.name), kind, data)),
            _ => Err(corrupt(format!("reply of kind {kind} to option {}", self.awaited))),
        }
    }

    /// Takes in the answer to `EXPORT_NAME`.
    pub fn export(&mut self, bytes: &[u8; crate::nbd::wire::EXPORT_LEN]) -> Result<Step> {
        (self.agreed.size, self.agreed.flags) = decode_export(bytes).map_err(corrupt)?;
        self.sized = true;
        self.ready()
    }

    fn ask(&mut self, option: u32, data: &[u8]) -> Step {
        self.awaited = option;
        self.replies = 0;
        Step::Send(OptionHeader::encode(option, data))
    }

    fn go(&mut self) -> Step {
        let request = InfoRequest { name: self.name.clone(), wanted: vec![info::BLOCK_SIZE] };
        self.ask(option::GO, &request.encode())
    }

    fn export_name(&self) -> Step {
        let zeroes = if self.no_zeroes { 0 } else { crate::nbd::wire::EXPORT_ZEROES };
        let bytes = OptionHeader::encode(option::EXPORT_NAME, self.name.as_bytes());
        Step::Export(bytes, zeroes)
    }

    fn ready(&self) -> Result<Step> {
        let Negotiated { size, flags, blocks, .. } = self.agreed;
        if !self.sized || flags & flag::HAS_FLAGS == 0 {
            return Err(corrupt(format!("export '{}' without size or flags", self.name)));
        }
        if size > VOLUME_MAX {
            let name = &self.name;
            return Err(corrupt(format!("export '{name}' of {size} bytes, limit {VOLUME_MAX}")));
        }
        if !blocks.is_valid() {
            return Err(corrupt(format!("export '{}' with {blocks:?}", self.name)));
        }
        if u64::from(blocks.maximum) < size.min(MAXIMUM_LEAST.into()) {
            return Err(corrupt(format!(
                "export '{}' takes {} bytes at once, {MAXIMUM_LEAST} are the least",
                self.name, blocks.maximum
            )));
        }
        if !size.is_multiple_of(blocks.minimum.into()) {
            return Err(corrupt(format!(
                "export '{}' of {size} bytes is no multiple of its own minimum block size {}",
                self.name, blocks.minimum
            )));
        }
        Ok(Step::Ready(self.agreed.clone()))
    }
}

/// One negotiation for the list of exports.
#[derive(Debug, Default)]
pub struct Listing {
    exports: Vec<ExportInfo>,
    replies: usize,
}

impl Listing {
    /// Answers a greeting, and asks for the list.
    pub fn begin(greeting: Greeting) -> Result<(Self, Vec<u8>)> {
        if greeting.flags & handshake_flag::FIXED_NEWSTYLE == 0 {
            let what = "the NBD server is not of the fixed newstyle: it has no list of exports";
            return Err(Error::own(ErrorKind::NotPermitted, what));
        }
        let ask = OptionHeader::encode(option::LIST, &[]);
        Ok((Self::default(), [client_flags(greeting), ask].concat()))
    }

    /// Asks for the list over TLS; the greeting was answered before.
    pub fn resume() -> (Self, Vec<u8>) {
        (Self::default(), OptionHeader::encode(option::LIST, &[]))
    }

    /// What the header of a reply says is next: how many bytes of data to read.
    pub fn header(&mut self, header: OptionReply) -> Result<usize> {
        check_reply(header, option::LIST, &mut self.replies)
    }

    /// Takes a reply in; the list when it is complete.
    pub fn reply(&mut self, kind: u32, data: &[u8]) -> Result<Option<Vec<ExportInfo>>> {
        match kind {
            reply::SERVER => {
                let (name, description) = decode_listed(data).map_err(corrupt)?;
                self.exports.push(ExportInfo { name, description });
                Ok(None)
            }
            reply::ACK => Ok(Some(std::mem::take(&mut self.exports))),
            _ if kind & reply::ERROR != 0 => Err(refusal("the list of exports", kind, data)),
            _ => Err(corrupt(format!("reply of kind {kind} to LIST"))),
        }
    }

    /// The bytes that say goodbye.
    pub fn goodbye() -> Vec<u8> {
        OptionHeader::encode(option::ABORT, &[])
    }
}

/// Agrees to what the server offers of the flags we know.
fn client_flags(greeting: Greeting) -> Vec<u8> {
    let known = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
    Writer::default().u32((greeting.flags & known).into()).0
}

fn check_reply(header: OptionReply, awaited: u32, replies: &mut usize) -> Result<usize> {
    *replies += 1;
    if header.option != awaited {
        return Err(corrupt(format!("reply to option {}, awaited {awaited}", header.option)));
    }
    if header.length > OPTION_MAX || *replies > REPLIES_MAX {
        return Err(corrupt(format!(
            "reply number {replies} to option {awaited} with {} bytes of data",
            header.length
        )));
    }
    Ok(crate::units::usize_of(header.length.into()))
}

fn corrupt(why: impl std::fmt::Display) -> Error {
    Error::own(ErrorKind::Corrupt, format!("the NBD server breaks the protocol: {why}"))
}

/// A server's no, with its own words.
fn refusal(what: &str, kind: u32, data: &[u8]) -> Error {
    let reason = match kind {
        reply::ERR_UNSUP => "not supported",
        reply::ERR_POLICY => "not allowed",
        reply::ERR_INVALID => "invalid",
        reply::ERR_UNKNOWN => "unknown",
        reply::ERR_SHUTDOWN => "the server is shutting down",
        reply::ERR_TOO_BIG => "too long",
        _ => "refused",
    };
    let text = String::from_utf8_lossy(data);
    let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
    let kind =
        if kind == reply::ERR_SHUTDOWN { ErrorKind::Disconnected } else { ErrorKind::NotPermitted };
    Error::own(kind, format!("the NBD server refuses {what}: {reason}: {text}"))
}
