//! A small pool to show: two members, three plants, a dozen machines, a week of work. Always the same.

use super::{Choice, State};
use millpool_proto::v1::*;

/// 2026-11-25 10:30 in Chongqing, a Wednesday.
pub const NOW_S: i64 = 1_795_573_800;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Midnight, in Chongqing, of the day that NOW_S is in.
const TODAY_S: i64 = NOW_S - 10 * HOUR - HOUR / 2;

pub fn order() -> Order {
    Order {
        reference: "bracket-7".to_owned(),
        quantity: 20,
        material: "aluminium".to_owned(),
        size: Some(Size { x_mm: 200, y_mm: 120, z_mm: 60 }),
        mass_g: 3000,
        route: vec![
            Operation {
                class: MachineClass::FiveAxis.into(),
                tolerance_um: 20,
                setup_family: "F1".to_owned(),
                setup_s: 1200,
                run_s_per_piece: 360,
                ..Operation::default()
            },
            Operation {
                class: MachineClass::Cmm.into(),
                setup_family: "F2".to_owned(),
                run_s_per_piece: 90,
                ..Operation::default()
            },
        ],
        due_s: NOW_S + 5 * DAY,
        ..Order::default()
    }
}

fn assignment(operation: u32, machine: &str, plant: &str, start_s: i64, minutes: i64) -> Assignment {
    Assignment {
        operation,
        machine_id: machine.to_owned(),
        plant_id: plant.to_owned(),
        start_s,
        end_s: start_s + minutes * 60,
        changeover_s: 1800,
        ..Assignment::default()
    }
}

pub fn price(total_fen: i64) -> Price {
    let (setup_fen, transport_fen) = (18_000, 6_000);
    Price { processing_fen: total_fen - setup_fen - transport_fen, setup_fen, transport_fen, total_fen }
}

pub fn carbon(total_g: i64) -> Carbon {
    Carbon {
        machine_g: total_g - 800,
        transport_g: 800,
        total_g,
        energy_wh: total_g * 2,
        grid_factors: vec!["CN-CQ/2022".to_owned()],
    }
}

pub fn options() -> Vec<Choice> {
    let option = |best: &[Objective], start_h: i64, machine: &str, fen: i64, g: i64| {
        let start_s = NOW_S + start_h * HOUR;
        let assignments = vec![
            assignment(0, machine, "yubei-2", start_s, 170),
            assignment(1, "zeiss-1", "yubei-2", start_s + 4 * HOUR, 60),
        ];
        Choice {
            best_for: best.iter().map(|best| (*best).into()).collect(),
            completes_at_s: start_s + 5 * HOUR,
            promised_by_s: start_s + 9 * HOUR,
            assignments,
            price: Some(price(fen)),
            carbon: Some(carbon(g)),
            valid_until_s: NOW_S + 900,
        }
    };
    vec![
        option(&[Objective::Fastest], 2, "dmu50-1", 148_250, 12_345),
        option(&[Objective::Greenest], 30, "dmu50-2", 121_900, 9_870),
        option(&[Objective::Cheapest], 122, "c400-1", 99_400, 11_020),
    ]
}

pub fn obstacles() -> Vec<Obstacle> {
    vec![Obstacle {
        operation: 0,
        requirement: "tolerance_um".to_owned(),
        asked: "3".to_owned(),
        available: "5".to_owned(),
        machines_excluded: 4,
        machines_of_class: 4,
    }]
}

pub fn booking(id: &str) -> Booking {
    let option = &options()[1];
    Booking {
        id: id.to_owned(),
        buyer: "acme".to_owned(),
        order: Some(order()),
        status: BookingStatus::Confirmed.into(),
        assignments: option.assignments.clone(),
        promise: Some(Promise {
            by_s: option.promised_by_s,
            price: option.price,
            carbon: option.carbon.clone(),
        }),
        completes_at_s: option.completes_at_s,
        created_at_s: NOW_S,
        ..Booking::default()
    }
}

