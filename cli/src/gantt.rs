//! The plan drawn as one self-contained SVG: machines as rows, time across, one colour a booking.
//!
//! The share beside a machine's name is the part of its open time in the chart that is booked.
//!
//! Open time is white, closed time shaded; changeover is the dark beginning of a bar; frozen work is
//! hatched, running work outlined, finished work pale, others' work grey. Hovering over a bar tells its
//! particulars.

use crate::commands::status::gap;
use crate::drawing::{Drawing, escaped, fitting};
use crate::shown;
use crate::written::Clock;
use jiff::{Timestamp, ZonedDateTime};
use millpool_proto::v1::{
    Assignment, GetPlanResponse, MachineClass, OperationState, Optimisation, PlanEntry, PlanRow, PlanSummary,
    Window,
};
use std::collections::{BTreeMap, HashMap};

/// How machines are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// By the plant that they stand in.
    Plant,
    /// By their class.
    Class,
}

const WIDTH: f64 = 1680.0;
const MARGIN: f64 = 32.0;
/// Where the rows' names end and the chart begins.
const CHART_LEFT: f64 = 268.0;
const CHART_RIGHT: f64 = WIDTH - MARGIN;
const ROW: f64 = 30.0;
const GROUP_ROW: f64 = 32.0;
const AXIS_TOP: f64 = 156.0;
const ROWS_TOP: f64 = AXIS_TOP + 44.0;
const LEGEND: f64 = 64.0;
const HOUR: i64 = 3600;
/// What the legend calls bars without a name.
const OTHERS: &str = "others’ work";

const PATTERNS: &str = "\
<pattern id=\"frozen\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
<rect width=\"2.4\" height=\"7\" fill=\"#fff\" fill-opacity=\".38\"/></pattern>";

/// The stretch of time that a chart shows: what was asked for, else from this hour to the end of the
/// last assignment.
pub fn span(plan: &GetPlanResponse, asked: (i64, i64), clock: &Clock) -> (i64, i64) {
    let now_s = clock.now_s();
    let places = || plan.entries.iter().filter_map(|entry| entry.assignment.as_ref());
    let from_s = match asked.0 {
        0 => {
            let begun = places().map(|place| place.start_s).filter(|start_s| *start_s > now_s - 6 * HOUR);
            begun.min().unwrap_or(now_s).min(now_s).div_euclid(HOUR) * HOUR
        }
        from_s => from_s,
    };
    let until_s = match asked.1 {
        0 => {
            let windows = plan.rows.iter().flat_map(|row| &row.open);
            let open = windows.map(|window| window.end_s).max().unwrap_or(0).min(now_s + 7 * 24 * HOUR);
            let end_s = places().map(|place| place.end_s).max().unwrap_or(open);
            (end_s + HOUR).div_euclid(HOUR) * HOUR
        }
        until_s => until_s,
    };
    (from_s, until_s.max(from_s + 6 * HOUR))
}

/// Draws a plan. `asked` is the stretch of time that it was asked for, 0 where it was left open.
pub fn svg(plan: &GetPlanResponse, asked: (i64, i64), grouping: Grouping, clock: &Clock) -> String {
    let (from_s, until_s) = span(plan, asked, clock);
    let groups = groups(&plan.rows, grouping);
    let height =
        ROWS_TOP + groups.iter().map(|(_, rows)| GROUP_ROW + ROW * rows.len() as f64).sum::<f64>() + LEGEND;
    let drawing = Drawing::new("Millpool plan", (WIDTH, height), PATTERNS);
    let mut chart = Chart { from_s, until_s, clock, drawing };
    chart.heading(plan);
    let bottom = height - LEGEND;
    chart.axis_labels();
    chart.rows(plan, &groups, grouping);
    chart.grid(bottom);
    chart.bars(plan, &groups);
    chart.now_line(bottom);
    chart.legend(bottom, plan.entries.iter().any(|entry| entry.booking_id.is_empty()));
    chart.drawing.finish()
}

