//! The server's side of option negotiation.

use crate::disk::Disk;
use crate::nbd::wire::{
    BASE_ALLOCATION, ContextQuery, Greeting, InfoReply, InfoRequest, Malformed, OPTION_MAX,
    OptionHeader, OptionReply, Writer, encode_export, flag, handshake_flag, info, option, reply,
};
use crate::nbd::{Catalog, Export, Refusal, RefusalKind};

/// The most options one handshake may have.
pub const OPTIONS_MAX: u32 = 64;

/// Data of an option up to this length is read and thrown away; more ends the connection.
const SKIPPED_MAX: u32 = 1 << 20;

/// The number by which replies name the context `base:allocation`.
const CONTEXT_ID: u32 = 1;

/// One client's negotiation so far.
#[derive(Debug, Default)]
pub struct Server {
    no_zeroes: bool,
    structured: bool,
    /// The export that `base:allocation` was chosen for.
    context: Option<String>,
    options: u32,
    /// The client has begun TLS.
    secured: bool,
}

/// What is next after an option before TLS.
#[derive(Debug, PartialEq, Eq)]
pub enum BeforeTls {
    /// Another option.
    More,
    /// The client's TLS handshake; then options again.
    Begin,
    /// The end: the client left.
    Left,
    /// The end: there is no way to go on. Says why.
    Refused(&'static str),
}

/// What a client is told that does not begin TLS first.
const TLS_FIRST: &str =
    "this server speaks TLS only: use nbds://, or a client with TLS credentials";

/// What was agreed upon: how requests are served from now on.
#[derive(Clone, Debug)]
pub struct Session<D> {
    /// What is served.
    pub export: Export<D>,
    /// Its name.
    pub name: String,
    /// Whether reads are answered in chunks.
    pub structured: bool,
    /// The number of the context `base:allocation`, if it was chosen.
    pub context: Option<u32>,
}

/// Bytes for the client, and what is next.
#[derive(Debug)]
pub struct Answer<D> {
    /// To be sent, perhaps none.
    pub bytes: Vec<u8>,
    /// What is next.
    pub next: Next<D>,
}

/// What is next after an option.
#[derive(Debug)]
pub enum Next<D> {
    /// Another option.
    More,
    /// Requests.
    Transmit(Box<Session<D>>),
    /// The end: the client left.
    Left,
    /// The end: there is no way to go on. Says why.
    Refused(String),
}

impl Server {
    /// The bytes that open a connection.
    pub fn greeting() -> Vec<u8> {
        Greeting { flags: handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES }.encode()
    }

    /// The client's answer to the greeting.
    pub fn client_flags(&mut self, flags: u32) -> Result<(), Malformed> {
        let known = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
        if flags & !u32::from(known) != 0 {
            return Err(Malformed(format!("client flags {flags:#x}, known are {known:#x}")));
        }
        self.no_zeroes = flags & u32::from(handshake_flag::NO_ZEROES) != 0;
        Ok(())
    }

    /// Counts an option. `Ok(true)`: read its data and call [`option`](Self::option).
    /// `Ok(false)`: read its data, throw it away, send [`too_big`](Self::too_big).
    pub fn accept(&mut self, header: OptionHeader) -> Result<bool, Malformed> {
        self.options += 1;
        if self.options > OPTIONS_MAX {
            return Err(Malformed(format!("more than {OPTIONS_MAX} options in one handshake")));
        }
        if header.length > SKIPPED_MAX {
            return Err(Malformed(format!(
                "option {} with {} bytes of data, the limit is {OPTION_MAX}",
                header.option, header.length
            )));
        }
        Ok(header.length <= OPTION_MAX)
    }

    /// The reply to an option whose data is too long.
    pub fn too_big(option: u32) -> Vec<u8> {
        let text = format!("the limit for an option's data is {OPTION_MAX} bytes");
        OptionReply::encode(option, reply::ERR_TOO_BIG, text.as_bytes())
    }

