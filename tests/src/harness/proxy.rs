//! A network between two processes, with its faults: a TCP proxy.
//!
//! ```text
//!   who connects ──► [accept] ── reader ─► queue of (due, bytes) ─► writer ──► the listener behind
//!                 ◄──────────── writer ◄─ queue of (due, bytes) ◄─ reader ──
//!
//!   cut      every connection ends, and each new one at once
//!   silence  one way: what comes waits in its queue; a full queue is read into no more
//!   delay    both ways: what comes goes on so much later, in its order
//! ```
//!
//! No byte is lost or changed while its connection lasts, as TCP has it: after a silence what had waited
//! arrives, and the end of a connection takes its place behind the last byte.

mod end;

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use understudy_core::runtime::Address;

use self::end::End;

/// The most bytes on their way in one direction: what a network holds, and a bound for us.
const QUEUE_MAX: usize = 4 << 20;

/// The most bytes taken at once.
const PIECE: usize = 64 << 10;

/// A direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// To the listener behind.
    Out,
    /// Back to who connected.
    Back,
}

impl Way {
    /// Both, in the order of their places in arrays.
    pub const BOTH: [Self; 2] = [Self::Out, Self::Back];

    fn place(self) -> usize {
        usize::from(self == Self::Back)
    }
}

/// A proxy in front of one listener.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    net: Arc<Net>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Net {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    cut: bool,
    silent: [bool; 2],
    delay: Duration,
    ended: bool,
    next: u64,
    connections: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    near: Arc<End>,
    far: Arc<End>,
    queues: [Queue; 2],
}

/// What is on its way; an empty piece is the end of the stream.
#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    ended: bool,
}

impl Proxy {
    /// Stands in front of a listener, which need not be there yet, at a port of its own.
    pub fn start(target: Address) -> Result<Self> {
        if !matches!(target, Address::Unix(_) | Address::Tcp(_)) {
            bail!("a proxy stands in front of a plain listener, not of {target}");
        }
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let net = Arc::new(Net::default());
        let inner = net.clone();
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut state = inner.lock();
                if state.ended {
                    return;
                }
                // Dropped, the connection ends.
                if !state.cut {
                    let number = state.next;
                    state.next += 1;
                    drop(state);
                    let (inner, target) = (inner.clone(), target.clone());
                    std::thread::spawn(move || inner.join(number, stream, &target));
                }
            }
        });
        Ok(Self { address, net, accepting: Some(accepting) })
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        Address::Tcp(self.address.clone())
    }

    /// Ends every connection, and lets none come to be; or lets them again.
    pub fn cut(&self, cut: bool) {
        let mut state = self.net.lock();
        state.cut = cut;
        if cut {
            self.net.end_all(&mut state);
        }
    }

    /// Holds back what goes this way, or lets it go.
    pub fn silence(&self, way: Way, silent: bool) {
        self.net.lock().silent[way.place()] = silent;
        self.net.changed.notify_all();
    }

    /// From now on what comes goes on so much later.
    pub fn delay(&self, delay: Duration) {
        self.net.lock().delay = delay;
    }

    /// From now on all is well.
    pub fn heal(&self) {
        let mut state = self.net.lock();
        (state.cut, state.silent, state.delay) = (false, [false; 2], Duration::ZERO);
        self.net.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.net.lock();
        state.ended = true;
        self.net.end_all(&mut state);
        drop(state);
        // Wakes whoever accepts.
        let woken = TcpStream::connect(&self.address);
        if let (Ok(_), Some(thread)) = (woken, self.accepting.take()) {
            let _ended = thread.join();
        }
    }
}

impl Net {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, limit);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn end_all(&self, state: &mut State) {
        for connection in std::mem::take(&mut state.connections).into_values() {
            connection.end();
        }
        self.changed.notify_all();
    }

    fn end(&self, number: u64) {
        if let Some(connection) = self.lock().connections.remove(&number) {
            connection.end();
        }
        self.changed.notify_all();
    }

    /// Connects to the listener behind and carries bytes until the connection ends.
    fn join(self: Arc<Self>, number: u64, near: TcpStream, target: &Address) {
        let Ok(far) = End::connect(target) else { return };
        let _slower_at_worst = near.set_nodelay(true);
        let (near, far) = (Arc::new(End::Tcp(near)), Arc::new(far));
        let queues = [Queue::default(), Queue::default()];
        {
            let mut state = self.lock();
            if state.cut || state.ended {
                return;
            }
            let (near, far) = (near.clone(), far.clone());
            state.connections.insert(number, Connection { near, far, queues });
        }
        for (way, from, to) in [(Way::Out, near.clone(), far.clone()), (Way::Back, far, near)] {
            let (reader, writer) = (self.clone(), self.clone());
            std::thread::spawn(move || reader.read(number, way, &from));
            std::thread::spawn(move || writer.write(number, way, &to));
        }
    }

    fn read(&self, number: u64, way: Way, mut from: &End) {
        let mut piece = vec![0; PIECE];
        loop {
            // An error ends the stream as its end does.
            let len = from.read(&mut piece).unwrap_or(0);
            let mut state = self.lock();
            loop {
                let due = Instant::now() + state.delay;
                let Some(connection) = state.connections.get_mut(&number) else { return };
                let queue = &mut connection.queues[way.place()];
                if queue.bytes < QUEUE_MAX {
                    queue.bytes += len;
                    queue.pieces.push_back((due, piece[..len].to_vec()));
                    break;
                }
                state = self.wait(state, Duration::from_secs(1));
            }
            self.changed.notify_all();
            if len == 0 {
                return;
            }
        }
    }

    fn write(&self, number: u64, way: Way, mut to: &End) {
        loop {
            let mut state = self.lock();
            let piece = loop {
                let silent = state.silent[way.place()];
                let Some(connection) = state.connections.get_mut(&number) else { return };
                let queue = &mut connection.queues[way.place()];
                let due = queue.pieces.front().map(|(due, _)| *due);
                let left = due.map(|due| due.saturating_duration_since(Instant::now()));
                match left {
                    Some(Duration::ZERO) if !silent => {
                        let piece = queue.pieces.pop_front().map(|(_, piece)| piece);
                        let piece = piece.unwrap_or_default();
                        queue.bytes -= piece.len();
                        break piece;
                    }
                    Some(left) if !silent => state = self.wait(state, left),
                    _ => state = self.wait(state, Duration::from_secs(1)),
                }
            };
            drop(state);
            self.changed.notify_all();
            if piece.is_empty() {
                to.shutdown(Shutdown::Write);
                let mut state = self.lock();
                let Some(connection) = state.connections.get_mut(&number) else { return };
                connection.queues[way.place()].ended = true;
                if connection.queues.iter().all(|queue| queue.ended) {
                    drop(state);
                    self.end(number);
                }
                return;
            }
            if to.write_all(&piece).is_err() {
                return self.end(number);
            }
        }
    }
}

impl Connection {
    fn end(&self) {
        self.near.shutdown(Shutdown::Both);
        self.far.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests;
