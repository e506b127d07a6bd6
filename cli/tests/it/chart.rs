//! The charts: well-formed whatever they are of.

use crate::fake::sample;
use jiff::{Timestamp, tz::TimeZone};
use millpool_cli::gantt::{Grouping, svg};
use millpool_cli::spent;
use millpool_cli::written::Clock;
use millpool_proto::v1::*;
use quick_xml::{Reader, events::Event};

fn clock() -> Clock {
    Clock {
        now: Timestamp::from_second(sample::NOW_S).unwrap(),
        zone: TimeZone::get("Asia/Shanghai").unwrap(),
    }
}

/// How often each element occurs; fails where the text is not XML.
fn elements(text: &str) -> std::collections::BTreeMap<String, usize> {
    let mut reader = Reader::from_str(text);
    let mut counts = std::collections::BTreeMap::new();
    let mut depth = 0_i32;
    loop {
        let element = match reader.read_event().unwrap() {
            Event::Start(start) => {
                depth += 1;
                for attribute in start.attributes() {
                    attribute.unwrap();
                }
                start.name().as_ref().to_owned()
            }
            Event::Empty(empty) => empty.name().as_ref().to_owned(),
            Event::End(_) => {
                depth -= 1;
                continue;
            }
            Event::Eof => break,
            _ => continue,
        };
        *counts.entry(element).or_insert(0) += 1;
    }
    assert_eq!(depth, 0);
    counts
}

#[test]
fn every_assignment_has_a_bar() {
    let plan = sample::plan();
    for grouping in [Grouping::Plant, Grouping::Class] {
        let drawn = svg(&plan, (0, 0), grouping, &clock());
        let name = format!("plan-{grouping:?}.svg").to_lowercase();
        std::fs::write(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), &drawn).unwrap();
        let elements = elements(&drawn);
        assert_eq!(elements["title"], plan.entries.len());
        assert_eq!(drawn.matches(">now<").count(), 1);
    }
}

/// A day of it, where bars are wide enough to say more.
#[test]
fn a_single_day_is_drawn_wide() {
    let now_s = sample::NOW_S;
    let drawn = svg(&sample::plan(), (now_s - 7200, now_s + 86_400), Grouping::Plant, &clock());
    std::fs::write(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("day.svg"), &drawn).unwrap();
    elements(&drawn);
}

#[test]
fn nothing_that_a_name_holds_breaks_it() {
    let mut plan = sample::plan();
    plan.rows[0].machine_id = "<b>&\"'\u{1}\u{7}]]>机床".to_owned();
    plan.rows[0].plant_id = "</text><script>".to_owned();
    for entry in &mut plan.entries {
        entry.machine_id = plan.rows[0].machine_id.clone();
        entry.booking_id = "<&>".repeat(30);
        entry.setup_family = "</g>".to_owned();
    }
    let drawn = svg(&plan, (0, 0), Grouping::Plant, &clock());
    assert!(!elements(&drawn).contains_key("script"));
}

#[test]
fn odd_plans_are_drawn_too() {
    let place = |start_s: i64, end_s: i64| PlanEntry {
        machine_id: "m".to_owned(),
        booking_id: "B1".to_owned(),
        assignment: Some(Assignment { start_s, end_s, changeover_s: u32::MAX, ..Assignment::default() }),
        ..PlanEntry::default()
    };
    let row = PlanRow { machine_id: "m".to_owned(), ..PlanRow::default() };
    let now_s = sample::NOW_S;
    let cases = [
        (GetPlanResponse::default(), (0, 0)),
        (GetPlanResponse { rows: vec![row.clone()], ..Default::default() }, (0, 0)),
        (GetPlanResponse { entries: vec![PlanEntry::default()], ..Default::default() }, (0, 0)),
        (
            GetPlanResponse {
                rows: vec![row.clone()],
                entries: vec![place(now_s, now_s)],
                ..Default::default()
            },
            (0, 0),
        ),
        (
            GetPlanResponse {
                rows: vec![row],
                entries: vec![place(0, now_s + 92 * 86_400)],
                ..Default::default()
            },
            (now_s, now_s - 5),
        ),
    ];
    for (plan, asked) in cases {
        elements(&svg(&plan, asked, Grouping::Class, &clock()));
    }
}

