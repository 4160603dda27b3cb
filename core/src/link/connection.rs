//! Whole frames over a stream.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::frame::{self, Body, FrameError, HEADER_LEN};
use crate::runtime::{Buf, Env, Reader, timeout};

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The stream broke or ended.
    #[error("{}", ended(.0))]
    Stream(#[from] std::io::Error),
    /// The far end sent something that is no frame of ours.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The far end said why it ends the session.
    #[error("the peer ended the session: {0}")]
    Peer(String),
    /// Nothing came for too long.
    #[error("nothing heard from the peer for {} ms", .0.as_millis())]
    Silent(Duration),
    /// We ended it.
    #[error("{0}")]
    Own(String),
}

/// An error that has words of its own (no way to the peer, a refused certificate) needs no others.
fn ended(error: &std::io::Error) -> String {
    match error.get_ref() {
        Some(words) => words.to_string(),
        None => format!("the connection ended: {error}"),
    }
}

/// The receiving half of a session.
#[derive(Debug)]
pub struct Connection<E: Env> {
    env: E,
    reader: Reader<E::Stream>,
    /// The sequence of the last frame: they only grow.
    last: u64,
    /// Set on each frame; what a watchdog looks at.
    heard: Rc<Cell<u64>>,
}

impl<E: Env> Connection<E> {
    /// Reads frames from `stream`.
    pub fn new(env: &E, stream: E::Stream) -> Self {
        Self { env: env.clone(), reader: Reader::new(stream), last: 0, heard: Rc::default() }
    }

    /// The next frame and its sequence. [`LinkError::Silent`] when none is complete within `limit`.
    pub async fn receive(&mut self, limit: Duration) -> Result<(u64, Body), LinkError> {
        let env = self.env.clone();
        let mut read = std::pin::pin!(self.read());
        // A frame that is here needs no timer; one of which a part is here may never be whole.
        match futures::poll!(&mut read) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                timeout(&env, limit, read).await.unwrap_or(Err(LinkError::Silent(limit)))
            }
        }
    }

    /// Whether bytes of a further frame are here already: worth going on before answering.
    pub fn is_buffered(&self) -> bool {
        self.reader.buffered() >= HEADER_LEN
    }

    /// Counts frames; stands still while the peer is silent.
    pub fn heard(&self) -> Rc<Cell<u64>> {
        self.heard.clone()
    }

    async fn read(&mut self) -> Result<(u64, Body), LinkError> {
        let mut header = [0; HEADER_LEN];
        self.reader.exact(&mut header).await?;
        let header = frame::decode_header(&header)?;
        let payload = if header.payload_len == 0 {
            Buf::new(0)
        } else {
            self.reader.payload(header.payload_len).await?
        };
        let body = frame::decode(&header, payload)?;
        if header.sequence <= self.last {
            return Err(FrameError(format!(
                "frame {} behind frame {}",
                header.sequence, self.last
            ))
            .into());
        }
        self.last = header.sequence;
        self.heard.set(self.heard.get() + 1);
        Ok((header.sequence, body))
    }
}
