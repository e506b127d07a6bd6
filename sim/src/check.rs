//! What must hold at the end of a run, whatever broke: each check can refute a guarantee.
//!
//! The whole log is put together from the disks, and replayed through the pure state machine. Every answer carries
//! the revision at which it was given, so it is compared with the replayed state at that very revision, and the order
//! of revisions with the order in real time: what is linear in the first and agrees with the second is linearizable.

use crate::buyer::{WATCHERS, watcher};
use crate::history::{Answer, Call, Operation};
use crate::plant::PLANTS;
use crate::run::Summary;
use crate::world::{Plant, World, clock};
use millpool_alliance::command::{Event, Request};
use millpool_alliance::{
    BookingId, Command, Entry, Format, Outcome, PlantId, Refusal, Reply, SessionId, State, invariants,
};
use millpool_node_agent::outbox::log::Log;
use millpool_proto::log::v1 as log;
use millpool_proto::v1;
use millpool_scheduler::consensus::disk::memory::Purged;
use millpool_scheduler::wire;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

/// Most that a failing seed says.
const WRONG_MAX: usize = 12;

/// The end of a run: every member has applied the same.
pub struct Ending {
    revision: u64,
    hash: u64,
    /// Entries by index, as commands; `None` for what is consensus' own.
    log: BTreeMap<u64, Option<Entry>>,
}

/// Why it is not the end.
pub enum NotEnded {
    /// Somebody still has to come to know something.
    Yet(String),
    /// Something is wrong.
    Wrong(String),
}

impl Ending {
    /// The end, once all members have applied the same, and plants and watchers know of it.
    pub fn of(world: &World) -> Result<Ending, NotEnded> {
        let yet = |why: &str| NotEnded::Yet(why.to_owned());
        let leader = world.leader().and_then(|leader| world.nodes[leader].handle.as_ref());
        let leader = leader.ok_or_else(|| yet("nobody leads"))?;
        let status = leader.status();
        let members: BTreeSet<u64> = status.members.iter().map(|member| member.node_id).collect();
        let view = leader.state();
        let hash = view.state.0.hash();
        for node in members.iter().map(|id| &world.nodes[*id as usize - 1]) {
            let handle = node.handle.as_ref().ok_or_else(|| yet("a member does not run"))?;
            let its = handle.state();
            if its.revision != view.revision || handle.status().applied_index != status.last_log_index {
                let (node, last) = (handle.node_id(), status.last_log_index);
                return Err(NotEnded::Yet(format!("node {node} is at {} of {last:?}", its.revision)));
            }
            if its.state.0.hash() != hash {
                let (node, revision) = (handle.node_id(), view.revision);
                return Err(NotEnded::Wrong(format!("node {node} differs from the leader at {revision}")));
            }
        }
        let understood = members.iter().map(|id| world.nodes[*id as usize - 1].reads).min();
        if understood != Some(view.state.0.format()) {
            let format = view.state.0.format();
            return Err(NotEnded::Yet(format!("the format is {format}, and all understand {understood:?}")));
        }
        for who in (0..WATCHERS).map(watcher) {
            let until = world.history.watched.iter().filter(|w| w.who == who).map(|w| w.until).max();
            if until < Some(world.newest_change) {
                return Err(NotEnded::Yet(format!(
                    "{who} knows of {until:?}, not of {}",
                    world.newest_change
                )));
            }
        }
        let state = view.state.0.as_of(clock::now_s(world.scale));
        for (plant, id) in world.plants.iter().zip(PLANTS) {
            has_come_through(plant, id, &state).map_err(NotEnded::Yet)?;
        }
        let log = log_of(world, &members, view.revision).map_err(NotEnded::Wrong)?;
        Ok(Ending { revision: view.revision, hash, log })
    }
}

