//! The whole state as bytes: `millpool.state.v1.State`.

use super::registry::{read_windows, window};
use super::{booking, command, read_format, registry, remote, required, tally, unknown_enum};
use millpool_alliance::answer::{Answer, AnswerKey};
use millpool_alliance::command::{Disturbed, Reply};
use millpool_alliance::line::{Down, Occupation, Phase, Station, Use};
use millpool_alliance::state::{Agent, Image, Optimisation, Outbox};
use millpool_alliance::{
    Booking, BookingId, Format, MachineId, Place, PlantId, PrincipalId, Progress, Reason, Refusal,
    Restoration, SessionId, Step, Window,
};
use millpool_proto::{state::v1 as pb, v1};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The state's bytes.
pub fn encode(image: &Image) -> Vec<u8> {
    pb::State {
        version: image.format.number(),
        restorations: image.restorations.iter().map(restoration).collect(),
        now_s: image.now,
        revision: image.revision,
        bookings_given: image.bookings_given,
        plan_revision: image.plan_revision,
        policy: Some(registry::policy(&image.policy)),
        optimisation: image.optimisation.as_ref().map(optimisation),
        members: image.members.iter().map(|m| registry::member(m)).collect(),
        plants: image.plants.iter().map(|p| registry::plant(p)).collect(),
        stations: image.stations.iter().map(|s| station(s)).collect(),
        offers: image.offers.iter().map(|o| registry::offer(o)).collect(),
        principals: image.principals.iter().map(|p| registry::principal_with_token(p)).collect(),
        bookings: image.bookings.iter().map(|b| stored(b)).collect(),
        agents: image
            .agents
            .iter()
            .map(|a| pb::Agent {
                plant_id: a.plant.to_string(),
                agent_id: a.agent.clone(),
                outbox_id: a.outbox.clone(),
                applied_seq: a.applied_seq,
                earlier: a
                    .earlier
                    .iter()
                    .map(|o| pb::Outbox { id: o.id.clone(), applied_seq: o.applied_seq })
                    .collect(),
            })
            .collect(),
        answers: image.answers.iter().map(|(key, a)| answer(key, a)).collect(),
        sessions_given: image.sessions_given,
        sessions: image.sessions.iter().map(|s| remote::session(s)).collect(),
        accounts: image.accounts.iter().map(|a| tally::account(a)).collect(),
        tallies: image.tallies.iter().map(tally::tally).collect(),
        silences: image
            .silences
            .iter()
            .map(|(plant, since)| pb::Silence { plant_id: plant.to_string(), since_s: *since })
            .collect(),
    }
    .encode_to_vec()
}

/// Reads a state of a format up to `newest`. What is not understood is an error, never a guess.
pub fn decode(bytes: &[u8], newest: Format) -> Result<Image, Refusal> {
    let broken = |e: prost::DecodeError| Refusal::because(Reason::InvalidField, format!("snapshot: {e}"));
    let s = pb::State::decode(bytes).map_err(broken)?;
    fn all<A, B>(from: Vec<A>, read: impl Fn(A) -> Result<B, Refusal>) -> Result<Vec<Arc<B>>, Refusal> {
        from.into_iter().map(|a| read(a).map(Arc::new)).collect()
    }
    let bookings = all(s.bookings, read_stored)?;
    let known: Known = bookings.iter().map(|b| (b.id, b.clone())).collect();
    Ok(Image {
        format: read_format("snapshot", s.version, newest)?,
        restorations: s.restorations.into_iter().map(read_restoration).collect(),
        now: s.now_s,
        revision: s.revision,
        bookings_given: s.bookings_given,
        plan_revision: s.plan_revision,
        policy: registry::read_policy(required("policy", s.policy)?)?,
        optimisation: s.optimisation.map(read_optimisation),
        members: all(s.members, registry::read_member)?,
        plants: all(s.plants, registry::read_plant)?,
        stations: all(s.stations, read_station)?,
        offers: all(s.offers, registry::read_offer)?,
        principals: all(s.principals, |p| {
            registry::read_principal(&required("principal", p.principal)?, &p.token_sha256)
        })?,
        bookings,
        agents: all(s.agents, |a| {
            Ok(Agent {
                plant: PlantId::parse(&a.plant_id)?,
                agent: a.agent_id,
                outbox: a.outbox_id,
                applied_seq: a.applied_seq,
                earlier: a
                    .earlier
                    .into_iter()
                    .map(|o| Outbox { id: o.id, applied_seq: o.applied_seq })
                    .collect(),
            })
        })?,
        answers: s.answers.into_iter().map(|a| read_answer(a, &known)).collect::<Result<_, _>>()?,
        sessions_given: s.sessions_given,
        sessions: all(s.sessions, remote::read_session)?,
        accounts: all(s.accounts, tally::read_account)?,
        tallies: s.tallies.into_iter().map(tally::read_tally).collect::<Result<_, _>>()?,
        silences: s
            .silences
            .into_iter()
            .map(|silence| Ok((PlantId::parse(&silence.plant_id)?, silence.since_s)))
            .collect::<Result<_, Refusal>>()?,
    })
}