/// The rows in groups, groups by name.
fn groups(rows: &[PlanRow], grouping: Grouping) -> Vec<(String, Vec<&PlanRow>)> {
    let mut groups: BTreeMap<(i32, String), Vec<&PlanRow>> = BTreeMap::new();
    for row in rows {
        let key = match grouping {
            Grouping::Plant => (0, row.plant_id.clone()),
            Grouping::Class => (row.class, class_plural(row.class()).to_owned()),
        };
        groups.entry(key).or_default().push(row);
    }
    groups.into_iter().map(|((_, name), rows)| (name, rows)).collect()
}

fn class_plural(class: MachineClass) -> &'static str {
    match class {
        MachineClass::Unspecified => "Other machines",
        MachineClass::Lathe => "Lathes",
        MachineClass::Mill => "Mills",
        MachineClass::FiveAxis => "Five-axis centres",
        MachineClass::Grinder => "Grinders",
        MachineClass::Cmm => "Measuring machines",
    }
}

/// A drawing under way.
struct Chart<'a> {
    from_s: i64,
    until_s: i64,
    clock: &'a Clock,
    drawing: Drawing,
}

impl Chart<'_> {
    /// Where a time lies across the chart, within its edges.
    fn x(&self, at_s: i64) -> f64 {
        let inside = (at_s.clamp(self.from_s, self.until_s) - self.from_s) as f64;
        CHART_LEFT + inside / (self.until_s - self.from_s) as f64 * (CHART_RIGHT - CHART_LEFT)
    }

    fn local(&self, at_s: i64) -> Option<ZonedDateTime> {
        Some(Timestamp::from_second(at_s).ok()?.to_zoned_datetime(self.clock.zone.clone()))
    }

    fn heading(&mut self, plan: &GetPlanResponse) {
        let header = plan.header.clone().unwrap_or_default();
        let summary = plan.summary.unwrap_or_default();
        self.drawing.text("h1", MARGIN, 44.0, "Plan of the pool");
        let zone = self.clock.zone.iana_name().map_or(String::new(), |name| format!(" ({name})"));
        let under = format!(
            "{}revision {}, {} to {}{zone}",
            if header.cluster_id.is_empty() { String::new() } else { format!("{}, ", header.cluster_id) },
            shown::grouped(summary.revision),
            shown::time(self.from_s, self.clock),
            shown::time(self.until_s, self.clock)
        );
        self.drawing.text("sub", MARGIN, 66.0, &under);
        let mut x = MARGIN;
        for (name, value, bad) in figures(&summary) {
            self.drawing.text("k", x, 94.0, name);
            self.drawing.text(if bad { "v bad" } else { "v" }, x, 115.0, &value);
            x += 40.0 + (value.chars().count() as f64 * 9.6).max(name.chars().count() as f64 * 6.6);
        }
        if let Some(last) = &summary.last_optimisation {
            self.drawing.text("sub", MARGIN, 139.0, &optimised(last, self.clock));
        }
    }

    /// Days and hours above the rows.
    fn axis_labels(&mut self) {
        let step = self.hour_step();
        for (at_s, midnight) in self.ticks(step) {
            let (x, local) = (self.x(at_s), self.local(at_s));
            let Some(local) = local else { continue };
            let under_now = (x + 18.0 - self.x(self.clock.now_s())).abs() < 34.0 && self.shows_now();
            if step < 24 && x < CHART_RIGHT - 34.0 && !under_now {
                let hour = local.strftime("%H:%M").to_string();
                self.drawing.text("hour", x + 3.0, AXIS_TOP + 36.0, &hour);
            }
            if midnight && x < CHART_RIGHT - 40.0 {
                let day = local.strftime("%a %-d %b").to_string();
                self.drawing.text("day", x + 3.0, AXIS_TOP + 16.0, &day);
            }
        }
        // The first day begins before the chart does.
        let room = self.ticks(24).iter().map(|(at_s, _)| self.x(*at_s)).fold(CHART_RIGHT, f64::min);
        if let Some(first) = self.local(self.from_s).filter(|_| room - CHART_LEFT > 84.0) {
            self.drawing.text(
                "day",
                CHART_LEFT + 3.0,
                AXIS_TOP + 16.0,
                &first.strftime("%a %-d %b").to_string(),
            );
        }
    }

    /// Thin lines at hours, stronger ones at midnights.
    fn grid(&mut self, bottom: f64) {
        for (at_s, midnight) in self.ticks(self.hour_step()) {
            let x = self.x(at_s);
            let (top, stroke) =
                if midnight { (AXIS_TOP + 4.0, "#aeb8c6") } else { (AXIS_TOP + 26.0, "#d9dfe7") };
            self.drawing.put(format_args!(
                "<path d=\"M{x:.1} {top:.1}V{bottom:.1}\" stroke=\"{stroke}\" stroke-width=\"{}\"/>",
                if midnight { "1" } else { ".6" }
            ));
        }
        let right = CHART_RIGHT;
        self.drawing.put(format_args!(
            "<path d=\"M{CHART_LEFT} {ROWS_TOP}V{bottom:.1}H{right}V{ROWS_TOP}Z\" fill=\"none\" stroke=\"#c3cbd7\"/>"
        ));
    }

    /// Hours between ticks, so that their labels do not touch.
    fn hour_step(&self) -> i64 {
        let hours = (self.until_s - self.from_s) as f64 / HOUR as f64;
        let labels_max = (CHART_RIGHT - CHART_LEFT) / 46.0;
        let steps = [1, 2, 3, 4, 6, 12, 24];
        steps.into_iter().find(|step| hours / *step as f64 <= labels_max).unwrap_or(24)
    }

    /// Local hours that are multiples of `step`, and whether each is a midnight. Midnights thin out where
    /// days are narrow.
    fn ticks(&self, step: i64) -> Vec<(i64, bool)> {
        let days = (self.until_s - self.from_s) as f64 / (24.0 * HOUR as f64);
        let day_step = (days * 78.0 / (CHART_RIGHT - CHART_LEFT)).ceil().max(1.0) as i64;
        let mut ticks = Vec::new();
        let mut at_s = self.from_s.div_euclid(900) * 900;
        let mut midnights = 0;
        while at_s <= self.until_s && ticks.len() < 2000 {
            let Some(local) = self.local(at_s) else { break };
            let on_the_hour = local.minute() == 0 && i64::from(local.hour()) % step == 0;
            let midnight = on_the_hour && local.hour() == 0;
            midnights += i64::from(midnight);
            let wanted = if midnight { (midnights - 1) % day_step == 0 } else { step < 24 };
            if at_s >= self.from_s && on_the_hour && wanted {
                ticks.push((at_s, midnight));
            }
            at_s += 900;
        }
        ticks
    }

    /// Names, shares, closed and open time.
    fn rows(&mut self, plan: &GetPlanResponse, groups: &[(String, Vec<&PlanRow>)], grouping: Grouping) {
        let booked = booked(plan, (self.from_s, self.until_s));
        let mut top = ROWS_TOP;
        for (name, rows) in groups {
            self.drawing.rect(
                (MARGIN - 8.0, top),
                (CHART_RIGHT - MARGIN + 8.0, GROUP_ROW),
                "fill=\"#f4f6f9\"",
            );
            self.drawing.text("group", MARGIN, top + 21.0, &fitting(name, 28));
            let open_s: i64 = rows.iter().map(|row| self.open_s(&row.open)).sum();
            let booked_s: i64 = rows.iter().filter_map(|row| booked.get(row.machine_id.as_str())).sum();
            self.drawing.text_end("note", CHART_LEFT - 12.0, top + 21.0, &percent(booked_s, open_s));
            top += GROUP_ROW;
            for row in rows {
                self.row(row, top, grouping, booked.get(row.machine_id.as_str()).copied().unwrap_or(0));
                top += ROW;
            }
        }
    }

    fn row(&mut self, row: &PlanRow, top: f64, grouping: Grouping, booked_s: i64) {
        self.drawing.text("row", MARGIN + 10.0, top + 19.5, &fitting(&row.machine_id, 17));
        let kind = match grouping {
            Grouping::Plant => shown::class(row.class()),
            Grouping::Class => &row.plant_id,
        };
        let kind: String = kind.chars().take(11).collect();
        self.drawing.text("note", MARGIN + 128.0, top + 19.5, &kind);
        self.drawing.text_end(
            "note",
            CHART_LEFT - 12.0,
            top + 19.5,
            &percent(booked_s, self.open_s(&row.open)),
        );
        self.drawing.rect((CHART_LEFT, top), (CHART_RIGHT - CHART_LEFT, ROW), "fill=\"#e6eaf0\"");
        for window in &row.open {
            let (start, end) = (self.x(window.start_s), self.x(window.end_s));
            if end > start {
                self.drawing.rect((start, top), (end - start, ROW), "fill=\"#fff\"");
            }
        }
        let under = top + ROW;
        self.drawing.put(format_args!(
            "<path d=\"M{CHART_LEFT} {under:.1}H{CHART_RIGHT}\" stroke=\"#dfe4ec\" stroke-width=\".8\"/>"
        ));
    }

    fn open_s(&self, windows: &[Window]) -> i64 {
        windows
            .iter()
            .map(|window| (window.end_s.min(self.until_s) - window.start_s.max(self.from_s)).max(0))
            .sum()
    }

    fn bars(&mut self, plan: &GetPlanResponse, groups: &[(String, Vec<&PlanRow>)]) {
        let mut entries: HashMap<&str, Vec<&PlanEntry>> = HashMap::new();
        for entry in &plan.entries {
            entries.entry(&entry.machine_id).or_default().push(entry);
        }
        let mut top = ROWS_TOP;
        for (_, rows) in groups {
            top += GROUP_ROW;
            for row in rows {
                for entry in entries.get(row.machine_id.as_str()).into_iter().flatten() {
                    if let Some(place) = &entry.assignment {
                        self.bar(entry, place, top);
                    }
                }
                top += ROW;
            }
        }
    }

    fn bar(&mut self, entry: &PlanEntry, place: &Assignment, row_top: f64) {
        let (start, end) = (self.x(place.start_s), self.x(place.end_s));
        if place.end_s <= self.from_s || place.start_s >= self.until_s {
            return;
        }
        let (x, top, height) = (start + 0.5, row_top + 4.0, ROW - 8.0);
        let width = (end - start - 1.0).max(1.0);
        let mine = !entry.booking_id.is_empty();
        let state = place.state();
        let running = mine && state == OperationState::Running;
        let fill = if mine { colour(&entry.booking_id) } else { "#b4bcc8".to_owned() };
        let pale = if state == OperationState::Finished { " opacity=\".42\"" } else { "" };
        self.drawing.put(format_args!("<g{pale}><title>{}</title>", escaped(&self.told(entry, place))));
        self.drawing.rect((x, top), (width, height), &format!("rx=\"3\" fill=\"{fill}\""));
        let changeover = self.x(place.start_s + i64::from(place.changeover_s)) - start;
        if mine && changeover > 1.0 {
            let dark = "rx=\"3\" fill=\"#0c1420\" fill-opacity=\".38\"";
            self.drawing.rect((x, top), (changeover.min(width), height), dark);
        }
        if entry.frozen && mine && state == OperationState::Planned {
            self.drawing.rect((x, top), (width, height), "rx=\"3\" fill=\"url(#frozen)\"");
        }
        if running {
            let outline = "rx=\"3\" fill=\"none\" stroke=\"#0c1420\" stroke-width=\"2\"";
            self.drawing.rect((x, top), (width, height), outline);
        }
        let room = width - changeover.max(0.0);
        if let Some(label) = label(entry, place, running, room).filter(|_| mine) {
            self.drawing.text("bar", x + changeover.max(0.0) + 5.0, top + 15.0, &label);
        }
        self.drawing.put(format_args!("</g>"));
    }

    /// What hovering over a bar tells.
    fn told(&self, entry: &PlanEntry, place: &Assignment) -> String {
        let (start, end) = (shown::time(place.start_s, self.clock), shown::time(place.end_s, self.clock));
        let when = format!(
            "{}: {start} to {end} ({})",
            entry.machine_id,
            shown::duration(place.end_s - place.start_s)
        );
        if entry.booking_id.is_empty() {
            return format!("busy\n{when}");
        }
        let frozen = if entry.frozen { ", frozen" } else { "" };
        let changeover = match place.changeover_s {
            0 => String::new(),
            seconds => format!(", {} changeover", shown::duration(i64::from(seconds))),
        };
        let state = shown::operation_state(place.state());
        let (booking, family) = (&entry.booking_id, &entry.setup_family);
        format!(
            "{booking}, operation {}\n{when}\nfamily {family}{changeover}, {state}{frozen}",
            place.operation
        )
    }

    fn shows_now(&self) -> bool {
        (self.from_s..=self.until_s).contains(&self.clock.now_s())
    }

    fn now_line(&mut self, bottom: f64) {
        if !self.shows_now() {
            return;
        }
        let x = self.x(self.clock.now_s());
        let top = ROWS_TOP - 20.0;
        self.drawing.put(format_args!(
            "<path d=\"M{x:.1} {:.1}V{bottom:.1}\" stroke=\"#d92d3c\" stroke-width=\"1.6\"/>",
            top + 16.0
        ));
        self.drawing.rect((x - 17.0, top), (34.0, 17.0), "rx=\"8.5\" fill=\"#d92d3c\"");
        self.drawing.put(format_args!(
            "<text class=\"now\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">now</text>",
            top + 12.4
        ));
    }

    fn legend(&mut self, bottom: f64, with_others: bool) {
        let (mut x, top) = (CHART_LEFT, bottom + 24.0);
        let sample = colour("b000001");
        let of = |fill: &str| format!("rx=\"3\" fill=\"{fill}\"");
        let edge = "rx=\"3\" stroke=\"#c3cbd7\"";
        let outlined = format!("rx=\"3\" fill=\"{sample}\" stroke=\"#0c1420\" stroke-width=\"2\"");
        let pale = format!("rx=\"3\" fill=\"{sample}\" opacity=\".42\"");
        let items = [
            ("a booking (one colour each)", vec![(28.0, of(&sample))]),
            (
                "changeover",
                vec![
                    (28.0, of(&sample)),
                    (12.0, "rx=\"3\" fill=\"#0c1420\" fill-opacity=\".38\"".to_owned()),
                ],
            ),
            ("frozen", vec![(28.0, of(&sample)), (28.0, of("url(#frozen)"))]),
            ("running", vec![(28.0, outlined)]),
            ("finished", vec![(28.0, pale)]),
            (OTHERS, vec![(28.0, of("#b4bcc8"))]),
            ("open", vec![(28.0, format!("{edge} fill=\"#fff\""))]),
            ("closed", vec![(28.0, format!("{edge} fill=\"#e6eaf0\""))]),
        ];
        for (name, layers) in items.into_iter().filter(|(name, _)| with_others || *name != OTHERS) {
            for (width, rest) in layers {
                self.drawing.rect((x, top), (width, 14.0), &rest);
            }
            self.drawing.text("sub", x + 36.0, top + 11.5, name);
            x += 36.0 + 30.0 + name.chars().count() as f64 * 6.7;
        }
    }
}

