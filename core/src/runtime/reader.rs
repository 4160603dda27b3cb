//! The receiving half of a protocol: exact counts out of a stream of pieces.
//!
//! ```text
//!   stream ──► [ 256 KiB buffer | ...... ]──► header: copied out
//!                                        └──► payload: a buffered part copied, a large rest
//!                                             received straight into its own buffer
//! ```

use std::io;

use super::{Buf, Stream};

/// The stream buffer, in bytes: some dozens of 4 KiB frames per system call.
const BUFFER: usize = 256 << 10;

/// The stream buffer of a peer that did not prove itself yet, in bytes.
const SMALL: usize = 4 << 10;

/// From this size on the rest of a payload goes straight into its buffer, in bytes.
const DIRECT: usize = 32 << 10;

/// Reads exact counts from a [`Stream`].
#[derive(Debug)]
pub struct Reader<S> {
    stream: S,
    /// `None` only while a receive is under way; a reader whose receive was dropped is at its end.
    buf: Option<Buf>,
    /// The bytes received and not handed out: `start..end` of `buf`.
    start: usize,
    end: usize,
}

impl<S: Stream> Reader<S> {
    /// Reads from `stream`; nothing else may receive from it.
    pub fn new(stream: S) -> Self {
        Self { stream, buf: Some(Buf::new(BUFFER)), start: 0, end: 0 }
    }

    /// As [`new`](Self::new), with a buffer so small that thousands of them cost nothing: for a
    /// handshake. [`widen`](Self::widen) follows it.
    pub fn small(stream: S) -> Self {
        Self { stream, buf: Some(Buf::new(SMALL)), start: 0, end: 0 }
    }

    /// Takes a buffer of full size; what was received stays.
    pub fn widen(&mut self) {
        if let Some(old) = self.buf.take() {
            let rest = old.get(self.start..self.end).unwrap_or_default();
            let mut new = Buf::new(BUFFER.max(rest.len()));
            if let Some(front) = new.get_mut(..rest.len()) {
                front.copy_from_slice(rest);
            }
            (self.start, self.end) = (0, rest.len());
            self.buf = Some(new);
        }
    }

    /// How many bytes can be had without waiting.
    pub fn buffered(&self) -> usize {
        self.end - self.start
    }

    /// Fills `out`. [`io::ErrorKind::UnexpectedEof`] when the stream ends before.
    pub async fn exact(&mut self, out: &mut [u8]) -> io::Result<()> {
        let mut filled = self.take(out);
        while filled < out.len() {
            self.fill().await?;
            filled += self.take(out.get_mut(filled..).unwrap_or_default());
        }
        Ok(())
    }

    /// As [`exact`](Self::exact), but `false` when the stream ends before the first byte.
    pub async fn exact_or_end(&mut self, out: &mut [u8]) -> io::Result<bool> {
        if self.buffered() == 0 {
            match self.fill().await {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        self.exact(out).await.map(|()| true)
    }

    /// The next `len` bytes (at most [`super::BUF_MAX`]) in a buffer of their own.
    pub async fn payload(&mut self, len: usize) -> io::Result<Buf> {
        let mut out = Buf::new(len);
        let mut filled = self.take(&mut out);
        while filled < len {
            if len - filled >= DIRECT {
                let (back, n) = self.stream.recv(out, filled).await;
                out = back;
                filled += some(n?)?;
            } else {
                self.fill().await?;
                filled += self.take(out.get_mut(filled..).unwrap_or_default());
            }
        }
        Ok(out)
    }

    /// Copies out what is buffered; says how much.
    fn take(&mut self, out: &mut [u8]) -> usize {
        let n = out.len().min(self.buffered());
        if let (Some(buf), Some(out)) = (&self.buf, out.get_mut(..n)) {
            out.copy_from_slice(buf.get(self.start..self.start + n).unwrap_or_default());
        }
        self.start += n;
        n
    }

    /// Receives into the empty buffer.
    async fn fill(&mut self) -> io::Result<()> {
        let buf = self.buf.take().ok_or(io::ErrorKind::UnexpectedEof)?;
        let (buf, n) = self.stream.recv(buf, 0).await;
        self.buf = Some(buf);
        (self.start, self.end) = (0, 0);
        self.end = some(n?)?;
        Ok(())
    }
}

fn some(n: usize) -> io::Result<usize> {
    if n == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(n) }
}
