//! Who may open which export: pure, from what the shard of a volume knows.
//!
//! ```text
//!   VOLUME/KIND@GENERATION[#SESSION]
//!      │          │            └─ primary only: below the highest let in ─► gone
//!      │          │                            another one lives, or did just now ─► busy
//!      │          └─ below the served one, not carried over ─► gone      another ─► unknown
//!      └─ not here, or not in this role ─► unknown
//! ```
//!
//! *Gone* is for good; *unknown* and *busy* may be had later. Names without a session are for tools:
//! they get in while no session has connections, and are cut when one is let in.

use crate::engine::api::{ByteLen, ExportKind, Generation, VolumeId};
use crate::nbd::Refusal;

/// What a volume's shard knows of it; enough to decide on any other thread.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Offer {
    pub(super) volume: VolumeId,
    pub(super) size: ByteLen,
    pub(super) generation: Generation,
    /// Primary: older generations whose devices go on.
    pub(super) carried: Vec<Generation>,
    /// No checkpoint covers it, though one covers others of its group: it has no view.
    pub(super) joining: bool,
    /// What can be opened now.
    pub(super) kinds: Vec<ExportKind>,
    pub(super) seats: Seats,
}

/// Which sessions of a volume there were, and are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::engine) struct Seats {
    /// The highest number that was given out.
    pub(super) issued: u64,
    /// The highest number that was let in.
    pub(super) let_in: u64,
    /// Those with connections.
    pub(super) live: Vec<u64>,
    /// The one let in last had connections moments ago, as far as is known.
    pub(super) resting: bool,
}

/// An export's name in its parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::engine) struct Wanted<'a> {
    pub(super) volume: &'a str,
    pub(super) kind: ExportKind,
    pub(super) generation: Generation,
    pub(super) session: Option<u64>,
}

impl<'a> Wanted<'a> {
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let (volume, rest) = name.split_once('/')?;
        let (kind, rest) = rest.split_once('@')?;
        let (generation, session) = match rest.split_once('#') {
            Some((generation, session)) => (generation, Some(session.parse().ok()?)),
            None => (rest, None),
        };
        let kind = super::exports::KINDS.into_iter().find(|k| k.to_string() == kind)?;
        Some(Self { volume, kind, generation: generation.parse().ok()?, session })
    }
}

impl Offer {
    /// The volume.
    pub(in crate::engine) fn volume(&self) -> &VolumeId {
        &self.volume
    }

    /// The name of an export of it.
    pub(super) fn name(&self, kind: ExportKind) -> String {
        format!("{}/{kind}@{}", self.volume, self.generation)
    }

    /// Whether a device bound to `generation` goes on here.
    pub(super) fn serves(&self, kind: ExportKind, generation: Generation) -> bool {
        self.kinds.contains(&kind)
            && (self.generation == generation
                || kind == ExportKind::Primary && self.carried.contains(&generation))
    }

    /// Whether a client may open this export of the volume now.
    pub(super) fn judge(&self, name: &str, wanted: &Wanted<'_>) -> Result<(), Refusal> {
        let Wanted { kind, generation, session, .. } = *wanted;
        if !self.serves(kind, generation) {
            let carried = kind == ExportKind::Primary && self.carried.contains(&generation);
            if generation.number < self.generation.number && !carried {
                let (shown, others) = (shorten(name), self.others());
                return Err(Refusal::gone(format!(
                    "{shown} is of a generation that has ended, attach the volume anew: {others}"
                )));
            }
            if self.joining && kind == ExportKind::View && generation == self.generation {
                return Err(Refusal::unknown(format!(
                    "volume {} is joining its group: no checkpoint covers it yet, so there is no \
                     view of it",
                    self.volume
                )));
            }
            return Err(self.unknown(name));
        }
        match (kind, session) {
            (ExportKind::Primary, Some(number)) => self.judge_session(name, number),
            (ExportKind::Primary, None) if !self.seats.live.is_empty() => {
                Err(self.busy(&self.seats.live))
            }
            (_, Some(_)) => Err(self.unknown(name)),
            (_, None) => Ok(()),
        }
    }

    fn judge_session(&self, name: &str, number: u64) -> Result<(), Refusal> {
        let Seats { issued, let_in, ref live, resting } = self.seats;
        if number < let_in {
            return Err(Refusal::gone(format!(
                "session {number} of volume {} has ended: session {let_in} took its place",
                self.volume
            )));
        }
        if number == 0 || number > issued {
            return Err(Refusal::unknown(format!(
                "{} names a session that was never given out: ask for one with OpenSession",
                shorten(name)
            )));
        }
        if live.iter().any(|l| *l != number) {
            return Err(self.busy(live));
        }
        if number > let_in && resting {
            return Err(self.busy(&[let_in]));
        }
        Ok(())
    }

    fn busy(&self, sessions: &[u64]) -> Refusal {
        let all: Vec<_> = sessions.iter().map(ToString::to_string).collect();
        Refusal::busy(format!(
            "volume {} is in use by session {}: end that one first, or try again later",
            self.volume,
            all.join(", ")
        ))
    }