/// What a state was restored from, as it is told.
pub fn restoration(r: &Restoration) -> v1::Restoration {
    v1::Restoration {
        cluster_id: r.cluster.clone(),
        revision: r.revision,
        state_at_s: r.state_at,
        at_s: r.at,
        reason: r.reason.clone(),
    }
}

fn read_restoration(r: v1::Restoration) -> Restoration {
    Restoration {
        cluster: r.cluster_id,
        revision: r.revision,
        state_at: r.state_at_s,
        at: r.at_s,
        reason: r.reason,
    }
}

fn optimisation(o: &Optimisation) -> pb::Optimisation {
    pb::Optimisation {
        committed_revision: o.committed_revision,
        figures: Some(command::figures(&o.figures)),
        moved: o.moved,
        at_s: o.at,
    }
}

fn read_optimisation(o: pb::Optimisation) -> Optimisation {
    Optimisation {
        committed_revision: o.committed_revision,
        figures: command::read_figures(o.figures.unwrap_or_default()),
        moved: o.moved,
        at: o.at_s,
    }
}

fn station(s: &Station) -> pb::Station {
    pb::Station {
        machine: Some(registry::machine(&s.machine)),
        open: s.open.iter().map(window).collect(),
        notice_s: s.notice_s,
        family: s.family.as_deref().map(str::to_owned),
        line: s.line.iter().map(occupation).collect(),
        state: registry::machine_state(s.state).into(),
        state_since_s: s.state_since,
        down: s.down.as_ref().map(|d| pb::Down {
            window: Some(window(&Window::new(d.since, d.until))),
            reason: d.reason.clone(),
        }),
        revision: s.revision,
    }
}

fn read_station(s: pb::Station) -> Result<Station, Refusal> {
    let down = s.down.map(|d| {
        let w = d.window.unwrap_or_default();
        Down { since: w.start_s, until: w.end_s, reason: d.reason }
    });
    let mut line: Vec<Occupation> = s.line.into_iter().map(read_occupation).collect::<Result<_, _>>()?;
    // A family's name is in memory once.
    let mut families = BTreeSet::new();
    for occupation in &mut line {
        match families.get(&occupation.family) {
            Some(same) => occupation.family = Arc::clone(same),
            None => drop(families.insert(occupation.family.clone())),
        }
    }
    Ok(Station {
        machine: Arc::new(registry::read_machine(required("station.machine", s.machine)?)?),
        open: read_windows("station.open", &s.open)?,
        notice_s: s.notice_s,
        family: s.family.as_deref().map(Arc::from),
        line,
        state: registry::read_machine_state(s.state),
        state_since: s.state_since_s,
        down,
        revision: s.revision,
    })
}

fn occupation(o: &Occupation) -> pb::Occupation {
    let (booking_id, operation) = match &o.purpose {
        Use::Work { booking, operation } => (booking.to_string(), *operation),
        Use::Tooling => (String::new(), 0),
    };
    let phase = match o.phase {
        Phase::Planned => pb::Phase::Planned,
        Phase::Running => pb::Phase::Running,
        Phase::Done => pb::Phase::Done,
    };
    pb::Occupation {
        window: Some(window(&o.window())),
        family: o.family.to_string(),
        booking_id,
        operation,
        changeover_s: o.changeover_s,
        work_s: o.work_s,
        splittable: o.splittable,
        phase: phase.into(),
    }
}

