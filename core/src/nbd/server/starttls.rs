//! TLS before all else: the plain part of a connection, up to the client's handshake.
//!
//! ```text
//!   greeting ─► flags ─► STARTTLS ─► acknowledged ─► Secured ─► (TLS) ─► options ─► requests
//!                 └─ anything else ─► ERR_TLS_REQD
//! ```
//!
//! The caller does the TLS handshake in between: how a stream becomes another one is not NBD's.

use super::{End, Limits, negotiate, read_option, send};
use crate::nbd::Catalog;
use crate::nbd::handshake::{BeforeTls, Server, Session};
use crate::nbd::wire::Malformed;
use crate::runtime::{Env, Reader, Stream, timeout};

/// A client that is about to begin TLS. May go to another thread with its stream.
#[derive(Debug)]
pub struct Secured(Server);

/// The handshake up to TLS: when this returns, the client's first bytes of it are next in the stream.
pub async fn starttls_within<E: Env>(
    env: &E,
    stream: &E::Stream,
    limits: &Limits,
) -> Result<Secured, End> {
    let mut reader = Reader::small(stream.clone());
    let begun = timeout(env, limits.handshake, begin(&mut reader, stream)).await;
    let server = begun.unwrap_or(Err(End::Stalled(limits.handshake)))?;
    if reader.buffered() > 0 {
        // Whoever is on the way could have put it there, in front of what the client says in TLS.
        return Err(Malformed("bytes behind STARTTLS, before it was granted".into()).into());
    }
    Ok(Secured(server))
}

/// The rest of the handshake, over TLS; see [`negotiate_within`](super::negotiate_within).
pub async fn negotiate_secured_within<E: Env, C: Catalog>(
    env: &E,
    stream: &E::Stream,
    secured: Secured,
    catalog: &C,
    limits: &Limits,
) -> Result<Box<Session<C::Disk>>, End> {
    let mut reader = Reader::small(stream.clone());
    let talk = negotiate(&mut reader, stream, secured.0, catalog);
    let negotiated = timeout(env, limits.handshake, talk).await;
    let session = negotiated.unwrap_or(Err(End::Stalled(limits.handshake)))?;
    super::check_silence(&reader)?;
    Ok(session)
}

async fn begin<S: Stream>(reader: &mut Reader<S>, stream: &S) -> Result<Server, End> {
    let mut server = super::greet(reader, stream).await?;
    loop {
        let Some((code, data)) = read_option(reader, stream, &mut server).await? else { continue };
        let (bytes, next) = server.before_tls(code, &data);
        if next == BeforeTls::Begin && reader.buffered() > 0 {
            return Err(Malformed("bytes behind STARTTLS, before it was granted".into()).into());
        }
        send(stream, &bytes).await?;
        match next {
            BeforeTls::More => {}
            BeforeTls::Begin => return Ok(server),
            BeforeTls::Left => return Err(End::Left),
            BeforeTls::Refused(why) => return Err(End::Refused(why.to_owned())),
        }
    }
}