    fn unknown(&self, name: &str) -> Refusal {
        Refusal::unknown(format!("there is no export {}: {}", shorten(name), self.others()))
    }

    fn others(&self) -> String {
        let others: Vec<_> = self.kinds.iter().map(|k| self.name(*k)).collect();
        if others.is_empty() {
            return "nothing of that volume is served here now".to_owned();
        }
        format!("served of that volume are now: {}", others.join(", "))
    }
}

/// The offer that `name` may open now.
pub(super) fn choose<'o, 'n>(
    offers: &'o [Offer],
    name: &'n str,
) -> Result<(&'o Offer, Wanted<'n>), Refusal> {
    let volume = name.split('/').next().unwrap_or_default();
    let Some(offer) = offers.iter().find(|o| o.volume.as_str() == volume) else {
        return Err(nowhere(name));
    };
    let Some(wanted) = Wanted::parse(name) else { return Err(offer.unknown(name)) };
    offer.judge(name, &wanted)?;
    Ok((offer, wanted))
}

fn shorten(name: &str) -> String {
    format!("'{}'", name.escape_debug().take(300).collect::<String>())
}

/// There is nothing of that volume.
pub(super) fn nowhere(name: &str) -> Refusal {
    let name = shorten(name);
    Refusal::unknown(format!(
        "there is no export {name}: nothing of that volume is served here now"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nbd::RefusalKind::{self, Busy, Gone, Unknown};

    fn generation(number: u64) -> Generation {
        Generation { number, id: number }
    }

    fn offer(seats: Seats) -> Offer {
        Offer {
            volume: "db".parse().unwrap(),
            size: ByteLen(1 << 20),
            generation: generation(6),
            carried: vec![generation(2), generation(4)],
            joining: false,
            kinds: vec![ExportKind::Primary],
            seats,
        }
    }

    fn ask(offer: &Offer, name: &str) -> Option<RefusalKind> {
        choose(std::slice::from_ref(offer), name).err().map(|r| r.kind)
    }

    fn named(number: u64, session: &str) -> String {
        format!("db/primary@{}{session}", generation(number))
    }

    #[test]
    fn a_stale_generation_is_gone_unless_carried_and_a_later_one_may_come() {
        let o = offer(Seats::default());
        for served in [2, 4, 6] {
            assert_eq!(ask(&o, &named(served, "")), None, "{served}");
        }
        for (number, kind) in [(1, Gone), (3, Gone), (5, Gone), (7, Unknown)] {
            assert_eq!(ask(&o, &named(number, "")), Some(kind), "{number}");
        }
        let other_id = format!("db/primary@{}", Generation { number: 6, id: 9 });
        assert_eq!(ask(&o, &other_id), Some(Unknown));
        assert_eq!(ask(&o, &format!("db/view@{}", generation(4))), Some(Gone), "never carried");
        assert_eq!(ask(&o, &format!("db/view@{}", generation(6))), Some(Unknown));
        let joins = Offer { joining: true, ..offer(Seats::default()) };
        let view = format!("db/view@{}", generation(6));
        let why = choose(std::slice::from_ref(&joins), &view);
        assert!(why.is_err_and(|r| r.message.contains("joining its group")));
        let closed = Offer { kinds: vec![], ..o };
        assert_eq!(ask(&closed, &named(4, "#1")), Some(Unknown), "it may be served again");
        assert_eq!(ask(&closed, &named(5, "#1")), Some(Gone));
    }

    #[test]
    fn names_that_are_none_are_unknown() {
        let o = offer(Seats { issued: 5, ..Seats::default() });
        for name in ["", "no", "db", "db/primary", "db/primary@6", "db/other@6-0000000000000006"] {
            assert_eq!(ask(&o, name), Some(Unknown), "{name}");
        }
        for session in ["#", "#x", "#-1", "#0", "#6", "#1#1"] {
            assert_eq!(ask(&o, &named(6, session)), Some(Unknown), "{session}");
        }
    }

    #[test]
    fn a_later_session_waits_for_the_earlier_and_then_ends_it_for_good() {
        let seats =
            |let_in, live: &[u64], resting| Seats { issued: 5, let_in, live: live.into(), resting };
        let cases = [
            (seats(0, &[], false), "#3", None),
            (seats(3, &[3], false), "#3", None),
            (seats(3, &[3], false), "#4", Some(Busy)),
            (seats(3, &[], true), "#3", None),
            (seats(3, &[], true), "#4", Some(Busy)),
            (seats(3, &[], false), "#4", None),
            (seats(3, &[4], false), "#3", Some(Busy)),
            (seats(3, &[4], false), "#5", Some(Busy)),
            (seats(4, &[], false), "#3", Some(Gone)),
            (seats(4, &[4], true), "#3", Some(Gone)),
            (seats(3, &[3], false), "", Some(Busy)),
            (seats(3, &[], true), "", None),
        ];
        for (seats, session, answer) in cases {
            let o = offer(seats.clone());
            for number in [4, 6] {
                assert_eq!(ask(&o, &named(number, session)), answer, "{seats:?} {session}");
            }
        }
    }
}
