//! What is said at the end, and how figures are written.

use crate::market::Tally;
use crate::observe::Seen;
use crate::outage::Outage;
use comfy_table::{Cell, CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use jiff::{Timestamp, tz::TimeZone};
use millpool_demo::alliance::{Alliance, DAY_S, TIME_ZONE};
use millpool_demo::checks::Fault;
use millpool_demo::checks::evidence::Evidence;
use millpool_demo::checks::promises::Promises;
use millpool_proto::v1::{Booking, BookingStatus, PlanSummary, Window};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Faults that are told one by one.
const FAULTS_SHOWN: usize = 12;

/// What the run came to.
pub(crate) struct Report {
    pub(crate) alliance: Alliance,
    pub(crate) tally: Tally,
    pub(crate) seen: Seen,
    pub(crate) evidence: Evidence,
    pub(crate) promises: Promises,
    pub(crate) outage: Option<Outage>,
    pub(crate) faults: Vec<Fault>,
    /// Requests that were repeated.
    pub(crate) repeated: usize,
    /// The revision at which all nodes had one hash.
    pub(crate) agreed_at: Option<u64>,
    pub(crate) drawing: PathBuf,
}

/// The closing table.
pub(crate) fn table(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    let mut section = |rows: Vec<(&str, String)>| {
        let names: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
        let texts: Vec<&str> = rows.iter().map(|(_, text)| text.as_str()).collect();
        let name = Cell::new(names.join("\n")).set_alignment(CellAlignment::Left);
        table.add_row(vec![name, Cell::new(texts.join("\n"))]);
    };
    section(bookings(&report.tally));
    section(kept(report));
    section(pool(report));
    section(optimisation(report));
    section(times(report));
    section(checks(report));
    table.to_string()
}

/// Says what broke, and answers with how much did.
pub(crate) fn verdict(report: &Report) -> usize {
    println!("the plan is drawn in {}", report.drawing.display());
    for fault in report.faults.iter().take(FAULTS_SHOWN) {
        eprintln!("BROKEN  {fault}");
    }
    match report.faults.len() {
        0 => println!("every promise and every invariant held"),
        count if count > FAULTS_SHOWN => eprintln!("{count} faults, of which {FAULTS_SHOWN} are shown"),
        _ => {}
    }
    report.faults.len()
}

fn bookings(tally: &Tally) -> Vec<(&'static str, String)> {
    let refused: u64 = tally.refused.values().sum();
    let mut reasons: Vec<(&String, &u64)> = tally.refused.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let mut rows = vec![
        ("bookings asked", tally.asked.to_string()),
        (
            "promised",
            format!(
                "{}, of which {} first held, {} cancelled again",
                tally.promised, tally.confirmed_holds, tally.cancelled
            ),
        ),
        ("refused", if refused == 0 { "0".to_owned() } else { format!("{refused}: {}", reasons.join(", ")) }),
    ];
    if tally.unanswered > 0 {
        rows.push(("unanswered in time", tally.unanswered.to_string()));
    }
    rows
}

fn kept(report: &Report) -> Vec<(&'static str, String)> {
    let Promises { kept, late_with_cause, on_time, at_risk_with_cause, broken, disturbances } =
        report.promises;
    vec![
        ("promises kept", format!("{kept} done in time, {on_time} to come and in time")),
        (
            "disturbed",
            format!(
                "{late_with_cause} done late, {at_risk_with_cause} at risk, by {disturbances} recorded disturbances"
            ),
        ),
        ("broken without cause", broken.to_string()),
    ]
}

fn pool(report: &Report) -> Vec<(&'static str, String)> {
    let hours = report.alliance.shifts;
    let (lent_s, booked_s) = lent_and_booked(&report.evidence);
    vec![
        (
            "allocation efficiency",
            format!(
                "{} before (own work), {} after, of {} h manned in two weeks",
                share(hours.own_s, hours.shift_s),
                share(hours.own_s + booked_s, hours.shift_s),
                hours.shift_s / 3600
            ),
        ),
        (
            "of the time lent",
            format!("{} booked ({} of {} h)", share(booked_s, lent_s), booked_s / 3600, lent_s / 3600),
        ),
    ]
}

/// Machine time lent, and thereof taken by bookings, seconds.
fn lent_and_booked(evidence: &Evidence) -> (i64, i64) {
    let open: BTreeMap<&str, &[Window]> =
        evidence.plan.rows.iter().map(|row| (row.machine_id.as_str(), row.open.as_slice())).collect();
    let lent_s = open.values().copied().flatten().map(|window| window.end_s - window.start_s).sum();
    let counts = |booking: &&Booking| {
        matches!(booking.status(), BookingStatus::Held | BookingStatus::Confirmed | BookingStatus::Completed)
    };
    let places = evidence.bookings.iter().filter(counts).flat_map(|booking| &booking.assignments);
    let inside = |start_s: i64, end_s: i64, windows: &[Window]| -> i64 {
        windows.iter().map(|w| (end_s.min(w.end_s) - start_s.max(w.start_s)).max(0)).sum()
    };
    let booked_s = places
        .map(|place| {
            inside(
                place.start_s,
                place.end_s,
                open.get(place.machine_id.as_str()).copied().unwrap_or_default(),
            )
        })
        .sum();
    (lent_s, booked_s)
}

fn optimisation(report: &Report) -> Vec<(&'static str, String)> {
    let summary = report.evidence.plan.summary.unwrap_or_default();
    let mut rows = vec![("cost of the plan", money(summary.cost_fen))];
    match &summary.last_optimisation {
        Some(last) => rows.push((
            "last optimisation",
            format!(
                "cost {} before, {} after; bound {}; gap {}",
                money(last.cost_before_fen),
                money(last.cost_fen),
                money(last.bound_fen),
                share(last.cost_fen - last.bound_fen, last.cost_fen)
            ),
        )),
        None => rows.push(("last optimisation", "none".to_owned())),
    }
    let seen = &report.seen;
    rows.push((
        "all optimisations",
        format!(
            "{} improved plans, {} operations moved, {} saved",
            seen.optimisations,
            seen.moved,
            money(seen.saved_fen)
        ),
    ));
    rows
}

fn times(report: &Report) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("time of a quote", latency(&report.tally.quote_us)),
        ("time of a booking", latency(&report.tally.book_us)),
    ];
    if let Some(cost) = &report.outage {
        rows.push(("failover", outage(cost)));
    }
    rows
}

