//! The client as a disk: splits requests at what the server takes, and puts answers together.

use std::future::Future;
use std::rc::Rc;

use super::table::Answer;
use super::{Client, Handle, longest};
use crate::disk::{Disk, Error, ErrorKind, Result};
use crate::nbd::wire::{Request, command, command_flag, extent, flag};
use crate::runtime::{Buf, Data, Env};
use crate::units::{ByteOffset, ByteRange, u32_of, u64_of, usize_of};

/// The longest request without payload, in bytes: some way below what 32 bits hold.
const ZEROES_MAX: u64 = 1 << 30;

/// The most parts that an answer about allocation has.
const PARTS_MAX: usize = 1 << 20;

/// A request in flight.
struct Ticket<E: Env> {
    handle: Rc<Handle<E>>,
    cookie: u64,
    waited: bool,
}

impl<E: Env> Drop for Ticket<E> {
    fn drop(&mut self) {
        if !self.waited {
            self.handle.shared.table.abandon(self.cookie);
        }
    }
}

impl<E: Env> Ticket<E> {
    async fn wait(mut self) -> (Answer, Result<()>) {
        let out = self.handle.shared.table.wait(self.cookie).await;
        self.waited = true;
        out
    }
}

/// Waits for all; the first error counts.
async fn all<E: Env>(tickets: Result<Vec<Ticket<E>>>) -> Result<()> {
    let mut first = Ok(());
    for ticket in tickets? {
        first = first.and(ticket.wait().await.1);
    }
    first
}

impl<E: Env> Client<E> {
    fn has(&self, flag: u16) -> bool {
        self.0.shared.server.flags & flag != 0
    }

    /// Whether a request can be sent at all.
    fn check(&self, what: &str, range: ByteRange, changes: bool) -> Result<()> {
        let shared = &self.0.shared;
        if let Some(error) = &*shared.dead.borrow() {
            return Err(error.context(format!("{what} {range}")));
        }
        let own = |kind, why: &str| Err(Error::own(kind, format!("{what} {range}: {why}")));
        if shared.poisoned.get() {
            return own(ErrorKind::Poisoned, "a flush failed before");
        }
        if changes && self.has(flag::READ_ONLY) {
            return own(ErrorKind::NotPermitted, "the NBD export is read-only");
        }
        if range.end > shared.server.size {
            return Err(Error::beyond_end(what, range, shared.server.size));
        }
        let block = shared.server.blocks.minimum;
        if !range.is_aligned(block.into()) {
            return own(ErrorKind::Invalid, &format!("no multiple of the block size {block}"));
        }
        Ok(())
    }

    /// Queues a request now.
    fn submit(&self, command: u16, flags: u16, range: ByteRange, answer: Answer) -> Ticket<E> {
        let shared = &self.0.shared;
        let cookie = shared.table.begin(range, shared.env.now(), answer);
        let (offset, length) = (range.start, u32_of(range.len()));
        let request = Request { flags, command, cookie, offset, length };
        shared.outbox.push(Data::copy_of(&request.encode()), true);
        Ticket { handle: self.0.clone(), cookie, waited: false }
    }

    fn submit_read(&self, range: ByteRange, buf: Buf) -> Ticket<E> {
        self.submit(command::READ, 0, range, Answer::Read(Some(buf)))
    }

    fn submit_write(&self, at: u64, data: Vec<Data>) -> Ticket<E> {
        let len = data.iter().map(|d| u64_of(d.len())).sum();
        let range = ByteRange::new(at, at.saturating_add(len));
        let ticket = self.submit(command::WRITE, 0, range, Answer::Plain);
        for part in data {
            self.0.shared.outbox.push(part, true);
        }
        ticket
    }

    /// Queues the pieces as few requests as the server takes.
    fn submit_writes(&self, at: ByteOffset, data: Vec<Data>) -> Result<Vec<Ticket<E>>> {
        let len: u64 = data.iter().map(|d| u64_of(d.len())).sum();
        self.check("write", ByteRange::new(at.0, at.0.saturating_add(len)), true)?;
        let most = longest(&self.0.shared.server);
        let mut tickets = Vec::new();
        let (mut start, mut batch, mut room) = (at.0, Vec::new(), most);
        for mut data in data {
            while !data.is_empty() {
                let n = usize_of(u64_of(data.len()).min(room));
                room -= u64_of(n);
                batch.push(data.slice(0..n));
                data = data.slice(n..data.len());
                if room == 0 {
                    tickets.push(self.submit_write(start, std::mem::take(&mut batch)));
                    start += most;
                    room = most;
                }
            }
        }
        if !batch.is_empty() {
            tickets.push(self.submit_write(start, batch));
        }
        Ok(tickets)
    }

    fn submit_zeroes(&self, range: ByteRange, punch: bool) -> Result<Vec<Ticket<E>>> {
        self.check("write zeroes", range, true)?;
        if self.has(flag::SEND_WRITE_ZEROES) {
            let flags = if punch { 0 } else { command_flag::NO_HOLE };
            let zero = |piece| self.submit(command::WRITE_ZEROES, flags, piece, Answer::Plain);
            return Ok(range.pieces(ZEROES_MAX).map(zero).collect());
        }
        // TRIM would not do: what it leaves behind is not defined.
        let most = longest(&self.0.shared.server);
        let zero = |piece: ByteRange| {
            self.submit_write(piece.start, vec![Data::zeroes(usize_of(piece.len()))])
        };
        Ok(range.pieces(most).map(zero).collect())
    }