/// Whether all that an agent has to tell is applied, and it has the list that it should have.
fn has_come_through(plant: &Plant, id: &str, state: &State) -> Result<(), String> {
    let (Some(outbox), Some(kept)) = (&plant.outbox, &plant.kept) else {
        return Err(format!("the agent of {id} does not run"));
    };
    let (outbox, kept, plant) = (outbox.borrow(), kept.borrow(), PlantId::trusted(id));
    if outbox.acked_seq < outbox.last_seq {
        return Err(format!("{id} has told of {}, not of {}", outbox.acked_seq, outbox.last_seq));
    }
    if let Some(since) = state.silences().get(&plant) {
        return Err(format!("{id} is heard, and counts as silent since {since}"));
    }
    let due = wire::agent::dispatch_list(state, &plant).items;
    match kept.list.as_ref().is_some_and(|list| list.items == due) {
        true => Ok(()),
        false => Err(format!("{id} has an old list, of revision {}", kept.revision())),
    }
}

/// The whole log up to a revision that all members have applied: what their disks have, and what purges have taken.
fn log_of(
    world: &World,
    members: &BTreeSet<u64>,
    revision: u64,
) -> Result<BTreeMap<u64, Option<Entry>>, String> {
    let mut found = world.archive.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for member in members {
        for (index, bytes) in world.nodes[*member as usize - 1].disk.kept_entries().range(..=revision) {
            let other = found.insert(*index, Purged { bytes: bytes.clone(), certain: true });
            if other.is_some_and(|other| other.certain && other.bytes != bytes) {
                return Err(format!("node {member} has another entry {index} than others had"));
            }
        }
    }
    let mut log = BTreeMap::new();
    for index in 0..=revision {
        let Some(Purged { bytes, .. }) = found.get(&index) else {
            return Err(format!("entry {index} of {revision} is on no disk"));
        };
        let entry = log::Entry::decode(bytes.clone()).map_err(|e| format!("entry {index}: {e}"))?;
        let command = match entry.payload {
            Some(log::entry::Payload::Command(command)) => {
                let command = wire::command::decode(&command, Format::NEWEST);
                Some(command.map_err(|e| format!("entry {index}: {e}"))?)
            }
            _ => None,
        };
        log.insert(index, command);
    }
    Ok(log)
}

/// All checks.
pub fn everything(world: &World, ending: &Ending) -> Result<Summary, Vec<String>> {
    let mut wrong = Vec::new();
    let operations = &world.history.operations;
    let replayed = replay(world, ending, &mut wrong);
    if replayed.state.hash() != ending.hash {
        wrong.push("the replayed log gives another state than the nodes have".into());
    }
    in_real_time(operations, &mut wrong);
    undone_is_undone(&replayed, operations, &mut wrong);
    known_is_found(&replayed, operations, &mut wrong);
    watched(world, &replayed, &mut wrong);
    asked(world, &replayed, &mut wrong);
    for (plant, id) in world.plants.iter().zip(PLANTS) {
        reported(plant, id, &replayed, &mut wrong);
    }
    wrong.truncate(WRONG_MAX);
    match wrong.is_empty() {
        false => Err(wrong),
        true => Ok(Summary {
            calls: operations.len(),
            done: operations.iter().filter(|o| matches!(o.answer, Answer::Done { .. })).count(),
            revision: ending.revision,
            hash: ending.hash,
            events: replayed.reported.values().map(Vec::len).sum(),
            silences: replayed.silences,
        }),
    }
}

/// What was asked of machines is on record as it was answered; an outcome that was told is the one that stands.
fn asked(world: &World, replayed: &Replayed, wrong: &mut Vec<String>) {
    for (session_id, command) in &world.history.asked {
        let known = SessionId::parse(session_id).ok().and_then(|id| replayed.state.sessions().get(&id));
        // Forgotten with its booking.
        let Some(session) = known else { continue };
        let recorded = session.command(command.nonce).map(|own| wire::remote::command(own, command.nonce));
        let as_told = |recorded: &v1::RemoteCommand| match &command.outcome {
            Some(_) => recorded.outcome == command.outcome,
            None => true,
        };
        let same = |recorded: &v1::RemoteCommand| {
            (recorded.verb, &recorded.by, recorded.asked_at_s)
                == (command.verb, &command.by, command.asked_at_s)
        };
        if !recorded.as_ref().is_some_and(|recorded| same(recorded) && as_told(recorded)) {
            wrong.push(format!("{session_id}: {command:?} was answered, and {recorded:?} is on record"));
        }
    }
}

