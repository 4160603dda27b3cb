//! Who has an export of a group open now.
//!
//! ```text
//!   open ─► Seat (no request yet) ─► first request: the session is let in ─► ... ─► dropped: left
//!              │                          └─ tools, older sessions, and older connections of this one
//!              │                             are cut first
//!              └─ dropped by a handshake that only asked: as if it had never been
//! ```
//!
//! A connection drops its seat after its last request has ended. So who waits until a seat is empty
//! knows that nothing of it reaches the disk any more.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::admission::Seats;
use crate::engine::api::{ExportKind, Generation};
use crate::nbd::Revocation;
use crate::overlay::Sessions;
use crate::runtime::{Env, Mono, ShardEnv, Signal, timeout};
use crate::units::VolumeIndex;

/// How long a session that lost its connections keeps a later one out: it may be reconnecting.
pub(super) const REST: Duration = Duration::from_secs(10);

/// All seats of a group. Clones are the same.
#[derive(Clone)]
pub(super) struct Hall(Rc<Inner>);

struct Inner {
    env: ShardEnv,
    taken: RefCell<Vec<Rc<Place>>>,
    /// When the session let in last lost its last connection, by volume.
    left: RefCell<BTreeMap<VolumeIndex, (u64, Mono)>>,
    /// The session that was ended by its consumer's word, by volume.
    closed: RefCell<BTreeMap<VolumeIndex, u64>>,
    /// Before that, nobody knows who was there.
    opened: Mono,
    /// The last connection's.
    serial: Cell<u64>,
    /// Nobody gets in any more: the group is about to be closed.
    shut: Cell<bool>,
    changed: Signal,
}

/// What a connection has open.
pub(super) struct Place {
    pub(super) index: VolumeIndex,
    pub(super) kind: ExportKind,
    pub(super) generation: Generation,
    pub(super) session: Option<u64>,
    pub(super) switch: Revocation,
    /// Grows with each connection.
    serial: u64,
    /// It has made a request.
    entered: Cell<bool>,
}

/// A connection's place, given up when dropped.
pub(super) struct Seat {
    hall: Hall,
    place: Rc<Place>,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seat({} of {:?})", self.place.index.0, self.place.session)
    }
}

impl Hall {
    pub(super) fn new(env: &ShardEnv) -> Self {
        Self(Rc::new(Inner {
            env: env.clone(),
            taken: RefCell::default(),
            left: RefCell::default(),
            closed: RefCell::default(),
            opened: env.now(),
            serial: Cell::new(0),
            shut: Cell::new(false),
            changed: Signal::new(),
        }))
    }

    /// Takes a seat for a connection.
    pub(super) fn sit(
        &self,
        index: VolumeIndex,
        kind: ExportKind,
        generation: Generation,
        session: Option<u64>,
    ) -> Seat {
        let switch = Revocation::new();
        let entered = Cell::new(false);
        let serial = self.0.serial.get() + 1;
        self.0.serial.set(serial);
        let place = Rc::new(Place { index, kind, generation, session, switch, serial, entered });
        self.0.taken.borrow_mut().push(place.clone());
        Seat { hall: self.clone(), place }
    }

    /// What decides who else gets in.
    pub(super) fn seats(&self, index: VolumeIndex, known: Sessions) -> Seats {
        let Sessions { issued, let_in, .. } = known;
        let mut live: Vec<u64> = self.of(index).filter_map(|p| p.session).collect();
        live.sort_unstable();
        live.dedup();
        let left = self.0.left.borrow().get(&index).filter(|(n, _)| *n == let_in).map(|l| l.1);
        let since = left.unwrap_or(self.0.opened);
        let is_closed = self.0.closed.borrow().get(&index) == Some(&let_in);
        let resting = let_in > 0 && !is_closed && self.0.env.now() < since.after(REST);
        Seats { issued, let_in, live, resting }
    }

    /// How many connections have a volume open in this way.
    pub(super) fn count(&self, index: VolumeIndex, kind: ExportKind) -> usize {
        self.of(index).filter(|p| p.kind == kind).count()
    }

    /// How many connections have any volume open.
    pub(super) fn all_clients(&self) -> usize {
        self.0.taken.borrow().len()
    }

    /// How many connections have a volume open in any way.
    pub(super) fn clients(&self, index: VolumeIndex) -> usize {
        self.of(index).count()
    }

    fn of(&self, index: VolumeIndex) -> impl Iterator<Item = Rc<Place>> {
        let all: Vec<_> =
            self.0.taken.borrow().iter().filter(|p| p.index == index).cloned().collect();
        all.into_iter()
    }

    /// Ends a session by its consumer's word: the next one need not wait. One that was never let in
    /// leaves the one that was as it is, closed or not.
    pub(super) fn close_session(&self, index: VolumeIndex, number: u64, known: Sessions) {
        if number == known.let_in {
            self.0.closed.borrow_mut().insert(index, number);
        }
        self.cut(|p| p.index == index && p.session == Some(number));
    }

    /// Cuts the connections for which `which` says so.
    pub(super) fn cut(&self, which: impl Fn(&Place) -> bool) {
        for place in self.0.taken.borrow().iter().filter(|p| which(p)) {
            place.switch.revoke();
        }
    }

    /// Whether nobody gets in any more.
    pub(super) fn is_shut(&self) -> bool {
        self.0.shut.get()
    }

    /// Lets people in, or keeps them out.
    pub(super) fn shut(&self, shut: bool) {
        self.0.shut.set(shut);
    }

    /// Waits until nothing of these connections is under way; `false` if they don't end.
    pub(super) async fn empty(&self, limit: Duration, which: impl Fn(&Place) -> bool) -> bool {
        let gone = || !self.0.taken.borrow().iter().any(|p| which(p));
        timeout(&self.0.env, limit, self.0.changed.wait_until(gone)).await.is_some()
    }
}

impl Seat {
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Makes room before the first request of a connection with a session: tools and older sessions
    /// end, and older connections of the same. A consumer that connects anew sends again what was not
    /// answered; what of it was on its way on the old connection must not come after that.
    pub(super) async fn make_room(&self) -> bool {
        let Some(number) = self.place.session else { return true };
        let (index, serial) = (self.place.index, self.place.serial);
        let older = move |p: &Place| {
            p.index == index
                && p.kind == ExportKind::Primary
                && p.session.is_none_or(|n| n < number || n == number && p.serial < serial)
        };
        self.hall.cut(older);
        self.hall.empty(REST, older).await
    }

    /// From now on it counts as having been there.
    pub(super) fn enter(&self) {
        self.place.entered.set(true);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let hall = &self.hall.0;
        hall.taken.borrow_mut().retain(|p| !Rc::ptr_eq(p, &self.place));
        if let (Some(number), true) = (self.place.session, self.place.entered.get()) {
            let mut left = hall.left.borrow_mut();
            let last = left.entry(self.place.index).or_insert((number, hall.env.now()));
            // An older one that ends late says nothing about the last.
            if last.0 <= number {
                *last = (number, hall.env.now());
            }
        }
        hall.changed.notify();
    }
}