    async fn lookup(&self, range: ByteRange) -> Result<Vec<(ByteRange, bool)>> {
        let mut parts: Vec<(ByteRange, bool)> = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let ask = ByteRange::new(at, range.end.min(at.saturating_add(ZEROES_MAX)));
            self.check("block status", ask, false)?;
            let ticket = self.submit(command::BLOCK_STATUS, 0, ask, Answer::Status(Vec::new()));
            let (answer, result) = ticket.wait().await;
            result?;
            let Answer::Status(extents) = answer else { break };
            for e in extents {
                // The last extent may tell more than was asked for.
                let part = ByteRange::new(at, at.saturating_add(e.length.into())).intersect(range);
                let allocated = e.flags & extent::ZERO == 0;
                let many = parts.len() >= PARTS_MAX;
                match parts.last_mut() {
                    _ if part.is_empty() => {}
                    Some((last, same)) if *same == allocated => last.end = part.end,
                    // Who can't tell says that all is allocated.
                    _ if many => return Ok(vec![(range, true)]),
                    _ => parts.push((part, allocated)),
                }
                at = part.end.max(at);
            }
        }
        Ok(parts)
    }
}

impl<E: Env> Disk for Client<E> {
    fn len(&self) -> u64 {
        self.0.shared.server.size
    }

    fn alignment(&self) -> u64 {
        self.0.shared.server.blocks.minimum.into()
    }

    fn read(&self, at: ByteOffset, buf: Buf) -> impl Future<Output = (Buf, Result<()>)> + 'static {
        let len = buf.len();
        let range = ByteRange::new(at.0, at.0.saturating_add(u64_of(len)));
        let most = longest(&self.0.shared.server);
        let begun = match self.check("read", range, false) {
            Err(e) => Begun::Ended(buf, Err(e)),
            Ok(()) if range.is_empty() => Begun::Ended(buf, Ok(())),
            Ok(()) if range.len() <= most => Begun::One(self.submit_read(range, buf)),
            Ok(()) => {
                let env = &self.0.shared.env;
                let read = |p: ByteRange| self.submit_read(p, env.alloc(usize_of(p.len())));
                Begun::Many(buf, range.pieces(most).map(read).collect())
            }
        };
        async move {
            match begun {
                Begun::Ended(buf, result) => (buf, result),
                Begun::One(ticket) => match ticket.wait().await {
                    (Answer::Read(Some(buf)), result) => (buf, result),
                    // Its buffer was being received into when the connection ended.
                    (_, result) => (Buf::new(len), result),
                },
                Begun::Many(buf, tickets) => gather(buf, tickets).await,
            }
        }
    }

    fn write(&self, at: ByteOffset, data: Data) -> impl Future<Output = Result<()>> + 'static {
        all(self.submit_writes(at, vec![data]))
    }

    fn writev(
        &self,
        at: ByteOffset,
        data: Vec<Data>,
    ) -> impl Future<Output = Result<()>> + 'static {
        all(self.submit_writes(at, data))
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        punch: bool,
    ) -> impl Future<Output = Result<()>> + 'static {
        all(self.submit_zeroes(range, punch))
    }

    fn flush(&self) -> impl Future<Output = Result<()>> + 'static {
        let none = ByteRange::default();
        let handle = self.0.clone();
        let begun = self.check("flush", none, false).map(|()| {
            // A server without FLUSH keeps nothing back.
            let flush = || self.submit(command::FLUSH, 0, none, Answer::Plain);
            self.has(flag::SEND_FLUSH).then(flush).into_iter().collect()
        });
        async move {
            let result = all(begun).await;
            if result.is_err() {
                handle.shared.poisoned.set(true);
            }
            result
        }
    }

    fn allocation(
        &self,
        range: ByteRange,
    ) -> impl Future<Output = Result<Vec<(ByteRange, bool)>>> + 'static {
        let client = self.clone();
        async move {
            if client.0.shared.server.context.is_none() || range.is_empty() {
                return Ok(vec![(range, true)]);
            }
            client.lookup(range).await
        }
    }
}

/// A read that was submitted.
enum Begun<E: Env> {
    Ended(Buf, Result<()>),
    One(Ticket<E>),
    Many(Buf, Vec<Ticket<E>>),
}

/// Puts the parts of a read into one buffer.
async fn gather<E: Env>(mut buf: Buf, tickets: Vec<Ticket<E>>) -> (Buf, Result<()>) {
    let mut first = Ok(());
    let mut at = 0;
    for ticket in tickets {
        let (answer, result) = ticket.wait().await;
        first = first.and(result);
        if let (Ok(()), Answer::Read(Some(part))) = (&first, answer) {
            if let Some(to) = buf.get_mut(at..at + part.len()) {
                to.copy_from_slice(&part);
            }
            at += part.len();
        }
    }
    (buf, first)
}