/// What the log does.
#[derive(Default)]
struct Replayed {
    state: State,
    /// The references of orders booked, or nothing, by the ids of requests that were done.
    done: BTreeMap<String, String>,
    /// When a caller's request to a method under an id was done.
    first: BTreeMap<(String, String, String), u64>,
    /// What each booking was promised: by when, at which price.
    promised: BTreeMap<BookingId, (i64, i64)>,
    /// Since when each booking that is over and known is so, seconds since the Unix epoch; none if it was so before
    /// anybody took it down.
    over: BTreeMap<BookingId, Option<i64>>,
    /// The bookings that are known no longer, and since which revision.
    forgotten: BTreeMap<BookingId, u64>,
    /// The bookings that changed, by revision.
    changes: BTreeMap<u64, Vec<v1::Booking>>,
    /// What plants have reported, by plant and outbox.
    reported: BTreeMap<(String, String), Vec<Event>>,
    /// How often a plant fell silent.
    silences: usize,
}

impl Replayed {
    /// Applies an entry, and sees whether the rules hold after it.
    fn apply(&mut self, revision: u64, entry: &Entry, wrong: &mut Vec<String>) -> Result<Reply, Refusal> {
        let before = self.state.clone();
        let outcome = self.state.apply(revision, entry);
        let broken = invariants::violations(&self.state);
        wrong.extend(broken.into_iter().map(|rule| format!("revision {revision}: {rule}")));
        self.note_changes(revision, &outcome, wrong);
        self.note_forgotten(revision, &before, wrong);
        let Ok(reply) = &outcome.result else { return outcome.result };
        self.silences += usize::from(matches!(entry.command, Command::NoteSilence { since: Some(_), .. }));
        if let Some(request) = entry.request.as_ref().filter(|_| outcome.revision == revision) {
            let key = (entry.caller.id.to_string(), request.method.clone(), request.id.clone());
            if let Some(before) = self.first.insert(key, revision) {
                wrong.push(format!("request {} was done at {before} and at {revision}", request.id));
            }
            let reference = match &entry.command {
                Command::Book { order, .. } => order.reference.clone(),
                _ => String::new(),
            };
            self.done.insert(request.id.clone(), reference);
        }
        if let (Command::Report { plant, outbox, events }, Reply::Applied(applied, _)) =
            (&entry.command, reply)
        {
            let known = self.reported.entry((plant.to_string(), outbox.clone())).or_default();
            let last = known.last().map_or(0, |event| event.seq);
            known.extend(events.iter().filter(|event| (last + 1..=*applied).contains(&event.seq)).cloned());
        }
        outcome.result
    }

    /// Takes down which bookings an entry has changed; no promise gets worse.
    fn note_changes(&mut self, revision: u64, outcome: &Outcome, wrong: &mut Vec<String>) {
        for (id, booking) in &outcome.changes.bookings {
            let now = (booking.promise.by, booking.promise.price.total_fen());
            let before = self.promised.insert(*id, now);
            if let Some(before) = before.filter(|before| now.0 > before.0 || now.1 > before.1) {
                wrong.push(format!("revision {revision}: {id} was promised {before:?}, and now {now:?}"));
            }
        }
        let changed = outcome.changes.bookings.values();
        let bookings: Vec<_> = changed.map(|b| wire::booking::booking(&self.state, b)).collect();
        if !bookings.is_empty() {
            self.changes.insert(revision, bookings);
        }
    }

