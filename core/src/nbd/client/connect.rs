//! The handshake of a client on a stream, within its time.

use super::{Options, corrupt, lost};
use crate::disk::{Error, ErrorKind, Result};
use crate::nbd::ExportInfo;
use crate::nbd::handshake::{self, Listing, Negotiated, Step};
use crate::nbd::wire::{EXPORT_LEN, GREETING_LEN, Greeting, OPTION_REPLY_LEN, OptionReply};
use crate::runtime::{Data, Env, Reader, Stream, timeout};

/// Does a handshake within its time; whatever goes wrong, the stream is closed.
pub(super) async fn within<E: Env, T>(
    env: &E,
    stream: &E::Stream,
    options: &Options,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let limit = options.handshake;
    let done = timeout(env, limit, work).await.unwrap_or_else(|| {
        let what = format!("the NBD server did not finish the handshake within {limit:?}");
        Err(Error::own(ErrorKind::Disconnected, what))
    });
    if done.is_err() {
        stream.shutdown();
    }
    done
}

/// Where a handshake begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Opening {
    /// With the server's greeting.
    Fresh,
    /// Behind TLS; the greeting came before.
    Secured(Greeting),
}

/// Greeting and STARTTLS: when this returns, the client's first bytes of TLS are next.
pub(super) async fn starttls<S: Stream>(reader: &mut Reader<S>, stream: &S) -> Result<Greeting> {
    let greeting = read_greeting(reader).await?;
    send(stream, &handshake::Client::starttls(greeting)?).await?;
    let header = exact::<_, OPTION_REPLY_LEN>(reader).await?;
    let header = OptionReply::decode(&header).map_err(corrupt)?;
    let len = handshake::Client::starttls_header(header)?;
    let data = reader.payload(len).await.map_err(lost)?;
    handshake::Client::starttls_granted(header, &data)?;
    Ok(greeting)
}

async fn read_greeting<S: Stream>(reader: &mut Reader<S>) -> Result<Greeting> {
    Greeting::decode(&exact::<_, GREETING_LEN>(reader).await?).map_err(corrupt)
}

pub(super) async fn negotiate<S: Stream>(
    reader: &mut Reader<S>,
    stream: &S,
    opening: Opening,
    export: &str,
) -> Result<Negotiated> {
    let (mut client, mut step) = match opening {
        Opening::Fresh => handshake::Client::begin(export, read_greeting(reader).await?),
        Opening::Secured(greeting) => handshake::Client::resume(export, greeting),
    };
    loop {
        match step {
            Step::Ready(agreed) => return Ok(agreed),
            Step::Export(bytes, zeroes) => {
                send(stream, &bytes).await?;
                let export = exact::<_, EXPORT_LEN>(reader).await?;
                drop(reader.payload(zeroes).await.map_err(lost)?);
                step = client.export(&export)?;
                continue;
            }
            Step::Send(bytes) => send(stream, &bytes).await?,
            Step::Read => {}
        }
        let header = exact::<_, OPTION_REPLY_LEN>(reader).await?;
        let header = OptionReply::decode(&header).map_err(corrupt)?;
        let len = client.header(header)?;
        let data = reader.payload(len).await.map_err(lost)?;
        step = client.reply(header.kind, &data)?;
    }
}

pub(super) async fn list<S: Stream>(
    reader: &mut Reader<S>,
    stream: &S,
    opening: Opening,
) -> Result<Vec<ExportInfo>> {
    let (mut listing, ask) = match opening {
        Opening::Fresh => Listing::begin(read_greeting(reader).await?)?,
        Opening::Secured(_) => Listing::resume(),
    };
    send(stream, &ask).await?;
    loop {
        let header = exact::<_, OPTION_REPLY_LEN>(reader).await?;
        let header = OptionReply::decode(&header).map_err(corrupt)?;
        let len = listing.header(header)?;
        let data = reader.payload(len).await.map_err(lost)?;
        if let Some(exports) = listing.reply(header.kind, &data)? {
            // Whether it hears the goodbye does not matter.
            let _ = send(stream, &Listing::goodbye()).await;
            return Ok(exports);
        }
    }
}

async fn exact<S: Stream, const N: usize>(reader: &mut Reader<S>) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.exact(&mut bytes).await.map_err(lost)?;
    Ok(bytes)
}

async fn send<S: Stream>(stream: &S, bytes: &[u8]) -> Result<()> {
    stream.send(vec![Data::copy_of(bytes)]).await.map_err(lost)
}