/// A booking that a breakdown has put at risk.
pub fn booking_at_risk(id: &str) -> Booking {
    let mut booking = booking(id);
    booking.at_risk = true;
    booking.completes_at_s += 8 * HOUR;
    booking.assignments[0].set_state(OperationState::Running);
    booking.disturbances.push(Disturbance {
        kind: DisturbanceKind::Breakdown.into(),
        at_s: NOW_S - 600,
        machine_id: "dmu50-2".to_owned(),
        operation: 1,
        reason: "spindle bearing too hot".to_owned(),
    });
    booking
}

const MACHINES: [(&str, &str, MachineClass); 12] = [
    ("c400-1", "beibei-1", MachineClass::FiveAxis),
    ("dmu50-1", "yubei-2", MachineClass::FiveAxis),
    ("dmu50-2", "yubei-2", MachineClass::FiveAxis),
    ("ecomill-1", "beibei-1", MachineClass::Mill),
    ("ecomill-2", "beibei-1", MachineClass::Mill),
    ("kellenberger-1", "nanan-3", MachineClass::Grinder),
    ("mori-nlx-1", "nanan-3", MachineClass::Lathe),
    ("mori-nlx-2", "nanan-3", MachineClass::Lathe),
    ("mx330-1", "yubei-2", MachineClass::FiveAxis),
    ("studer-s33-1", "nanan-3", MachineClass::Grinder),
    ("vf2-1", "yubei-2", MachineClass::Mill),
    ("zeiss-1", "yubei-2", MachineClass::Cmm),
];

pub fn machines() -> Vec<Machine> {
    MACHINES
        .iter()
        .enumerate()
        .map(|(index, (id, plant, class))| Machine {
            id: (*id).to_owned(),
            plant_id: (*plant).to_owned(),
            name: id.to_uppercase(),
            class: (*class).into(),
            axes: if *class == MachineClass::FiveAxis { 5 } else { 3 },
            envelope: Some(Size { x_mm: 500, y_mm: 450, z_mm: 400 }),
            mass_max_g: 300_000,
            tolerance_um: 5 + index as u32,
            materials: vec!["aluminium".to_owned(), "steel".to_owned()],
            setup_families: vec!["F1".to_owned(), "F2".to_owned()],
            rate_fen_per_hour: 24_000 + 800 * index as i64,
            state: match index % 3 {
                0 => MachineState::Producing,
                1 => MachineState::Idle,
                _ => MachineState::Unknown,
            }
            .into(),
            down: index == 5,
            down_until_s: if index == 5 { NOW_S + DAY } else { 0 },
            revision: 40 + index as u64,
            ..Machine::default()
        })
        .collect()
}

fn offers() -> Vec<Offer> {
    let night = |day: i64| Window {
        start_s: TODAY_S + day * DAY + 18 * HOUR,
        end_s: TODAY_S + day * DAY + 30 * HOUR,
    };
    vec![Offer {
        id: "nights-1".to_owned(),
        machine_id: "dmu50-1".to_owned(),
        shifts: vec![Shift { weekdays: vec![1, 2, 3, 4, 5], start_minute: 1080, end_minute: 360 }],
        from_s: TODAY_S,
        until_s: TODAY_S + 7 * DAY,
        notice_s: 7200,
        open: (0..5).map(night).collect(),
        ..Offer::default()
    }]
}

/// Numbers that look random and always are the same.
fn numbers() -> impl FnMut(u64) -> u64 {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % below
    }
}

/// Windows of a machine: nights and the weekend for some, two shifts for others.
fn open(index: usize) -> Vec<Window> {
    (0..6)
        .flat_map(|day| {
            let midnight = TODAY_S + day * DAY;
            match index % 3 {
                0 => vec![Window { start_s: midnight + 8 * HOUR, end_s: midnight + 22 * HOUR }],
                1 if day == 3 || day == 4 => vec![Window { start_s: midnight, end_s: midnight + DAY }],
                1 => vec![
                    Window { start_s: midnight, end_s: midnight + 7 * HOUR },
                    Window { start_s: midnight + 18 * HOUR, end_s: midnight + DAY },
                ],
                _ => vec![
                    Window { start_s: midnight + 6 * HOUR, end_s: midnight + 12 * HOUR },
                    Window { start_s: midnight + 13 * HOUR, end_s: midnight + 20 * HOUR },
                ],
            }
        })
        .collect()
}