    /// Answers an option of a client that must begin TLS first: the protocol's `FORCEDTLS` mode. None
    /// of what is asked before that counts afterwards, but the client's flags.
    pub fn before_tls(&mut self, code: u32, data: &[u8]) -> (Vec<u8>, BeforeTls) {
        match code {
            option::STARTTLS if data.is_empty() => {
                self.secured = true;
                (OptionReply::encode(code, reply::ACK, &[]), BeforeTls::Begin)
            }
            option::STARTTLS => {
                let text = b"STARTTLS takes no data";
                (OptionReply::encode(code, reply::ERR_INVALID, text), BeforeTls::More)
            }
            option::ABORT => (OptionReply::encode(code, reply::ACK, &[]), BeforeTls::Left),
            // This option has no way to say no but to close.
            option::EXPORT_NAME => (Vec::new(), BeforeTls::Refused(TLS_FIRST)),
            _ => {
                let text = TLS_FIRST.as_bytes();
                (OptionReply::encode(code, reply::ERR_TLS_REQD, text), BeforeTls::More)
            }
        }
    }

    /// Answers an option.
    pub fn option<C: Catalog>(&mut self, code: u32, data: &[u8], catalog: &C) -> Answer<C::Disk> {
        match code {
            option::EXPORT_NAME => self.export_name(data, catalog),
            option::ABORT => {
                Answer { bytes: OptionReply::encode(code, reply::ACK, &[]), next: Next::Left }
            }
            option::LIST if data.is_empty() => Answer::more(list(catalog)),
            option::LIST => Answer::error(code, reply::ERR_INVALID, "LIST takes no data"),
            option::STARTTLS if self.secured => {
                Answer::error(code, reply::ERR_INVALID, "TLS has begun already")
            }
            option::STARTTLS => {
                Answer::error(code, reply::ERR_POLICY, "this server is configured without TLS")
            }
            option::INFO | option::GO => match InfoRequest::decode(data) {
                Ok(request) => self.info(code, &request, catalog),
                Err(e) => Answer::error(code, reply::ERR_INVALID, &e.to_string()),
            },
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.structured = true;
                Answer::more(OptionReply::encode(code, reply::ACK, &[]))
            }
            option::STRUCTURED_REPLY => {
                Answer::error(code, reply::ERR_INVALID, "STRUCTURED_REPLY takes no data")
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                match ContextQuery::decode(data) {
                    Ok(query) => self.contexts(code, &query, catalog),
                    Err(e) => {
                        if code == option::SET_META_CONTEXT {
                            self.context = None;
                        }
                        Answer::error(code, reply::ERR_INVALID, &e.to_string())
                    }
                }
            }
            _ => Answer::error(code, reply::ERR_UNSUP, "unknown option"),
        }
    }

    fn export_name<C: Catalog>(&mut self, data: &[u8], catalog: &C) -> Answer<C::Disk> {
        let opened = std::str::from_utf8(data)
            .map_err(|_| Refusal::unknown("the export name is not UTF-8"))
            .and_then(|name| catalog.open(name).map(|export| (name, export)));
        match opened {
            Ok((name, export)) => {
                let flags = self.flags(&export);
                let bytes = encode_export(export.size(), flags, self.no_zeroes);
                Answer { bytes, next: self.transmit(name, export) }
            }
            // This option has no way to say no but to close.
            Err(refusal) => Answer { bytes: Vec::new(), next: Next::Refused(refusal.message) },
        }
    }