    /// Takes down which bookings are known no longer: none but what is over, for as long as the policy said.
    fn note_forgotten(&mut self, revision: u64, before: &State, wrong: &mut Vec<String>) {
        let (now, keep_s, known) = (self.state.now(), before.policy().history_keep_s, self.state.bookings());
        for id in before.bookings().iter().map(|(id, _)| id).filter(|id| known.get(*id).is_none()) {
            let is_due = match self.over.remove(id) {
                None => false,
                Some(None) => keep_s > 0,
                Some(Some(since)) => keep_s > 0 && since + keep_s <= now,
            };
            if !is_due {
                wrong.push(format!("revision {revision}: {id} is forgotten at {now}, kept for {keep_s} s"));
            }
            self.forgotten.insert(*id, revision);
        }
        for booking in known.values().filter(|booking| !booking.is_open()) {
            self.over.entry(booking.id).or_insert((booking.over_at != 0).then_some(now));
        }
    }
}

/// Replays the log; at each revision the rules hold, and what was answered at it, and shown to watchers, is true.
fn replay(world: &World, ending: &Ending, wrong: &mut Vec<String>) -> Replayed {
    let mut answered: BTreeMap<u64, Vec<&Operation>> = BTreeMap::new();
    for operation in &world.history.operations {
        if let Answer::Done { revision, .. } = operation.answer {
            answered.entry(revision).or_default().push(operation);
        }
    }
    let mut replayed = Replayed::default();
    for (&revision, entry) in &ending.log {
        let reply =
            entry.as_ref().map(|entry| (entry.request.clone(), replayed.apply(revision, entry, wrong)));
        for operation in answered.remove(&revision).unwrap_or_default() {
            if let Err(why) = is_true(operation, revision, &replayed.state, reply.as_ref()) {
                wrong.push(format!("{}: {why}", told(operation)));
            }
        }
        for watched in world.history.watched.iter().filter(|watched| watched.after == revision) {
            let bookings = replayed.state.bookings().values();
            let present: BTreeSet<_> = bookings.map(|b| (b.id.to_string(), b.revision)).collect();
            if watched.listed != present {
                wrong.push(format!("{}: at {revision} not all is shown as it was", watched.who));
            }
        }
        if wrong.len() > WRONG_MAX {
            break;
        }
    }
    for operation in answered.into_values().flatten().take(3) {
        wrong.push(format!("{}: the log ends before", told(operation)));
    }
    replayed
}

type Replied = (Option<Request>, Result<Reply, Refusal>);

/// Whether an answer says what was so at its revision.
fn is_true(
    operation: &Operation,
    revision: u64,
    state: &State,
    reply: Option<&Replied>,
) -> Result<(), String> {
    let Answer::Done { booking, .. } = &operation.answer else { return Ok(()) };
    if let (Some(asked), Some(answered)) = (operation.call.booking(), booking)
        && asked != answered.id
    {
        return Err(format!("booking {} was answered", answered.id));
    }
    if let Some(request_id) = operation.call.request_id() {
        let Some((request, result)) = reply else {
            return Err("there is no command at that revision".into());
        };
        if request.as_ref().map(|request| request.id.as_str()) != Some(request_id) {
            return Err("another request is at that revision".into());
        }
        return match (result, booking) {
            (Err(refusal), _) => Err(format!("the log refuses it: {refusal}")),
            (Ok(Reply::Booking(applied)), Some(booking)) if applied.id.to_string() != booking.id => {
                Err(format!("booking {} was answered, and {} booked", booking.id, applied.id))
            }
            (Ok(Reply::Booking(applied)), _) if !is_asked(operation, &applied.order.reference) => {
                Err(format!("order {} was booked", applied.order.reference))
            }
            (Ok(Reply::Booking(applied)), Some(booking))
                if booking.promise.as_ref().map(|p| p.by_s) != Some(applied.promise.by) =>
            {
                Err(format!("{} was promised, and the log has {}", shown(booking), applied.promise.by))
            }
            _ => Ok(()),
        };
    }
    let Some(answered) = booking else { return Ok(()) };
    let id = BookingId::parse(&answered.id).map_err(|refusal| refusal.to_string())?;
    let Some(known) = state.bookings().get(&id) else {
        return Err(format!("there is no {id} at {revision}"));
    };
    let known = wire::booking::booking(state, known);
    match **answered == known {
        true => Ok(()),
        false => Err(format!("it was {} at that revision, not {}", shown(&known), shown(answered))),
    }
}