/// A week of work on every machine.
pub fn plan() -> GetPlanResponse {
    let mut number = numbers();
    let (mut rows, mut entries, mut booked_s, mut open_s) = (Vec::new(), Vec::new(), 0, 0);
    let mut booking = 0;
    for (index, (id, plant, class)) in MACHINES.iter().enumerate() {
        let open = open(index);
        for window in &open {
            open_s += window.end_s - window.start_s;
            let mut at_s = window.start_s + number(4) as i64 * 900;
            loop {
                let end_s = at_s + (3 + number(18) as i64) * 900;
                if end_s > window.end_s {
                    break;
                }
                if end_s > NOW_S {
                    booking += 1;
                    booked_s += end_s - at_s.max(NOW_S);
                    entries.push(entry(id, plant, (at_s, end_s), booking, &mut number));
                }
                at_s = end_s + number(10) as i64 * 600;
            }
        }
        rows.push(PlanRow {
            machine_id: (*id).to_owned(),
            plant_id: (*plant).to_owned(),
            class: (*class).into(),
            open,
        });
    }
    let summary = PlanSummary {
        revision: 1240,
        bookings_open: booking as u32 / 2,
        assignments: entries.len() as u32,
        cost_fen: 48_213_550,
        last_optimisation: Some(Optimisation {
            base_revision: 1228,
            committed_revision: 1240,
            cost_before_fen: 49_870_120,
            cost_fen: 48_213_550,
            bound_fen: 46_950_000,
            moved: 37,
            took_ms: 4210,
            at_s: NOW_S - 240,
        }),
        bookings_at_risk: 2,
        open_s,
        booked_s,
    };
    GetPlanResponse { header: None, summary: Some(summary), rows, entries }
}

/// The alliance's week as a whole, and two machines' of it.
pub fn indicators() -> Vec<Indicators> {
    let of = |group_id: &str, machines: u32, share: i64| {
        let hours = |hours: i64| hours * HOUR * share / 100;
        let state = |state: MachineState, time, lent, in_hand| StateTime {
            state: state.into(),
            seconds: hours(time),
            lent_s: hours(lent),
            in_hand_s: hours(in_hand),
        };
        Indicators {
            group_id: group_id.to_owned(),
            start_s: NOW_S - 7 * DAY,
            end_s: NOW_S,
            machines,
            planned_busy_s: hours(500),
            busy_s: hours(390),
            production_s: hours(312),
            setup_s: hours(39),
            unknown_s: hours(15),
            busy_besides_s: hours(3),
            states: vec![
                state(MachineState::Unknown, 200, 15, 10),
                state(MachineState::Idle, 110, 84, 29),
                state(MachineState::Setup, 39, 39, 39),
                state(MachineState::Producing, 330, 320, 312),
                state(MachineState::Maintenance, 20, 20, 0),
            ],
            pieces_good: 970 * share / 100,
            pieces_scrapped: 30 * share / 100,
            run_planned_s: hours(300),
            energy_measured_wh: 1_500_000 * share / 100,
            energy_modelled_wh: 500_000 * share / 100,
            carbon_g: 1_045_400 * share / 100,
            allocation: Some(0.78),
            utilisation: Some(0.8),
            availability: Some(0.624),
            effectiveness: Some(300.0 / 312.0),
            quality: Some(0.97),
            oee: Some(0.582),
            setup_ratio: None,
        }
    };
    vec![of("", 5, 100), of("dmu50-1", 1, 40), of("zeiss-1", 1, 20)]
}

fn entry(
    machine: &str,
    plant: &str,
    (start_s, end_s): (i64, i64),
    booking: u64,
    number: &mut impl FnMut(u64) -> u64,
) -> PlanEntry {
    let mine = number(5) > 0;
    let mut place = assignment(number(3) as u32, machine, plant, start_s, (end_s - start_s) / 60);
    place.changeover_s = if number(3) == 0 { 0 } else { 600 * (1 + number(3) as u32) };
    if start_s <= NOW_S {
        place.set_state(OperationState::Running);
    }
    PlanEntry {
        machine_id: machine.to_owned(),
        booking_id: if mine { format!("B{:06}", booking % 61 + 1) } else { String::new() },
        assignment: Some(place),
        setup_family: if mine { format!("F{}", 1 + number(4)) } else { String::new() },
        frozen: start_s < NOW_S + 8 * HOUR,
    }
}

