//! A client at an address, whatever it takes to get there.
//!
//! ```text
//!   unix:, tcp:   connect ─► handshake
//!   tls:          connect ─► STARTTLS ─► TLS: is it the engine of NODE? ─► handshake
//! ```

use super::connect::{self, Opening};
use super::{Client, Options};
use crate::disk::{Error, ErrorKind, Result};
use crate::nbd::ExportInfo;
use crate::runtime::{Address, Env, Reader, Stream};

impl<E: Env> Client<E> {
    /// Connects, and negotiates for `export`. Each of the two, and TLS between them, may take
    /// [`Options::handshake`].
    pub async fn open(env: &E, to: &Address, export: &str, options: &Options) -> Result<Self> {
        let (stream, opening) = open(env, to, options).await?;
        Self::connect_from(env, stream, opening, export, options).await
    }

    /// The exports of the server at an address.
    pub async fn list_at(env: &E, to: &Address, options: &Options) -> Result<Vec<ExportInfo>> {
        let (stream, opening) = open(env, to, options).await?;
        Self::list_from(env, stream, opening, options).await
    }
}

async fn open<E: Env>(env: &E, to: &Address, options: &Options) -> Result<(E::Stream, Opening)> {
    let limit = options.handshake;
    let connecting = crate::runtime::timeout(env, limit, env.connect_plain(to));
    let stream = connecting.await.unwrap_or_else(|| {
        let text = format!("can't connect to {to} within {limit:?}");
        Err(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
    });
    let stream = stream.map_err(|e| failed(&e))?;
    let Address::Tls { .. } = to else { return Ok((stream, Opening::Fresh)) };
    let mut reader = Reader::small(stream.clone());
    let asked = connect::starttls(&mut reader, &stream);
    let greeting = connect::within(env, &stream, options, asked).await?;
    if reader.buffered() > 0 {
        stream.shutdown();
        let text = "the NBD server breaks the protocol: it goes on in plaintext behind STARTTLS";
        return Err(Error::own(ErrorKind::Corrupt, text));
    }
    drop(reader);
    let secured = connect::within(env, &stream, options, async {
        env.start_tls(stream.clone(), to).await.map_err(|e| failed(&e))
    });
    Ok((secured.await?, Opening::Secured(greeting)))
}

fn failed(e: &std::io::Error) -> Error {
    Error::own(ErrorKind::Disconnected, e.to_string())
}
