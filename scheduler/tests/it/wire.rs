//! What enters the log and the snapshots comes out as it went in; whatever else there is is refused, and
//! harms nobody.

use crate::world::{Rng, World, any_entry};
use millpool_alliance::command::Reply;
use millpool_alliance::{Format, Refusal, State};
use millpool_scheduler::consensus::StateMachine as _;
use millpool_scheduler::replica::Replica;
use millpool_scheduler::wire::{command, snapshot};
use std::sync::Arc;

/// One change to some bytes: a bit, a byte, a cut, a hole, a repetition.
fn mutate(r: &mut Rng, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return bytes.push(r.next() as u8);
    }
    let at = (r.next() % bytes.len() as u64) as usize;
    match r.within(0, 6) {
        0 => bytes[at] ^= 1 << r.within(0, 7),
        1 => bytes[at] = r.next() as u8,
        2 => bytes[at] = *r.one(&[0, 0x7f, 0x80, 0xff]),
        3 => bytes.truncate(at),
        4 => drop(bytes.remove(at)),
        5 => bytes.insert(at, r.next() as u8),
        // A number as large as there is.
        _ => drop(bytes.splice(at..at, [0xff; 9].into_iter().chain([1]))),
    }
}

#[test]
fn an_entry_comes_out_as_it_went_in() {
    for seed in 0..20_000 {
        let entry = any_entry(&mut Rng(seed));
        let read = command::decode(&command::encode(&entry, Format::NEWEST), Format::NEWEST);
        assert_eq!(read.as_ref(), Ok(&entry), "seed {seed}");
    }
}

#[test]
fn a_state_comes_out_as_it_went_in() {
    for seed in 0..60 {
        let mut world = World::new(seed);
        for _ in 0..40 {
            live(&mut world);
            let bytes = snapshot::encode(&world.state.image());
            let read = Replica::default().decode(&bytes).unwrap();
            assert_eq!(read.hash(), world.state.hash(), "seed {seed}");
            assert_eq!(read.0.revision(), world.state.revision());
            assert_eq!(read.encode(), bytes, "seed {seed}");
        }
        for entry in &world.entries {
            assert_eq!(
                command::decode(&command::encode(entry, Format::NEWEST), Format::NEWEST).as_ref(),
                Ok(entry),
                "seed {seed}"
            );
        }
    }
}

#[test]
fn what_answers_say_of_bookings_is_in_memory_once() {
    let (mut same, mut changed) = (0, 0);
    for seed in 0..20 {
        let mut world = World::new(seed);
        (0..20).for_each(|_| live(&mut world));
        let image = Replica::default().decode(&snapshot::encode(&world.state.image())).unwrap().0.image();
        for (_, answer) in &image.answers {
            let Reply::Booking(then) = &answer.reply else { continue };
            // An answer may be remembered for longer than its booking is known.
            let Some(now) = image.bookings.iter().find(|b| b.id == then.id) else { continue };
            assert!(Arc::ptr_eq(&then.order, &now.order));
            assert_eq!(Arc::ptr_eq(then, now), then == now);
            *(if then == now { &mut same } else { &mut changed }) += 1;
        }
    }
    assert!(same > 0 && changed > 0, "{same} as they are, {changed} as they were");
}

/// A random step of a world, bookings among them.
fn live(world: &mut World) {
    if world.rng.chance(50) {
        return world.happen();
    }
    let (order, terms) = (world.order(), world.terms());
    let pool = millpool_scheduler::planner::pool::Pool::build(&world.state, world.now);
    let state = world.state.as_of(world.now);
    let Ok(found) = millpool_scheduler::planner::quote::candidates(&state, &pool, &order, &terms) else {
        return;
    };
    let placement = found[0].seats.clone();
    let buyer = millpool_alliance::PrincipalId::trusted("bo");
    let hold_s = if world.rng.chance(30) { 600 } else { 0 };
    let command = millpool_alliance::Command::Book { buyer, order: order.into(), terms, placement, hold_s };
    let mut entry = world.entry(crate::world::operator(), command);
    entry.request = Some(millpool_alliance::command::Request {
        id: format!("r{}", world.revision),
        method: "Book".into(),
        fingerprint: world.rng.next(),
    });
    world.apply(entry);
}

#[test]
fn no_bytes_break_the_reader_of_entries() {
    let mut r = Rng(1);
    for _ in 0..60_000 {
        let mut bytes = command::encode(&any_entry(&mut r), Format::NEWEST);
        for _ in 0..r.within(1, 4) {
            mutate(&mut r, &mut bytes);
        }
        let _ = command::decode(&bytes, Format::NEWEST);
    }
}

#[test]
fn no_bytes_break_the_reader_of_snapshots() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        (0..30).for_each(|_| live(&mut world));
        let bytes = snapshot::encode(&world.state.image());
        for _ in 0..600 {
            let mut bytes = bytes.clone();
            for _ in 0..world.rng.within(1, 3) {
                mutate(&mut world.rng, &mut bytes);
            }
            let _ = Replica::default().decode(&bytes);
        }
    }
}

#[test]
fn another_format_is_refused_and_not_guessed_at() {
    let entry = any_entry(&mut Rng(7));
    let mut bytes = command::encode(&entry, Format::FIRST);
    assert_eq!(bytes[..2], [8, 1], "the format comes first");
    assert_eq!(command::decode(&bytes, Format::NEWEST).as_ref(), Ok(&entry), "a newer version reads it");
    let newer = command::encode(&entry, Format::NEWEST);
    let (newest, next) = (Format::NEWEST.number(), Format::NEWEST.number() + 1);
    let says = |refusal: Refusal, format: u32| refusal.message.contains(&format!("of format {format}; "));
    assert!(says(command::decode(&newer, Format::FIRST).unwrap_err(), newest));
    bytes[1] = next as u8;
    assert!(says(command::decode(&bytes, Format::NEWEST).unwrap_err(), next));
    assert!(command::decode(&[], Format::NEWEST).is_err());
    let replica = Replica::default();
    assert!(replica.decode(&[]).is_err());
    let restored = State::default().restored("old", 5, "a reason");
    let state = snapshot::encode(&restored.image());
    assert_eq!(replica.decode(&state).unwrap().0.restorations(), restored.restorations());
    let older = Replica(State::default(), Format::FIRST);
    assert!(older.decode(&state).err().unwrap().0.contains(&format!("of format {newest}; ")));
}