pub fn explanation() -> ExplainResponse {
    ExplainResponse {
        header: None,
        reasons: vec![
            "Operation 1 waits for dmu50-1, the only machine that holds 5 µm, until 2026-11-27 18:00."
                .to_owned(),
            "Every other five-axis machine would need a changeover of 45 min.".to_owned(),
        ],
        obstacles: obstacles(),
        relaxations: vec![
            Relaxation {
                what: "tolerance_um of operation 1".to_owned(),
                completes_at_s: NOW_S + 20 * HOUR,
                price_fen: 99_400,
            },
            Relaxation {
                what: "budget_fen".to_owned(),
                completes_at_s: NOW_S + 12 * HOUR,
                price_fen: 148_250,
            },
        ],
    }
}

pub fn counts() -> Counts {
    Counts { members: 2, plants: 3, machines: 12, offers: 9, bookings: 61, request_ids: 310 }
}

fn policy() -> Policy {
    Policy {
        freeze_s: 7200,
        lead_s: 1800,
        promise_slack_s: 14_400,
        quote_valid_s: 900,
        tardiness_fen_per_minute: 50,
        transport: Some(TransportTariff {
            base_s: 1800,
            s_per_km: 120,
            base_fen: 3000,
            fen_per_km: 350,
            g_per_km: 210,
        }),
        grid_factors: vec![GridFactor {
            region: "CN-CQ".to_owned(),
            year: 2022,
            mg_per_kwh: 522_700,
            basis: "provincial average".to_owned(),
            source: "a national record".to_owned(),
        }],
        request_id_keep_s: 86_400,
        holds_max_per_buyer: 20,
        history_keep_s: 400 * 86_400,
        day_start_s: 57_600,
        shift_s: 28_800,
        revision: 12,
    }
}

/// The whole sample.
/// A session of the booking's first operation.
pub fn session() -> Session {
    Session {
        id: "s000007".to_owned(),
        booking_id: "B000042".to_owned(),
        operation: 0,
        machine_id: "dmu50-1".to_owned(),
        plant_id: "yubei-1".to_owned(),
        holder: "bo".to_owned(),
        opened_at_s: NOW_S - 600,
        closes_at_s: NOW_S + 5_400,
        ..Session::default()
    }
}

/// What its parties know of the machine, and of their operation.
pub fn session_view() -> SessionView {
    SessionView {
        machine_state: MachineState::Producing.into(),
        machine_state_since_s: NOW_S - 300,
        machine_down: false,
        started: true,
        pieces_good: 3,
        expected_end_s: NOW_S + 1_800,
    }
}

/// What came of a command.
pub fn outcome(verdict: RemoteVerdict, words: &str) -> RemoteOutcome {
    RemoteOutcome {
        verdict: verdict.into(),
        at_s: NOW_S,
        words: words.to_owned(),
        consent: "anna (user 1000)".to_owned(),
        ..RemoteOutcome::default()
    }
}

pub fn state() -> State {
    State {
        uploaded: Vec::new(),
        session: session(),
        revision: 1240,
        options: options(),
        members: vec![Member {
            id: "liangjiang".to_owned(),
            name: "Liangjiang Precision".to_owned(),
            revision: 4,
        }],
        plants: vec![Plant {
            id: "yubei-2".to_owned(),
            member_id: "liangjiang".to_owned(),
            name: "Yubei, hall 2".to_owned(),
            time_zone: "Asia/Shanghai".to_owned(),
            east_m: 3200,
            north_m: -1500,
            grid_region: "CN-CQ".to_owned(),
            revision: 9,
        }],
        machines: machines(),
        offers: offers(),
        plan: plan(),
        indicators: indicators(),
        policy: policy(),
        principals: vec![Principal {
            id: "acme".to_owned(),
            role: Role::Buyer.into(),
            expires_at_s: NOW_S + 90 * DAY,
            revoked: false,
        }],
        ..State::default()
    }
}