/// Work that runs on after an offer's end, and work that is claimed twice, book no more than is open.
#[test]
fn no_machine_is_booked_for_more_than_it_is_open() {
    let now_s = sample::NOW_S;
    let hour = |from: i64, until: i64| (now_s + from * 3600, now_s + until * 3600);
    let place = |machine: &str, (start_s, end_s): (i64, i64)| PlanEntry {
        machine_id: machine.to_owned(),
        booking_id: "b000001".to_owned(),
        assignment: Some(Assignment { start_s, end_s, ..Assignment::default() }),
        ..PlanEntry::default()
    };
    let row = |machine: &str, windows: &[(i64, i64)]| PlanRow {
        machine_id: machine.to_owned(),
        plant_id: "works".to_owned(),
        open: windows.iter().map(|&(start_s, end_s)| Window { start_s, end_s }).collect(),
        ..PlanRow::default()
    };
    let plan = GetPlanResponse {
        rows: vec![
            row("half", &[hour(0, 4), hour(6, 10)]),
            row("overrun", &[hour(0, 4)]),
            row("twice", &[hour(0, 4)]),
            row("unlent", &[]),
        ],
        entries: vec![
            place("half", hour(2, 8)),
            place("overrun", hour(-3, 9)),
            place("twice", hour(0, 3)),
            place("twice", hour(1, 3)),
            place("unlent", hour(1, 3)),
        ],
        ..Default::default()
    };
    let drawn = svg(&plan, hour(0, 10), Grouping::Plant, &clock());
    let shares: Vec<&str> = drawn
        .split("text-anchor=\"end\">")
        .skip(1)
        .map(|rest| rest.split('<').next().unwrap_or_default())
        .collect();
    // The plant: 4 + 4 + 3 of 8 + 4 + 4 hours.
    assert_eq!(shares, ["69 %", "50 %", "100 %", "75 %", "–"]);
}

/// The optimisation's figures are of other work than the plan's cost, and say so.
#[test]
fn the_optimisation_says_what_its_figures_are_of() {
    let drawn = svg(&sample::plan(), (0, 0), Grouping::Plant, &clock());
    for said in
        ["PLAN COSTS, ALL WORK TO COME", "what had not begun cost", "no plan of that work costs less than"]
    {
        assert!(drawn.contains(said), "{said}");
    }
    let never = GetPlanResponse { summary: Some(PlanSummary::default()), ..Default::default() };
    assert!(!svg(&never, (0, 0), Grouping::Plant, &clock()).contains("optimisation"));
}

/// The widths of the parts of a bar, pixels.
fn widths(drawn: &str) -> Vec<f64> {
    let parts = drawn
        .lines()
        .skip_while(|line| !line.starts_with("<g>"))
        .filter(|line| line.contains("height=\"18.0\""));
    let width = |line: &str| line.split("width=\"").nth(1)?.split('"').next()?.parse().ok();
    parts.map(|line| width(line).unwrap()).collect()
}

#[test]
fn the_time_lent_is_a_bar_of_what_machines_did_in_it() {
    let time = |state: MachineState, lent_s| StateTime {
        state: state.into(),
        seconds: lent_s + 3600,
        lent_s,
        in_hand_s: 0,
    };
    let states = vec![
        time(MachineState::Unknown, 900),
        time(MachineState::Idle, 0),
        time(MachineState::Producing, 2700),
    ];
    let row =
        Indicators { group_id: "mill-1".to_owned(), states, allocation: Some(0.5), ..Indicators::default() };
    let never = Indicators { group_id: "</text><b>&".to_owned(), ..Indicators::default() };
    let drawn = spent::svg(&[row, never], true, &clock());
    std::fs::write(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("spent.svg"), &drawn).unwrap();
    assert_eq!(elements(&drawn)["title"], 2);
    assert_eq!(widths(&drawn), [450.0, 150.0], "producing first, what nobody knows last");
    assert!(drawn.contains("mill-1 unknown: 15 min of 1 h lent (25.0 %)"), "{drawn}");
    assert!(drawn.contains(">50.0 %<") && drawn.contains(">not lent<"));
}
