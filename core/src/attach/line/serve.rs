//! One request over as many connections as it takes.

use super::{Line, installed};
use crate::attach::counters::Kind;
use crate::attach::request::{Failure, Request};
use crate::disk::{Disk, ErrorKind};
use crate::nbd::Client;
use crate::runtime::{Buf, Data, Env, Mono};
use crate::units::{ByteOffset, usize_of};

/// Serves one request on the calling shard.
pub(in crate::attach) async fn serve(request: Request) {
    match installed() {
        Some(line) => line.serve(request).await,
        // Only before `install`, when there is no device yet.
        None => match request {
            Request::Read(_, done) => done(Err(Failure::Io)),
            Request::Write(_, _, done) | Request::Zero(_, _, done) | Request::Flush(done) => {
                done(Err(Failure::Io));
            }
        },
    }
}

impl<E: Env> Line<E> {
    /// Serves one request to its end, over as many connections as it takes.
    pub(super) async fn serve(&self, request: Request) {
        let kind = request.kind();
        match request {
            Request::Read(range, done) => {
                let len = usize_of(range.len());
                let mut buf = Some(self.env.alloc(len));
                let result = self
                    .insist(async |client: Client<E>| {
                        let empty = buf.take().unwrap_or_else(|| Buf::new(len));
                        let (filled, result) = client.read(range.offset(), empty).await;
                        buf = Some(filled);
                        result
                    })
                    .await;
                self.ended(kind, result.is_ok());
                match (result, buf) {
                    (Ok(()), Some(buf)) => done(Ok(&buf)),
                    (result, _) => done(Err(result.err().unwrap_or(Failure::Io))),
                }
            }
            Request::Write(at, bytes, done) => {
                // The one copy of our own beside the kernel's two: see `fuse`.
                let data = Data::copy_of(&bytes);
                drop(bytes);
                let result = self
                    .insist(async |client: Client<E>| {
                        client.write(ByteOffset(at), data.clone()).await
                    })
                    .await;
                self.ended(kind, result.is_ok());
                done(result);
            }
            Request::Zero(range, punch, done) => {
                let result = self
                    .insist(async |client: Client<E>| client.write_zeroes(range, punch).await)
                    .await;
                self.ended(kind, result.is_ok());
                done(result);
            }
            Request::Flush(done) => {
                let result = self.insist(async |client: Client<E>| client.flush().await).await;
                self.ended(kind, result.is_ok());
                done(result);
            }
        }
    }

    fn ended(&self, kind: Kind, good: bool) {
        self.counters.ended(kind, good);
    }

    /// Asks until there is an answer of the volume, and not of a connection.
    async fn insist(
        &self,
        mut request: impl AsyncFnMut(Client<E>) -> crate::disk::Result<()>,
    ) -> Result<(), Failure> {
        let mut since: Option<Mono> = None;
        loop {
            let client = match self.connected() {
                Some(Ok(client)) => client,
                Some(Err(failure)) => return Err(failure),
                None => {
                    since.get_or_insert_with(|| self.env.now());
                    self.changed.wait().await;
                    continue;
                }
            };
            let asked = self.env.now();
            let result = request(client.clone()).await;
            let lost = match &result {
                Ok(()) => false,
                // Not permitted: the engine is ending, or changing its role. The next connection
                // tells whether it will be permitted, or never more.
                Err(e) => {
                    matches!(e.kind(), ErrorKind::Disconnected | ErrorKind::NotPermitted)
                        || !client.is_connected()
                }
            };
            if lost {
                since.get_or_insert(asked);
                if let Err(e) = result {
                    self.lost(&client, &e);
                }
                continue;
            }
            if let Some(since) = since {
                self.counters.stalled(self.env.now().since(since));
            }
            return result.map_err(|e| {
                tracing::warn!("the volume answers with an error: {e}");
                match e.kind() {
                    ErrorKind::NoSpace => Failure::NoSpace,
                    ErrorKind::Invalid => Failure::Invalid,
                    _ => Failure::Io,
                }
            });
        }
    }
}
