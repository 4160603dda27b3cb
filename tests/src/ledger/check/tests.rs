//! The judge must accept every prefix and nothing else.

use super::super::record::{Record, hash};
use super::*;

/// Volumes in memory that a run was written to.
struct Volumes {
    plan: Plan,
    blocks: BTreeMap<Place, Vec<u8>>,
    previous: Hash,
    next: u64,
}

impl Volumes {
    fn after(count: u64) -> Self {
        let plan = Plan::new(77, 2, 512, 8, 1024).unwrap();
        let mut volumes = Self { plan, blocks: BTreeMap::new(), previous: [0; 16], next: 1 };
        for _ in 0..count {
            let (place, block) = volumes.next_record();
            volumes.blocks.insert(place, block);
        }
        volumes
    }

    /// Makes the next record without putting it on the volumes.
    fn next_record(&mut self) -> (Place, Vec<u8>) {
        let (run, number, previous) = (self.plan.run, self.next, self.previous);
        let volume = self.plan.volume_name(number);
        let block = Record { run, number, volume, previous }.encode(512);
        self.previous = hash(&block);
        self.next += 1;
        (self.plan.place_of(number), block)
    }

    fn place(&self, number: u64) -> Place {
        self.plan.place_of(number)
    }

    fn found(&self) -> Vec<Found> {
        let slots = (0..self.plan.slots).map(|slot| self.plan.start + slot * self.plan.block);
        let places =
            (0..2).flat_map(|volume| slots.clone().map(move |offset| Place { volume, offset }));
        let blank = vec![0x11; 512];
        places
            .map(|place| {
                let block = self.blocks.get(&place).unwrap_or(&blank);
                Found { place, reading: Reading::of(block) }
            })
            .collect()
    }

    fn verdict(&self, at_least: u64, at_most: u64) -> Verdict {
        check(&self.plan, &self.found(), Bounds { at_least, at_most })
    }
}

#[test]
fn every_prefix_is_accepted_as_itself() {
    for count in 0..60 {
        assert_eq!(Volumes::after(count).verdict(count, count), Verdict::Prefix(count));
    }
}

#[test]
fn a_hole_is_named_by_its_place() {
    for missing in 41..50 {
        let mut volumes = Volumes::after(50);
        let place = volumes.place(missing);
        volumes.blocks.remove(&place);
        let verdict = volumes.verdict(0, 50);
        assert!(
            matches!(verdict, Verdict::Mixed { place: at, holds: None, expected, .. }
                if at == place && expected == missing),
            "{verdict}"
        );
    }
}

#[test]
fn a_block_that_was_not_overwritten_is_a_hole_too() {
    let old = Volumes::after(30);
    let mut volumes = Volumes::after(50);
    let place = volumes.place(48);
    volumes.blocks.insert(place, old.blocks[&place].clone());
    let verdict = volumes.verdict(0, 50);
    assert!(
        matches!(verdict, Verdict::Mixed { place: at, holds: Some(32 | 16), expected: 48, .. }
        if at == place),
        "{verdict}"
    );
}

#[test]
fn volumes_of_two_cuts_are_a_mix() {
    // Volume 1 stays at 40 while volume 0 goes on to 50: each alone is a fine prefix.
    let older = Volumes::after(40);
    let mut volumes = Volumes::after(50);
    volumes.blocks.retain(|place, _| place.volume == 0);
    volumes.blocks.extend(older.blocks.into_iter().filter(|(place, _)| place.volume == 1));
    let verdict = volumes.verdict(0, 50);
    assert!(
        matches!(verdict, Verdict::Mixed { newest: 49, place: Place { volume: 1, .. }, .. }),
        "{verdict}"
    );
    assert!(verdict.to_string().contains("not one cut"), "{verdict}");
}

#[test]
fn one_newer_block_on_one_volume_is_seen() {
    let mut volumes = Volumes::after(50);
    let (_skipped, _block) = volumes.next_record();
    let (place, block) = volumes.next_record();
    assert_eq!(place, volumes.place(52));
    volumes.blocks.insert(place, block);
    let verdict = volumes.verdict(0, 60);
    assert!(
        matches!(verdict, Verdict::Mixed { newest: 52, newest_at, place: at, expected: 51, .. }
            if newest_at == place && at == volumes.place(51)),
        "{verdict}"
    );
}

#[test]
fn a_torn_block_is_seen_wherever_it_is_torn() {
    let newer = Volumes::after(66);
    for cut in [17, 24, 48, 200, 511] {
        let mut volumes = Volumes::after(50);
        let place = volumes.place(50);
        let mut block = newer.blocks[&place].clone();
        block[cut..].copy_from_slice(&volumes.blocks[&place][cut..]);
        volumes.blocks.insert(place, block);
        let verdict = volumes.verdict(0, 66);
        assert!(
            matches!(verdict, Verdict::Torn { place: at, .. } if at == place),
            "{cut}: {verdict}"
        );
    }
}

#[test]
fn a_record_in_the_wrong_place_or_of_another_run_is_a_stranger() {
    let mut volumes = Volumes::after(50);
    let (from, to) = (volumes.place(50), volumes.place(48));
    volumes.blocks.insert(to, volumes.blocks[&from].clone());
    assert!(matches!(volumes.verdict(0, 50), Verdict::Stranger { place, .. } if place == to));

    let mut volumes = Volumes::after(50);
    let place = volumes.place(50);
    let other = Record { run: 78, number: 50, volume: 1, previous: [0; 16] }.encode(512);
    volumes.blocks.insert(place, other);
    assert!(volumes.verdict(0, 50).to_string().contains("another run"));
}

#[test]
fn a_record_that_does_not_follow_from_the_one_before_is_seen() {
    let mut volumes = Volumes::after(50);
    let place = volumes.place(45);
    let forged = Record { run: 77, number: 45, volume: 0, previous: [1; 16] }.encode(512);
    volumes.blocks.insert(place, forged);
    let verdict = volumes.verdict(0, 50);
    assert!(matches!(verdict, Verdict::BrokenChain { number: 45 | 46, .. }), "{verdict}");
}

#[test]
fn what_completed_before_the_cut_must_be_there_and_no_more_than_was_issued() {
    let volumes = Volumes::after(50);
    assert_eq!(volumes.verdict(51, 60), Verdict::TooShort { prefix: 50, at_least: 51 });
    assert_eq!(volumes.verdict(0, 49), Verdict::TooLong { prefix: 50, at_most: 49 });
    assert_eq!(volumes.verdict(50, 50), Verdict::Prefix(50));
    let empty = Volumes::after(0);
    assert_eq!(empty.verdict(1, 9), Verdict::TooShort { prefix: 0, at_least: 1 });
}