fn read_occupation(o: pb::Occupation) -> Result<Occupation, Refusal> {
    let w = required("occupation.window", o.window)?;
    let purpose = match o.booking_id.as_str() {
        "" => Use::Tooling,
        id => Use::Work { booking: BookingId::parse(id)?, operation: o.operation },
    };
    let phase = match pb::Phase::try_from(o.phase) {
        Ok(pb::Phase::Planned) => Phase::Planned,
        Ok(pb::Phase::Running) => Phase::Running,
        Ok(pb::Phase::Done) => Phase::Done,
        Err(_) => return Err(unknown_enum("occupation.phase", o.phase, "planned, running or done")),
    };
    Ok(Occupation {
        start: w.start_s,
        end: w.end_s,
        family: o.family.as_str().into(),
        purpose,
        changeover_s: o.changeover_s,
        work_s: o.work_s,
        splittable: o.splittable,
        phase,
    })
}

fn stored(b: &Booking) -> pb::Booking {
    pb::Booking {
        id: b.id.to_string(),
        buyer: b.buyer.to_string(),
        order: Some(booking::order(&b.order)),
        status: booking::status(b.status).into(),
        steps: b.steps.iter().map(step).collect(),
        promise: Some(booking::promise(&b.promise)),
        hold_expires_at_s: b.hold_expires_at,
        disturbances: b.disturbances.iter().map(booking::disturbance).collect(),
        created_at_s: b.created_at,
        revision: b.revision,
        over_at_s: b.over_at,
    }
}

fn read_stored(b: pb::Booking) -> Result<Booking, Refusal> {
    Ok(Booking {
        id: BookingId::parse(&b.id)?,
        buyer: PrincipalId::parse(&b.buyer)?,
        order: Arc::new(booking::read_order(required("booking.order", b.order)?)?),
        status: booking::read_status(b.status)?,
        steps: b.steps.into_iter().map(read_step).collect::<Result<_, _>>()?,
        promise: booking::read_promise(required("booking.promise", b.promise)?)?,
        hold_expires_at: b.hold_expires_at_s,
        disturbances: b.disturbances.into_iter().map(booking::read_disturbance).collect::<Result<_, _>>()?,
        created_at: b.created_at_s,
        revision: b.revision,
        over_at: b.over_at_s,
    })
}

fn step(s: &Step) -> pb::Step {
    let mut out = pb::Step {
        place: s.place.as_ref().map(|p| pb::Place {
            machine_id: p.machine.to_string(),
            window: Some(window(&Window::new(p.start, p.end))),
            changeover_s: p.changeover_s,
        }),
        state: booking::operation_state(&s.progress).into(),
        pieces_scrapped: s.pieces_scrapped,
        left_plant_ids: s.left.iter().map(PlantId::to_string).collect(),
        ..pb::Step::default()
    };
    match &s.progress {
        Progress::Planned => {}
        Progress::Running { started_at, pieces_good } => {
            out.started_at_s = *started_at;
            out.pieces_good = *pieces_good;
        }
        Progress::Finished {
            started_at,
            finished_at,
            pieces_good,
            measured_s,
            energy_wh,
            energy_measured,
        } => {
            out.started_at_s = *started_at;
            out.finished_at_s = *finished_at;
            out.pieces_good = *pieces_good;
            out.measured_s = *measured_s;
            out.energy_wh = *energy_wh;
            out.energy_measured = *energy_measured;
        }
    }
    out
}

fn read_step(s: pb::Step) -> Result<Step, Refusal> {
    let progress = match v1::OperationState::try_from(s.state) {
        Ok(v1::OperationState::Planned) => Progress::Planned,
        Ok(v1::OperationState::Running) => {
            Progress::Running { started_at: s.started_at_s, pieces_good: s.pieces_good }
        }
        Ok(v1::OperationState::Finished) => Progress::Finished {
            started_at: s.started_at_s,
            finished_at: s.finished_at_s,
            pieces_good: s.pieces_good,
            measured_s: s.measured_s,
            energy_wh: s.energy_wh,
            energy_measured: s.energy_measured,
        },
        Err(_) => return Err(unknown_enum("step.state", s.state, "planned, running or finished")),
    };
    let place = match s.place {
        None => None,
        Some(p) => {
            let w = required("place.window", p.window)?;
            Some(Place {
                machine: MachineId::parse(&p.machine_id)?,
                start: w.start_s,
                end: w.end_s,
                changeover_s: p.changeover_s,
            })
        }
    };
    let left = s.left_plant_ids.iter().map(|id| PlantId::parse(id)).collect::<Result<_, _>>()?;
    Ok(Step { place, progress, pieces_scrapped: s.pieces_scrapped, left })
}

