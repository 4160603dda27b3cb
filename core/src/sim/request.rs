//! A request that changes a file: when its parts take effect, and how it ends when its node dies.
//!
//! ```text
//!   one request ─┬─ first half   ── delay ──► effect ─┐
//!                └─ second half  ── delay ──► effect ─┴─► answer after the later one
//!
//!   killed meanwhile:     nothing, or all of a half, perhaps later: the kernel has it
//!   power cut meanwhile:  any sectors of it
//! ```

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use futures::channel::oneshot;

use super::events::{Fate, WORLD};
use super::file::File;
use super::host::SimHost;
use super::pages::{Effect, SECTOR};
use super::random::Random;
use crate::disk::{Error, Result};
use crate::units::ByteRange;

pub(super) type Reply<T> = oneshot::Sender<T>;

/// What the parts of a request share.
struct Request {
    remaining: Cell<usize>,
    reply: RefCell<Option<Reply<Result<()>>>>,
    /// It fails with this, having taken effect somewhere or nowhere.
    failed: Option<Error>,
}

impl Request {
    fn part_ended(&self) {
        self.remaining.set(self.remaining.get() - 1);
        if self.remaining.get() == 0
            && let Some(reply) = self.reply.borrow_mut().take()
        {
            // Nobody waits when the future was dropped.
            let _ = reply.send(self.failed.clone().map_or(Ok(()), Err));
        }
    }
}

/// A part in flight; its file counts them, since who opens it anew waits for them.
struct Flight(Rc<File>);

impl Flight {
    fn new(file: &Rc<File>) -> Self {
        file.in_flight.set(file.in_flight.get() + 1);
        Self(file.clone())
    }

    fn apply(&self, effects: impl IntoIterator<Item = Effect>) {
        effects.into_iter().for_each(|effect| self.0.apply(effect));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
        self.0.settled.notify();
    }
}

/// Begins a request; answered when all of it has taken effect.
pub(super) fn submit(
    host: &SimHost,
    file: &Rc<File>,
    effects: Vec<Effect>,
    failed: Option<Error>,
    reply: Reply<Result<()>>,
) {
    let world = host.world();
    let parts = split(effects, &world.disks);
    let remaining = Cell::new(parts.len());
    let request = Rc::new(Request { remaining, reply: RefCell::new(Some(reply)), failed });
    for effects in parts {
        let (request, host2, flight) = (request.clone(), host.clone(), Flight::new(file));
        let action = move |fate: Fate| end(&host2, &request, flight, effects, fate);
        world.act_after(host.file_delay(file), host.tag(), Box::new(action));
    }
}

/// The end of a part.
fn end(host: &SimHost, request: &Request, flight: Flight, effects: Vec<Effect>, fate: Fate) {
    let (world, node) = (host.world(), host.node().clone());
    let random = &world.disks;
    let some = |effects: &[Effect]| {
        let all = effects.iter().flat_map(Effect::sectors);
        all.filter(|_| random.one_in(2)).collect::<Vec<_>>()
    };
    match fate {
        Fate::Happens if request.failed.is_some() => {
            if random.one_in(2) {
                flight.apply(some(&effects));
            }
            request.part_ended();
        }
        Fate::Happens => {
            flight.apply(effects);
            request.part_ended();
        }
        Fate::PowerCut => match random.below(3) {
            0 => {}
            1 => flight.apply(effects),
            _ => flight.apply(some(&effects)),
        },
        Fate::Kill => match random.below(3) {
            0 => {}
            1 => flight.apply(effects),
            _ => {
                let power_cuts = node.power_cuts.get();
                let late = move |_: Fate| {
                    if node.power_cuts.get() == power_cuts {
                        flight.apply(effects);
                    }
                };
                world.act_after(host.disk_delay() * 4, WORLD, Box::new(late));
            }
        },
    }
}

/// Now and then cuts a request in two that take effect at two times.
fn split(effects: Vec<Effect>, random: &Random) -> Vec<Vec<Effect>> {
    let start = effects.first().map_or(0, |e| e.range.start);
    let end = effects.last().map_or(0, |e| e.range.end);
    let sectors = (end - start) / SECTOR;
    if sectors < 2 || !random.one_in(4) {
        return vec![effects];
    }
    let cut = (start / SECTOR + 1 + random.below(sectors - 1)) * SECTOR;
    let half = |range| {
        let parts = effects.iter().map(|e| e.part(range));
        parts.filter(|e| !e.range.is_empty()).collect()
    };
    vec![half(ByteRange::new(start, cut)), half(ByteRange::new(cut, end))]
}