fn is_asked(operation: &Operation, booked: &str) -> bool {
    match &operation.call {
        Call::Book { reference, .. } => reference == booked,
        _ => true,
    }
}

fn shown(booking: &v1::Booking) -> String {
    format!("{booking:?}")
}

fn told(operation: &Operation) -> String {
    let Operation { who, call, began, ended, answer } = operation;
    let answer = match answer {
        Answer::Done { revision, booking } => {
            format!("done at {revision}, {}", booking.as_ref().map_or("", |booking| &booking.id))
        }
        Answer::Refused { reason } => format!("refused, {reason}"),
        Answer::NotDone => "not done".to_owned(),
        Answer::Unknown => "perhaps done".to_owned(),
    };
    format!("{who} {call:?}, from {:.3} to {:.3} s, {answer}", began.as_secs_f64(), ended.as_secs_f64())
}

/// What was answered before something was asked, the answer to that knows of: reads that are to be fresh, and writes.
fn in_real_time(operations: &[Operation], wrong: &mut Vec<String>) {
    let mut by_end: Vec<&Operation> = operations.iter().filter(|o| o.revision().is_some()).collect();
    by_end.sort_by_key(|operation| operation.ended);
    let mut by_begin = by_end.clone();
    by_begin.sort_by_key(|operation| operation.began);
    let mut ended = by_end.into_iter().peekable();
    let mut newest: Option<&Operation> = None;
    for operation in by_begin {
        while let Some(before) = ended.next_if(|before| before.ended < operation.began) {
            if before.revision() > newest.and_then(Operation::revision) {
                newest = Some(before);
            }
        }
        let (Some(before), Some(own)) = (newest, operation.revision()) else { continue };
        let known = before.revision().unwrap_or(0);
        let stale = match operation.call {
            // A deposed leader that does not know it yet may still quote.
            Call::Quote => false,
            Call::GetStale { min_revision, .. } | Call::QuoteStale { min_revision } => own < min_revision,
            _ => own < known,
        };
        if stale {
            wrong.push(format!("{}: it does not know of {}", told(operation), told(before)));
        }
        // A write has a revision of its own, after all that was answered before it was asked.
        if operation.call.request_id().is_some()
            && own == known
            && before.call.request_id() != operation.call.request_id()
        {
            wrong.push(format!("{}: the same revision as {}", told(operation), told(before)));
        }
    }
}

/// What was said not to have been done is not in the log, and what was refused did not take effect.
fn undone_is_undone(replayed: &Replayed, operations: &[Operation], wrong: &mut Vec<String>) {
    // Of two calls under one id the one may have done it, and the other not.
    let perhaps: BTreeSet<&str> = operations
        .iter()
        .filter(|operation| matches!(operation.answer, Answer::Done { .. } | Answer::Unknown))
        .filter_map(|operation| operation.call.request_id())
        .collect();
    for operation in operations {
        let undone = matches!(operation.answer, Answer::NotDone | Answer::Refused { .. });
        let id = operation.call.request_id().filter(|id| !perhaps.contains(id));
        let booked = id.and_then(|id| replayed.done.get(id));
        // The id of another order is refused, and that order may well be booked.
        if undone && booked.is_some_and(|booked| is_asked(operation, booked)) {
            wrong.push(format!("{}: and yet it was done", told(operation)));
        }
    }
}

