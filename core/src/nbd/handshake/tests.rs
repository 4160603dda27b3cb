//! Negotiation of both sides against each other and against scripted peers.

use super::*;
use crate::disk::Memory;
use crate::nbd::client::is_final;
use crate::nbd::wire::{
    ContextQuery, Greeting, InfoReply, InfoRequest, OPTION_MAX, OptionHeader, OptionReply, flag,
    option, reply,
};
use crate::nbd::{BlockSizes, Catalog, Export, ExportInfo, Refusal};
use crate::units::u32_of;

struct One;

impl Catalog for One {
    type Disk = Memory;

    fn list(&self) -> Vec<ExportInfo> {
        vec![ExportInfo { name: "vol".into(), description: "a volume".into() }]
    }

    fn open(&self, name: &str) -> Result<Export<Memory>, Refusal> {
        match name {
            "vol" => Ok(Export::new(Memory::new(1 << 20, 0))),
            "old" => Err(Refusal::gone("the generation 1-00 is stale")),
            "taken" => Err(Refusal::busy("session 4 has it")),
            _ => Err(Refusal::unknown(format!("no export '{name}'; there is 'vol'"))),
        }
    }
}

fn ask(server: &mut Server, option: u32, data: &[u8]) -> (u32, String) {
    let answer = server.option(option, data, &One);
    let header = OptionReply::decode(answer.bytes.first_chunk().unwrap()).unwrap();
    (header.kind, String::from_utf8_lossy(&answer.bytes[20..]).into_owned())
}

fn replies(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut out = Vec::new();
    while let Some(head) = bytes.first_chunk() {
        let header = OptionReply::decode(head).unwrap();
        let end = 20 + usize::try_from(header.length).unwrap();
        out.push((header.kind, bytes[20..end].to_vec()));
        bytes = &bytes[end..];
    }
    out
}

#[test]
fn refusals_keep_the_connection_and_name_the_reason() {
    let mut s = Server::default();
    let go = |name: &str| InfoRequest { name: name.into(), wanted: vec![] }.encode();
    let (kind, text) = ask(&mut s, option::GO, &go("nope"));
    assert_eq!((kind, text.as_str()), (reply::ERR_UNKNOWN, "no export 'nope'; there is 'vol'"));
    assert_eq!(ask(&mut s, option::GO, &go("old")).0, reply::ERR_POLICY);
    assert_eq!(ask(&mut s, option::STARTTLS, &[]).0, reply::ERR_POLICY);
    assert_eq!(ask(&mut s, 99, &[]).0, reply::ERR_UNSUP);
    assert_eq!(ask(&mut s, option::GO, b"\xff\xff").0, reply::ERR_INVALID);
    assert_eq!(ask(&mut s, option::LIST, b"x").0, reply::ERR_INVALID);
    assert!(matches!(s.option(option::GO, &go("vol"), &One).next, Next::Transmit(_)));
}

#[test]
fn a_context_holds_for_the_export_it_was_chosen_for_only() {
    let query = |name: &str, q: &[&str]| {
        ContextQuery { name: name.into(), queries: q.iter().map(|q| (*q).to_owned()).collect() }
            .encode()
    };
    let go = InfoRequest { name: "vol".into(), wanted: vec![] }.encode();
    let context = |s: &mut Server| match s.option(option::GO, &go, &One).next {
        Next::Transmit(session) => session.context,
        other => panic!("{other:?}"),
    };
    let set = |s: &mut Server, data: &[u8]| ask(s, option::SET_META_CONTEXT, data).0;

    let mut s = Server::default();
    let good = query("vol", &["qemu:dirty-bitmap:x", "base:allocation"]);
    assert_eq!(set(&mut s, &good), reply::ERR_INVALID, "before structured replies");
    assert_eq!(ask(&mut s, option::STRUCTURED_REPLY, &[]).0, reply::ACK);
    assert_eq!(set(&mut s, &good), reply::META_CONTEXT);
    assert_eq!(context(&mut s), Some(1));
    assert_eq!(set(&mut s, &query("vol", &["base:"])), reply::ACK, "a set takes no wildcards");
    assert_eq!(context(&mut s), None);
    assert_eq!(set(&mut s, &good), reply::META_CONTEXT);
    assert_eq!(set(&mut s, &query("nope", &["base:allocation"])), reply::ERR_UNKNOWN);
    assert_eq!(context(&mut s), None, "a failed set forgets the last one");
    for q in [&[][..], &["base:"], &["base:allocation"]] {
        let (kind, _) = ask(&mut s, option::LIST_META_CONTEXT, &query("vol", q));
        assert_eq!(kind, reply::META_CONTEXT, "{q:?}");
    }
}

#[test]
fn too_many_or_too_long_options_end_the_handshake() {
    let mut s = Server::default();
    let header = |length| OptionHeader { option: 1, length };
    assert_eq!(s.accept(header(OPTION_MAX)), Ok(true));
    assert_eq!(s.accept(header(OPTION_MAX + 1)), Ok(false));
    assert!(s.accept(header(u32::MAX)).is_err());
    let mut s = Server::default();
    assert!((0..OPTIONS_MAX).all(|_| s.accept(header(0)) == Ok(true)));
    assert!(s.accept(header(0)).unwrap_err().0.contains("more than 64 options"));
}