fn checks(report: &Report) -> Vec<(&'static str, String)> {
    let agreed = match report.agreed_at {
        Some(revision) => format!("one state hash on three nodes at revision {revision}"),
        None => "the three nodes do not agree".to_owned(),
    };
    let bookings = report.evidence.bookings.len();
    vec![
        ("checked", format!("{bookings} bookings and {} occupations", report.evidence.plan.entries.len())),
        ("requests repeated", report.repeated.to_string()),
        ("replicas", agreed),
        ("faults", report.faults.len().to_string()),
    ]
}

/// What the leader's death cost, in a sentence.
pub(crate) fn outage(cost: &Outage) -> String {
    let without = match cost.without_writes {
        Some(gap) => format!("{:.2} s without an acknowledged write", gap.as_secs_f64()),
        None => "nothing was written around it".to_owned(),
    };
    format!("node {} died leading, node {} took over: {without}", cost.died, cost.leads)
}

/// The plan's figures in a few words.
pub(crate) fn plan_in_brief(summary: &PlanSummary) -> String {
    let gap = match &summary.last_optimisation {
        Some(last) => format!(", gap {}", share(last.cost_fen - last.bound_fen, last.cost_fen)),
        None => String::new(),
    };
    format!(
        "{} open bookings, {} of lent time booked, cost {}{gap}, {} at risk",
        summary.bookings_open,
        share(summary.booked_s, summary.open_s),
        money(summary.cost_fen),
        summary.bookings_at_risk
    )
}

/// Commands to paste, while it runs. Times are the alliance's own.
pub(crate) fn invitation(endpoints: &[String], bin_dir: &Path, now_s: i64) -> String {
    let millpool = shortest(&bin_dir.join("millpool"));
    let millpool = format!("{millpool} --endpoints {}", endpoints.join(","));
    let (due, until) = (instant(now_s + 5 * DAY_S), instant(now_s + DAY_S));
    format!(
        "every order is placed; machines and optimisation go on until Ctrl-C. Try, in another terminal:\n\
         \n  {millpool} status\
         \n  {millpool} plan --until {until} --bars\
         \n  MILLPOOL_TOKEN=buyer:heron {millpool} list\
         \n  MILLPOOL_TOKEN=buyer:heron {millpool} quote --quantity 20 --material aluminium \\\
         \n      --size 200x120x60 --mass 3kg --op \"five-axis family=F1 setup=20m run=6m tol=20\" \\\
         \n      --op \"cmm family=F2 run=90s\" --due {due} --details\
         \n  MILLPOOL_TOKEN=buyer:heron {millpool} watch\n"
    )
}

/// A path relative to where we are, if it lies below.
fn shortest(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.as_deref().and_then(|here| path.strip_prefix(here).ok());
    below.unwrap_or(path).display().to_string()
}

fn latency(histogram: &Histogram<u64>) -> String {
    if histogram.is_empty() {
        return "none".to_owned();
    }
    let ms = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    format!("p50 {:.1} ms, p99 {:.1} ms, of {}, failover included", ms(0.5), ms(0.99), histogram.len())
}

/// Parts of a whole in percent.
pub(crate) fn share(part: i64, whole: i64) -> String {
    if whole <= 0 {
        return "0 %".to_owned();
    }
    format!("{:.1} %", part as f64 * 100.0 / whole as f64)
}

/// Fen as CNY with thousands apart.
fn money(fen: i64) -> String {
    let whole = (fen / 100).abs().to_string();
    let mut text = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{}{text} CNY", if fen < 0 { "-" } else { "" })
}

/// A time of the alliance, for people.
pub(crate) fn time(s: i64) -> String {
    written(s, "%a %d %b %H:%M")
}

/// A time of the alliance, as commands read it.
pub(crate) fn instant(s: i64) -> String {
    written(s, "%Y-%m-%dT%H:%M:%S%:z")
}

fn written(s: i64, form: &str) -> String {
    let at = Timestamp::from_second(s).ok().zip(TimeZone::get(TIME_ZONE).ok());
    at.map_or_else(|| s.to_string(), |(at, zone)| at.to_zoned_datetime(zone).strftime(form).to_string())
}