/// Buyers only ask for what they know to be booked, and find it, unless it is known no longer.
fn known_is_found(replayed: &Replayed, operations: &[Operation], wrong: &mut Vec<String>) {
    // A refusal has no revision; but who was answered later cannot have been told of an earlier one, if asked afresh.
    let earliest_after = |operation: &Operation| {
        let later = operations.iter().filter(|other| other.began > operation.ended && other.is_fresh());
        later.filter_map(Operation::revision).min().unwrap_or(u64::MAX)
    };
    let is_forgotten = |operation: &Operation, reason: &str| {
        let id = operation.call.booking().and_then(|id| BookingId::parse(id).ok());
        let since = id.and_then(|id| replayed.forgotten.get(&id));
        reason == "UNKNOWN_ID" && since.is_some_and(|since| *since <= earliest_after(operation))
    };
    for operation in operations {
        let reads = operation.call.request_id().is_none();
        if reads
            && let Answer::Refused { reason } = &operation.answer
            && !reason.starts_with("NO_CAPACITY")
            && !is_forgotten(operation, reason)
        {
            wrong.push(told(operation));
        }
    }
}

/// Watchers were told of every change after they began, once and in order: which bookings, and their revisions.
fn watched(world: &World, replayed: &Replayed, wrong: &mut Vec<String>) {
    for watched in &world.history.watched {
        let ids = |bookings: &[v1::Booking]| {
            bookings.iter().map(|booking| (booking.id.clone(), booking.revision)).collect::<BTreeSet<_>>()
        };
        let due: Vec<_> = replayed
            .changes
            .range(watched.after + 1..watched.until.max(watched.after) + 1)
            .map(|(revision, bookings)| (*revision, ids(bookings)))
            .collect();
        let seen: Vec<_> = watched.told.iter().map(|told| (told.revision, ids(&told.bookings))).collect();
        if due != seen {
            let at = due.iter().zip(&seen).take_while(|(due, seen)| due == seen).count();
            wrong.push(format!(
                "{}: after {} to {} it should have been told {:?}, and was told {:?}",
                watched.who,
                watched.after,
                watched.until,
                due.get(at),
                seen.get(at)
            ));
        }
    }
}

/// What an agent has put on its disk is what was applied: each event once, in order, and none is missing.
fn reported(plant: &Plant, id: &str, replayed: &Replayed, wrong: &mut Vec<String>) {
    let log = Log::open(&plant.data_dir.join("outbox"), String::new);
    let happened = log.and_then(|log| Ok((log.outbox_id().to_owned(), log.read(1, usize::MAX)?)));
    let (outbox, happened) = match happened {
        Ok(happened) => happened,
        Err(error) => return wrong.push(format!("the outbox of {id} cannot be read: {error}")),
    };
    let happened: Result<Vec<Event>, Refusal> = happened.into_iter().map(wire::agent::read_event).collect();
    let happened = match happened {
        Ok(happened) => happened,
        Err(refusal) => return wrong.push(format!("{id} has an event that nobody can read: {refusal}")),
    };
    let reports: Vec<_> = replayed.reported.iter().filter(|((plant, _), _)| plant == id).collect();
    let none = Vec::new();
    let applied = match reports.as_slice() {
        [] => &none,
        [((_, from), events)] if *from == outbox => events,
        others => {
            let ids: Vec<_> = others.iter().map(|((_, from), _)| from).collect();
            return wrong.push(format!("{id} has reported by {ids:?}, and has {outbox}"));
        }
    };
    let at = applied.iter().zip(&happened).take_while(|(applied, happened)| applied == happened).count();
    if at < applied.len() || at < happened.len() {
        let (applied, happened) = (applied.get(at), happened.get(at));
        wrong.push(format!("{id} has {happened:?} on its disk, and applied was {applied:?}"));
    }
}