/// Runs a client against our server; `known` says which options the server understands.
fn meet(name: &str, known: impl Fn(u32) -> bool) -> crate::disk::Result<Negotiated> {
    let mut server = Server::default();
    let greeting = Greeting::decode(Server::greeting().first_chunk().unwrap()).unwrap();
    let (mut client, mut step) = Client::begin(name, greeting);
    let mut first = true;
    let mut queue = std::collections::VecDeque::new();
    loop {
        match &step {
            Step::Ready(agreed) => return Ok(agreed.clone()),
            Step::Send(bytes) | Step::Export(bytes, _) => {
                let bytes = if std::mem::take(&mut first) {
                    server
                        .client_flags(u32::from_be_bytes(bytes[..4].try_into().unwrap()))
                        .unwrap();
                    &bytes[4..]
                } else {
                    bytes
                };
                let header = OptionHeader::decode(bytes.first_chunk().unwrap()).unwrap();
                assert_eq!(usize::try_from(header.length).unwrap(), bytes.len() - 16);
                let out = if known(header.option) {
                    server.option(header.option, &bytes[16..], &One).bytes
                } else {
                    OptionReply::encode(header.option, reply::ERR_UNSUP, b"")
                };
                if let Step::Export(_, zeroes) = &step {
                    assert_eq!(out.len(), 10 + zeroes);
                    step = client.export(out.first_chunk().unwrap())?;
                    continue;
                }
                queue.extend(replies(&out).into_iter().map(|r| (header.option, r)));
            }
            Step::Read => {}
        }
        let (option, (kind, data)) = queue.pop_front().unwrap();
        let length = u32_of(data.len().try_into().unwrap());
        client.header(OptionReply { option, kind, length })?;
        step = client.reply(kind, &data)?;
    }
}

#[test]
fn both_sides_agree_on_all_they_have_in_common() {
    let full = meet("vol", |_| true).unwrap();
    assert_eq!((full.size, full.structured, full.context), (1 << 20, true, Some(1)));
    assert_eq!(full.blocks, BlockSizes::of(1));
    assert!(full.flags & flag::CAN_MULTI_CONN != 0 && full.flags & flag::SEND_DF != 0);
    let plain = meet("vol", |o| o != option::STRUCTURED_REPLY).unwrap();
    assert_eq!((plain.structured, plain.context), (false, None));
    assert!(plain.flags & flag::SEND_DF == 0);
    let old = meet("vol", |o| o == option::EXPORT_NAME).unwrap();
    assert_eq!(old.size, 1 << 20);
}

#[test]
fn a_client_can_tell_what_is_gone_for_good_from_what_is_not_here_now() {
    for known in [u32::MAX, option::STRUCTURED_REPLY] {
        let ask = |name: &str| meet(name, |o| o != known).unwrap_err();
        let (old, taken, nope) = (ask("old"), ask("taken"), ask("nope"));
        assert!(
            is_final(&old) && old.to_string().contains("the generation 1-00 is stale"),
            "{old}"
        );
        assert!(!is_final(&taken) && taken.to_string().contains("session 4 has it"), "{taken}");
        assert!(!is_final(&nope), "{nope}");
    }
}

#[test]
fn an_old_client_gets_the_zeroes_it_did_not_decline() {
    for (flags, len) in [(1, 134), (3, 10)] {
        let mut server = Server::default();
        server.client_flags(flags).unwrap();
        let answer = server.option(option::EXPORT_NAME, b"vol", &One);
        assert_eq!(answer.bytes.len(), len);
        assert!(matches!(answer.next, Next::Transmit(_)));
        let refused = server.option(option::EXPORT_NAME, b"old", &One);
        assert!(refused.bytes.is_empty() && matches!(refused.next, Next::Refused(_)));
    }
    assert!(Server::default().client_flags(4).is_err());
}

#[test]
fn a_server_of_the_old_kind_is_only_asked_for_the_export() {
    let (_, step) = Client::begin("vol", Greeting { flags: 0 });
    let Step::Export(bytes, zeroes) = step else { panic!("{step:?}") };
    assert_eq!((&bytes[..4], zeroes), (&[0, 0, 0, 0][..], 124));
    assert!(Listing::begin(Greeting { flags: 0 }).is_err());
}

#[test]
fn a_server_with_impossible_facts_is_refused() {
    let greeting = Greeting { flags: 3 };
    for (size, blocks, what) in [
        (u64::MAX, BlockSizes::of(1), "limit"),
        (1000, BlockSizes::of(512), "no multiple"),
        (1024, BlockSizes { minimum: 3, preferred: 4096, maximum: 4096 }, "minimum: 3"),
        (1024, BlockSizes { minimum: 512, preferred: 512, maximum: 0 }, "maximum: 0"),
        (8192, BlockSizes { minimum: 1, preferred: 4096, maximum: 1 }, "are the least"),
    ] {
        let (mut client, _) = Client::begin("x", greeting);
        client.reply(reply::ERR_UNSUP, b"").unwrap();
        for fact in [InfoReply::Export(size, 1), InfoReply::Blocks(blocks)] {
            assert_eq!(client.reply(reply::INFO, &fact.encode()).unwrap(), Step::Read);
        }
        let error = client.reply(reply::ACK, b"").unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
}
