//! What machines did with the time that they were lent, drawn as one self-contained SVG: a bar for each row, whose
//! colours are the states that were reported. Hovering over a part tells its particulars.

use crate::drawing::{Drawing, escaped, fitting};
use crate::shown;
use crate::written::Clock;
use millpool_proto::v1::{Indicators, MachineState, StateTime};

const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 32.0;
/// Where the names end and the bars begin.
const LEFT: f64 = 330.0;
/// Where the bars end and the figures begin.
const RIGHT: f64 = 930.0;
/// Where each figure ends.
const FIGURES: [(f64, &str); 3] = [(1004.0, "ALLOCATION"), (1098.0, "AVAILABILITY"), (WIDTH - MARGIN, "OEE")];
const TOP: f64 = 116.0;
const ROW: f64 = 26.0;
const LEGEND: f64 = 60.0;

/// The states from left to right, and their colours: first what the pool is for, last what nobody knows.
const STATES: [(MachineState, &str); 8] = [
    (MachineState::Producing, "#2f8f5b"),
    (MachineState::Setup, "#3f74c6"),
    (MachineState::Held, "#e0a63a"),
    (MachineState::Blocked, "#c62f3b"),
    (MachineState::Idle, "#c3cbd7"),
    (MachineState::Maintenance, "#7d5ba6"),
    (MachineState::Off, "#667085"),
    (MachineState::Unknown, "url(#unknown)"),
];

const PATTERNS: &str = "\
<pattern id=\"unknown\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
<rect width=\"6\" height=\"6\" fill=\"#fff\"/><rect width=\"2\" height=\"6\" fill=\"#8591a3\"/></pattern>";

/// Draws them, a row each in their order. `grouped` is whether they are of one member, plant or machine each.
pub fn svg(rows: &[Indicators], grouped: bool, clock: &Clock) -> String {
    let bottom = TOP + ROW * rows.len() as f64;
    let mut drawing = Drawing::new("What machines did with their time", (WIDTH, bottom + LEGEND), PATTERNS);
    drawing.text("h1", MARGIN, 44.0, "What machines did with the time lent");
    let (from_s, until_s) = rows.iter().fold((i64::MAX, i64::MIN), |(from_s, until_s), row| {
        (from_s.min(row.start_s), until_s.max(row.end_s))
    });
    let span = format!("{} to {}", shown::time(from_s, clock), shown::time(until_s, clock));
    drawing.text("sub", MARGIN, 66.0, &span);
    for (end, name) in FIGURES {
        drawing.text_end("k", end, TOP - 10.0, name);
    }
    for (row, at) in rows.iter().zip(0..) {
        self::row(&mut drawing, row, grouped, TOP + ROW * f64::from(at), clock);
    }
    legend(&mut drawing, bottom + 22.0);
    drawing.finish()
}

fn row(drawing: &mut Drawing, row: &Indicators, grouped: bool, top: f64, clock: &Clock) {
    let line = top + 17.0;
    if grouped {
        drawing.text("group", MARGIN, line, &fitting(&row.group_id, 22));
    }
    drawing.text_end("note", LEFT - 12.0, line, &format!("from {}", shown::time(row.start_s, clock)));
    let lent_s: i64 = row.states.iter().map(|state| state.lent_s).sum();
    let of = |state: MachineState| row.states.iter().find(|time| time.state() == state);
    let mut before_s = 0;
    for (time, fill) in STATES.iter().filter_map(|(state, fill)| Some((of(*state)?, *fill))) {
        part(drawing, row, time, (before_s, lent_s), (top + 4.0, fill));
        before_s += time.lent_s;
    }
    if lent_s == 0 {
        drawing.text("note", LEFT, line, "not lent");
    }
    let figures = [row.allocation, row.availability, row.oee];
    for ((end, _), share) in FIGURES.into_iter().zip(figures) {
        drawing.text_end("row", end, line, &shown::ratio(share));
    }
}

/// One state's part of a bar: behind what comes before it, of all the time lent.
fn part(
    drawing: &mut Drawing,
    row: &Indicators,
    time: &StateTime,
    (before_s, lent_s): (i64, i64),
    (top, fill): (f64, &str),
) {
    if time.lent_s == 0 {
        return;
    }
    let x = |seconds: i64| LEFT + (RIGHT - LEFT) * seconds as f64 / lent_s as f64;
    let told = format!(
        "{} {}: {} of {} lent ({})",
        row.group_id,
        shown::machine_state(time.state()),
        shown::duration(time.lent_s),
        shown::duration(lent_s),
        shown::share(time.lent_s, lent_s)
    );
    drawing.put(format_args!("<g><title>{}</title>", escaped(told.trim_start())));
    let (start, end) = (x(before_s), x(before_s + time.lent_s));
    drawing.rect((start, top), (end - start, ROW - 8.0), &format!("fill=\"{fill}\""));
    drawing.put(format_args!("</g>"));
}

fn legend(drawing: &mut Drawing, top: f64) {
    let mut x = LEFT;
    for (state, fill) in STATES {
        let name = shown::machine_state(state);
        drawing.rect((x, top), (16.0, 14.0), &format!("fill=\"{fill}\" stroke=\"#c3cbd7\""));
        drawing.text("sub", x + 22.0, top + 11.5, name);
        x += 22.0 + 18.0 + name.chars().count() as f64 * 6.9;
    }
}