/// The figures above the chart: name, value, and whether it is bad.
fn figures(summary: &PlanSummary) -> Vec<(&'static str, String, bool)> {
    let risk = summary.bookings_at_risk;
    vec![
        ("PLAN COSTS, ALL WORK TO COME", shown::money(summary.cost_fen), false),
        ("OPEN TIME BOOKED, FROM NOW ON", shown::share(summary.booked_s, summary.open_s), false),
        ("OPEN BOOKINGS", shown::grouped(u64::from(summary.bookings_open)), false),
        ("ASSIGNMENTS", shown::grouped(u64::from(summary.assignments)), false),
        ("AT RISK", shown::grouped(u64::from(risk)), risk > 0),
    ]
}

/// The last optimisation in a sentence of its own: its figures are of other work and of another moment than
/// those above the chart.
fn optimised(last: &Optimisation, clock: &Clock) -> String {
    format!(
        "Last optimisation, at {}: what had not begun cost {} before and {} after; no plan of that work costs less \
         than {} (gap {})",
        shown::time(last.at_s, clock),
        shown::money(last.cost_before_fen),
        shown::money(last.cost_fen),
        shown::money(last.bound_fen),
        gap(last.cost_fen, last.bound_fen)
    )
}

/// Seconds of its open time that each machine is booked within a span. Work that has run on into closed time,
/// or was begun outside of an offer, counts as far as it lies in open time, and time that two assignments
/// claim counts once: a machine is never booked more than it is open.
fn booked(plan: &GetPlanResponse, span: (i64, i64)) -> HashMap<&str, i64> {
    let mut busy: HashMap<&str, Vec<(i64, i64)>> = HashMap::new();
    for entry in &plan.entries {
        if let Some(place) = &entry.assignment {
            let inside = (place.start_s.max(span.0), place.end_s.min(span.1));
            busy.entry(&entry.machine_id).or_default().push(inside);
        }
    }
    let booked = |row: &PlanRow| {
        let mut places = busy.get(row.machine_id.as_str()).cloned().unwrap_or_default();
        places.sort_unstable();
        let (mut sum_s, mut counted_until_s) = (0, i64::MIN);
        for (start_s, end_s) in places {
            let start_s = start_s.max(counted_until_s);
            let within = |w: &Window| (end_s.min(w.end_s) - start_s.max(w.start_s)).max(0);
            sum_s += row.open.iter().map(within).sum::<i64>();
            counted_until_s = counted_until_s.max(end_s);
        }
        sum_s
    };
    plan.rows.iter().map(|row| (row.machine_id.as_str(), booked(row))).collect()
}