fn answer(key: &AnswerKey, a: &Answer) -> pb::Answer {
    use pb::answer::Reply as Wire;
    let reply = match &a.reply {
        Reply::Done => Wire::Done(pb::Tick {}),
        Reply::Member(m) => Wire::Member(registry::member(m)),
        Reply::Plant(p) => Wire::Plant(registry::plant(p)),
        Reply::Machine(m) => Wire::Machine(registry::machine(m)),
        Reply::Offer(offer, lost) => Wire::Offer(pb::OfferReply {
            offer: Some(registry::offer(offer)),
            disturbed: lost.iter().map(registry::disturbed).collect(),
        }),
        Reply::Policy(p) => Wire::Policy(registry::policy(p)),
        Reply::Principal(p) => Wire::Principal(registry::principal_with_token(p)),
        Reply::Booking(b) => Wire::Booking(stored(b)),
        Reply::Plan(moved) => Wire::Plan(*moved),
        Reply::Remote(session, nonce) => {
            Wire::Remote(pb::RemoteReply { session: session.number(), nonce: *nonce })
        }
        Reply::Applied(seq, refused) => Wire::Applied(pb::AppliedReply {
            seq: *seq,
            refused: refused
                .iter()
                .map(|(seq, reason)| v1::RefusedEvent { seq: *seq, reason: reason.clone() })
                .collect(),
        }),
    };
    pb::Answer {
        caller: Some(registry::caller(&key.caller)),
        request: Some(pb::Request {
            id: key.id.clone(),
            method: key.method.clone(),
            fingerprint: a.fingerprint,
        }),
        revision: a.revision,
        expires_at_s: a.expires_at,
        reply: Some(reply),
    }
}

/// Bookings as they are.
type Known = BTreeMap<BookingId, Arc<Booking>>;

/// A booking as it was answered. That is mostly as it still is, and what is the same is kept once: of many request ids most
/// of the memory is this.
fn shared(then: Booking, known: &Known) -> Arc<Booking> {
    match known.get(&then.id) {
        Some(now) if **now == then => now.clone(),
        Some(now) if now.order == then.order => Arc::new(Booking { order: now.order.clone(), ..then }),
        _ => Arc::new(then),
    }
}

fn read_answer(a: pb::Answer, known: &Known) -> Result<(Arc<AnswerKey>, Arc<Answer>), Refusal> {
    use pb::answer::Reply as Wire;
    let request = required("answer.request", a.request)?;
    let reply = match required("answer.reply", a.reply)? {
        Wire::Done(_) => Reply::Done,
        Wire::Member(m) => Reply::Member(Arc::new(registry::read_member(m)?)),
        Wire::Plant(p) => Reply::Plant(Arc::new(registry::read_plant(p)?)),
        Wire::Machine(m) => Reply::Machine(Arc::new(registry::read_machine(m)?)),
        Wire::Offer(o) => Reply::Offer(
            Arc::new(registry::read_offer(required("answer.offer", o.offer)?)?),
            o.disturbed.into_iter().map(read_disturbed).collect::<Result<_, _>>()?,
        ),
        Wire::Policy(p) => Reply::Policy(Arc::new(registry::read_policy(p)?)),
        Wire::Principal(p) => Reply::Principal(Arc::new(registry::read_principal_with_token(p)?)),
        Wire::Booking(b) => Reply::Booking(shared(read_stored(b)?, known)),
        Wire::Plan(moved) => Reply::Plan(moved),
        Wire::Remote(r) => Reply::Remote(SessionId::numbered(r.session), r.nonce),
        Wire::Applied(r) => Reply::Applied(r.seq, r.refused.into_iter().map(|e| (e.seq, e.reason)).collect()),
    };
    let key = AnswerKey {
        caller: registry::read_caller(&required("answer.caller", a.caller)?)?,
        method: request.method,
        id: request.id,
    };
    let answer =
        Answer { fingerprint: request.fingerprint, revision: a.revision, expires_at: a.expires_at_s, reply };
    Ok((Arc::new(key), Arc::new(answer)))
}

fn read_disturbed(d: v1::DisturbedOperation) -> Result<Disturbed, Refusal> {
    let w = required("disturbed.window", d.window)?;
    Ok(Disturbed {
        booking: BookingId::parse(&d.booking_id)?,
        operation: d.operation,
        machine: MachineId::parse(&d.machine_id)?,
        window: Window::new(w.start_s, w.end_s),
    })
}