    fn info<C: Catalog>(
        &mut self,
        code: u32,
        request: &InfoRequest,
        catalog: &C,
    ) -> Answer<C::Disk> {
        let export = match catalog.open(&request.name) {
            Ok(export) => export,
            Err(refusal) => return Answer::error(code, kind(&refusal), &refusal.message),
        };
        let mut facts = vec![
            InfoReply::Export(export.size(), self.flags(&export)),
            // Sent unasked too: a client may not rely on what it was not told.
            InfoReply::Blocks(export.blocks),
        ];
        if request.wanted.contains(&info::NAME) {
            facts.push(InfoReply::Name(request.name.clone()));
        }
        if request.wanted.contains(&info::DESCRIPTION) && !export.description.is_empty() {
            facts.push(InfoReply::Description(export.description.clone()));
        }
        let mut bytes = Vec::new();
        for fact in facts {
            bytes.extend(OptionReply::encode(code, reply::INFO, &fact.encode()));
        }
        bytes.extend(OptionReply::encode(code, reply::ACK, &[]));
        let next =
            if code == option::GO { self.transmit(&request.name, export) } else { Next::More };
        Answer { bytes, next }
    }

    fn contexts<C: Catalog>(
        &mut self,
        code: u32,
        query: &ContextQuery,
        catalog: &C,
    ) -> Answer<C::Disk> {
        let set = code == option::SET_META_CONTEXT;
        if set {
            // Whatever comes of this one, it replaces the last.
            self.context = None;
        }
        if !self.structured {
            let text = "ask for STRUCTURED_REPLY first";
            return Answer::error(code, reply::ERR_INVALID, text);
        }
        if let Err(refusal) = catalog.open(&query.name) {
            return Answer::error(code, kind(&refusal), &refusal.message);
        }
        let asked = |q: &String| q == BASE_ALLOCATION || (!set && q == "base:");
        let chosen = query.queries.iter().any(asked) || (!set && query.queries.is_empty());
        let mut bytes = Vec::new();
        if chosen {
            let id = if set { CONTEXT_ID } else { 0 };
            let data = Writer::default().u32(id).bytes(BASE_ALLOCATION.as_bytes()).0;
            bytes.extend(OptionReply::encode(code, reply::META_CONTEXT, &data));
            if set {
                self.context = Some(query.name.clone());
            }
        }
        bytes.extend(OptionReply::encode(code, reply::ACK, &[]));
        Answer::more(bytes)
    }

    fn flags<D: Disk>(&self, export: &Export<D>) -> u16 {
        let mut flags = flag::HAS_FLAGS | flag::SEND_FLUSH | flag::SEND_FUA | flag::CAN_MULTI_CONN;
        if self.structured {
            flags |= flag::SEND_DF;
        }
        flags
            | if export.read_only {
                flag::READ_ONLY
            } else {
                flag::SEND_TRIM | flag::SEND_WRITE_ZEROES
            }
    }

    fn transmit<D: Disk>(&self, name: &str, export: Export<D>) -> Next<D> {
        // A context was chosen for one export only.
        let context = self.context.as_deref().filter(|chosen| *chosen == name).map(|_| CONTEXT_ID);
        let (name, structured) = (name.to_owned(), self.structured);
        Next::Transmit(Box::new(Session { export, name, structured, context }))
    }
}

impl<D> Answer<D> {
    fn more(bytes: Vec<u8>) -> Self {
        Self { bytes, next: Next::More }
    }

    fn error(option: u32, kind: u32, text: &str) -> Self {
        Self::more(OptionReply::encode(option, kind, text.as_bytes()))
    }
}

fn kind(refusal: &Refusal) -> u32 {
    match refusal.kind {
        RefusalKind::Unknown | RefusalKind::Busy => reply::ERR_UNKNOWN,
        RefusalKind::Gone => reply::ERR_POLICY,
        RefusalKind::Shutdown => reply::ERR_SHUTDOWN,
    }
}

fn list<C: Catalog>(catalog: &C) -> Vec<u8> {
    let mut bytes = Vec::new();
    for export in catalog.list() {
        let data = Writer::default().text32(&export.name).bytes(export.description.as_bytes()).0;
        bytes.extend(OptionReply::encode(option::LIST, reply::SERVER, &data));
    }
    bytes.extend(OptionReply::encode(option::LIST, reply::ACK, &[]));
    bytes
}
