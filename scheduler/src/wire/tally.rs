//! What machines did with their time: as it is stored, and as indicators of ISO 22400-2.

use super::registry::{machine_state, read_machine_state, read_window, window};
use millpool_alliance::account::{Account, Counted, TallyKey};
use millpool_alliance::line::MachineState;
use millpool_alliance::tally::{COUNT_MAX, DAY_S, Grain, Spent, Tally};
use millpool_alliance::window::LATEST;
use millpool_alliance::{BookingId, MachineId, Reason, Refusal, Window};
use millpool_proto::{state::v1 as pb, v1};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Kinds of time that there are: states, with work in hand or not, lent or not.
const KINDS_MAX: usize = 8 * 2 * 2;

/// Whether a stretch lies in times that can be.
fn times_are(start: i64, end: i64) -> bool {
    0 <= start && start <= end && end <= LATEST
}

/// An account as it is stored.
pub fn account(a: &Account) -> pb::Account {
    let (booking_id, operation) = match &a.in_hand {
        Some((booking, operation)) => (booking.to_string(), *operation),
        None => (String::new(), 0),
    };
    pb::Account {
        machine_id: a.machine.to_string(),
        since_s: a.since,
        until_s: a.until,
        booking_id,
        operation,
        lent: a.lent.iter().map(window).collect(),
    }
}

/// Reads an account.
pub fn read_account(a: pb::Account) -> Result<Account, Refusal> {
    let in_hand = match a.booking_id.as_str() {
        "" => None,
        id => Some((BookingId::parse(id)?, a.operation)),
    };
    let lent: Vec<Window> = a.lent.iter().map(read_window).collect();
    let sorted = lent.windows(2).all(|pair| pair[0].end <= pair[1].start);
    let sound = sorted && lent.iter().all(|w| w.start < w.end && times_are(w.start, w.end));
    if !sound || !times_are(a.since_s, a.until_s) {
        return Err(Refusal::because(
            Reason::InvalidField,
            format!("an account of {} makes no sense", a.machine_id),
        ));
    }
    Ok(Account {
        machine: MachineId::parse(&a.machine_id)?,
        since: a.since_s,
        until: a.until_s,
        in_hand,
        lent: lent.into(),
    })
}

/// A tally as it is stored.
pub fn tally(((machine, grain, start), counted): &(TallyKey, Arc<Counted>)) -> pb::Tally {
    let Counted { end, tally } = &**counted;
    let spent = tally.seconds().map(|(spent, seconds)| pb::Spent {
        state: machine_state(spent.state).into(),
        in_hand: spent.in_hand,
        lent: spent.lent,
        seconds,
    });
    pb::Tally {
        machine_id: machine.to_string(),
        day: *grain == Grain::Day,
        start_s: *start,
        end_s: *end,
        spent: spent.collect(),
        pieces_good: tally.pieces_good,
        pieces_scrapped: tally.pieces_scrapped,
        run_planned_s: tally.run_planned_s,
        run_planned_good_s: tally.run_planned_good_s,
        energy_measured_wh: tally.energy_measured_wh,
        energy_modelled_wh: tally.energy_modelled_wh,
        carbon_g: tally.carbon_g,
    }
}

/// Reads a tally.
pub fn read_tally(t: pb::Tally) -> Result<(TallyKey, Arc<Counted>), Refusal> {
    let counts = [
        t.pieces_good,
        t.pieces_scrapped,
        t.run_planned_s,
        t.run_planned_good_s,
        t.energy_measured_wh,
        t.energy_modelled_wh,
        t.carbon_g,
    ];
    let length = t.end_s.saturating_sub(t.start_s);
    let spent_sound = t.spent.len() <= KINDS_MAX && t.spent.iter().all(|s| (1..=length).contains(&s.seconds));
    let counts_sound = counts.iter().all(|count| (0..=COUNT_MAX).contains(count));
    // The day that now is has begun before now, and ends after it.
    let times_sound = -DAY_S <= t.start_s && t.start_s < t.end_s && t.end_s <= LATEST + DAY_S;
    if !times_sound || !spent_sound || !counts_sound {
        return Err(Refusal::because(
            Reason::InvalidField,
            format!("a tally of {} makes no sense", t.machine_id),
        ));
    }
    let spent = t.spent.iter().map(|s| {
        let state = read_machine_state(s.state);
        (Spent { state, in_hand: s.in_hand, lent: s.lent }, s.seconds)
    });
    let mut tally = Tally::of_seconds(spent);
    tally.pieces_good = t.pieces_good;
    tally.pieces_scrapped = t.pieces_scrapped;
    tally.run_planned_s = t.run_planned_s;
    tally.run_planned_good_s = t.run_planned_good_s;
    tally.energy_measured_wh = t.energy_measured_wh;
    tally.energy_modelled_wh = t.energy_modelled_wh;
    tally.carbon_g = t.carbon_g;
    let grain = if t.day { Grain::Day } else { Grain::Shift };
    Ok(((MachineId::parse(&t.machine_id)?, grain, t.start_s), Arc::new(Counted { end: t.end_s, tally })))
}

/// What `machines` did together from `start` to `end`, and what it comes to.
pub fn indicators(group_id: String, start: i64, end: i64, machines: u32, tally: &Tally) -> v1::Indicators {
    let (planned, busy, production, setup) =
        (tally.planned_busy_s(), tally.busy_s(), tally.production_s(), tally.setup_s());
    v1::Indicators {
        group_id,
        start_s: start,
        end_s: end,
        machines,
        planned_busy_s: planned,
        busy_s: busy,
        production_s: production,
        setup_s: setup,
        unknown_s: tally.unknown_s(),
        states: states(tally),
        pieces_good: tally.pieces_good,
        pieces_scrapped: tally.pieces_scrapped,
        run_planned_s: tally.run_planned_s,
        energy_measured_wh: tally.energy_measured_wh,
        energy_modelled_wh: tally.energy_modelled_wh,
        carbon_g: tally.carbon_g,
        busy_besides_s: tally.busy_besides_s(),
        allocation: share(busy, planned),
        utilisation: share(production, busy),
        availability: share(production, planned),
        effectiveness: share(tally.run_planned_s, production),
        quality: share(tally.pieces_good, tally.pieces_good + tally.pieces_scrapped),
        oee: share(tally.run_planned_good_s, planned),
        setup_ratio: share(setup, production + setup),
    }
}

fn share(part: i64, whole: i64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn states(tally: &Tally) -> Vec<v1::StateTime> {
    let mut states: BTreeMap<MachineState, v1::StateTime> = BTreeMap::new();
    for (spent, seconds) in tally.seconds() {
        let time = states.entry(spent.state).or_default();
        time.state = machine_state(spent.state).into();
        time.seconds += seconds;
        time.lent_s += if spent.lent { seconds } else { 0 };
        time.in_hand_s += if spent.in_hand { seconds } else { 0 };
    }
    states.into_values().collect()
}