/// A share of open time; a dash where there is none, or none that the caller may see.
fn percent(part: i64, whole: i64) -> String {
    if whole <= 0 { "–".to_owned() } else { format!("{} %", (part * 100 + whole / 2) / whole) }
}

/// The longest label that fits a bar.
fn label(entry: &PlanEntry, place: &Assignment, running: bool, room: f64) -> Option<String> {
    let mark = if running { "▸ " } else { "" };
    let id = &entry.booking_id;
    let short = id.trim_start_matches(|c: char| c.is_ascii_alphabetic()).trim_start_matches('0');
    let operation = place.operation;
    let labels = [
        format!("{mark}{id} · {operation} · {}", entry.setup_family),
        format!("{mark}{id} · {operation}"),
        format!("{mark}{id}"),
        short.to_owned(),
    ];
    labels.into_iter().find(|label| !label.is_empty() && label.chars().count() as f64 * 6.5 + 9.0 <= room)
}

/// A booking's colour: always the same for the same booking, far apart for neighbours.
fn colour(booking_id: &str) -> String {
    let digits: String = booking_id.chars().filter(char::is_ascii_digit).collect();
    let number = digits.parse::<u64>().unwrap_or_else(|_| {
        booking_id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    });
    let number = (number % 3600) as f64;
    let hue = (number * 137.507_764 + 210.0).rem_euclid(360.0).to_radians();
    let lightness = [0.56, 0.62, 0.50][number as usize % 3];
    oklch(lightness, 0.125, hue)
}

/// A colour of even brightness for the eye, as hexadecimal sRGB.
fn oklch(lightness: f64, chroma: f64, hue: f64) -> String {
    let (a, b) = (chroma * hue.cos(), chroma * hue.sin());
    let l = (lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
    let m = (lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
    let s = (lightness - 0.089_484_177_5 * a - 1.291_485_548 * b).powi(3);
    let linear = [
        4.076_741_662_1 * l - 3.307_711_591_3 * m + 0.230_969_929_2 * s,
        -1.268_438_004_6 * l + 2.609_757_401_1 * m - 0.341_319_396_5 * s,
        -0.004_196_086_3 * l - 0.703_418_614_7 * m + 1.707_614_701 * s,
    ];
    let [red, green, blue] = linear.map(|value| {
        let value = value.clamp(0.0, 1.0);
        let shown = if value <= 0.003_130_8 { 12.92 * value } else { 1.055 * value.powf(1.0 / 2.4) - 0.055 };
        (shown * 255.0).round() as u8
    });
    format!("#{red:02x}{green:02x}{blue:02x}")
}
