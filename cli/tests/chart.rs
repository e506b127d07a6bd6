//! The chart: well-formed whatever the plan holds.

#![allow(clippy::unwrap_used)]

mod fake;

use fake::sample;
use jiff::{Timestamp, tz::TimeZone};
use millpool_cli::gantt::{Grouping, svg};
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
