//! `millpool plan`: the pool's plan as a table, as bars in the terminal, or drawn as SVG.

use super::status::optimisation;
use super::{Desk, json_of, save};
use crate::failure::Failure;
use crate::gantt::{self, Grouping};
use crate::output::{Output, Sheet, Tone};
use crate::shown;
use crate::written::{When, flag};
use clap::{Args, ValueEnum};
use millpool_proto::v1::{GetPlanRequest, GetPlanResponse, OperationState, PlanEntry};
use std::path::{Path, PathBuf};

/// Shows the plan: its figures, and who is on which machine when.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  millpool plan --machine dmu50-1
  millpool plan --until +3d --bars
  millpool plan --until +5d --svg plan.svg --group class
  millpool plan --json | jq '.summary'")]
pub struct PlanArgs {
    /// Only this machine
    #[arg(long, value_name = "MACHINE", default_value = "")]
    machine: String,
    /// Only machines of this plant
    #[arg(long, value_name = "PLANT", default_value = "")]
    plant: String,
    /// From this time on [default: now]
    #[arg(long, value_name = "TIME", value_parser = flag(When::read))]
    from: Option<When>,
    /// Up to this time [default: the end of the last assignment]
    #[arg(long, value_name = "TIME", value_parser = flag(When::read))]
    until: Option<When>,
    /// Draw it as a Gantt chart into this file ('-' for standard output)
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// How the chart groups its machines
    #[arg(long, value_enum, default_value_t = Group::Plant)]
    group: Group,
    /// Draw it as bars in the terminal
    #[arg(long, conflicts_with = "svg")]
    bars: bool,
}

/// How machines are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    Plant,
    Class,
}

/// Runs it.
pub async fn run(args: &PlanArgs, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let time = |flag: &str, when: &Option<When>| -> Result<i64, Failure> {
        let resolved = when.as_ref().map_or(Ok(0), |when| when.resolve_s(&desk.output.clock));
        Ok(resolved.map_err(|error| format!("{flag}: {error}"))?)
    };
    let (from_s, until_s) = (time("--from", &args.from)?, time("--until", &args.until)?);
    let request = GetPlanRequest {
        machine_id: args.machine.clone(),
        plant_id: args.plant.clone(),
        from_s,
        until_s,
        consistency: None,
    };
    let plan = desk.client()?.get_plan(request).await?;
    let output = &mut desk.output;
    if let Some(path) = &args.svg {
        let group = if args.group == Group::Class { Grouping::Class } else { Grouping::Plant };
        return draw(&plan, (from_s, until_s), group, path, output);
    }
    if output.json {
        return Ok(output.value(&json_of("GetPlanResponse", &plan)?)?);
    }
    figures(&plan, output)?;
    if args.bars { bars(&plan, (from_s, until_s), output) } else { table(&plan, output) }
}

fn draw(
    plan: &GetPlanResponse,
    span: (i64, i64),
    group: Grouping,
    path: &Path,
    output: &mut Output,
) -> Result<(), Failure> {
    let svg = gantt::svg(plan, span, group, &output.clock);
    let (machines, entries) = (plan.rows.len(), plan.entries.len());
    save(path, &svg, &format!("{machines} machines, {entries} assignments"), output)
}

fn figures(plan: &GetPlanResponse, output: &mut Output) -> Result<(), Failure> {
    let summary = plan.summary.unwrap_or_default();
    let risk = match summary.bookings_at_risk {
        0 => "none at risk".to_owned(),
        count => output.paint(Tone::Bad, &format!("{count} at risk")),
    };
    let heading = format!(
        "Plan at revision {}: {} open bookings, {} assignments, {risk}",
        summary.revision, summary.bookings_open, summary.assignments
    );
    output.line(heading)?;
    output.particulars(&[
        ("cost", shown::money(summary.cost_fen)),
        ("last optimisation", optimisation(&summary, output)),
        (
            "allocation",
            format!(
                "{} of open time ({} of {})",
                shown::share(summary.booked_s, summary.open_s),
                shown::duration(summary.booked_s),
                shown::duration(summary.open_s)
            ),
        ),
    ])?;
    Ok(output.line("")?)
}

fn table(plan: &GetPlanResponse, output: &mut Output) -> Result<(), Failure> {
    let mut sheet = Sheet::new(&["MACHINE", "START", "END", ">TIME", "BOOKING", ">OP", "FAMILY", "STATE"]);
    for entry in &plan.entries {
        let place = entry.assignment.clone().unwrap_or_default();
        let mine = !entry.booking_id.is_empty();
        let text = |text: String| if mine { text } else { String::new() };
        let tone = if mine { Tone::Plain } else { Tone::Faint };
        sheet.toned(vec![
            (Tone::Strong, entry.machine_id.clone()),
            (tone, shown::time(place.start_s, &output.clock)),
            (tone, shown::time(place.end_s, &output.clock)),
            (tone, shown::duration(place.end_s - place.start_s)),
            (tone, if mine { entry.booking_id.clone() } else { "busy".to_owned() }),
            (tone, text(place.operation.to_string())),
            (tone, entry.setup_family.clone()),
            (tone, text(state(entry).to_owned())),
        ]);
    }
    if sheet.is_empty() {
        return Ok(output.line("No assignments.")?);
    }
    Ok(output.sheet(&sheet)?)
}

fn state(entry: &PlanEntry) -> &'static str {
    let state = entry.assignment.as_ref().map_or(OperationState::Planned, |place| place.state());
    match state {
        OperationState::Planned if entry.frozen => "frozen",
        state => shown::operation_state(state),
    }
}

/// A bar a machine: full where it works for somebody that the caller may see, shaded where it works for
/// others, dotted where it is open, empty where it is closed.
fn bars(plan: &GetPlanResponse, span: (i64, i64), output: &mut Output) -> Result<(), Failure> {
    let (from_s, until_s) = gantt::span(plan, span, &output.clock);
    let label = plan.rows.iter().map(|row| row.machine_id.chars().count()).max().unwrap_or(0);
    let columns = usize::from(output.width.unwrap_or(100)).saturating_sub(label + 3).clamp(20, 400);
    let column_of = |s: i64| {
        let inside = i128::from(s.clamp(from_s, until_s) - from_s) * columns as i128;
        (inside / i128::from((until_s - from_s).max(1))) as usize
    };
    for row in &plan.rows {
        let mut cells = vec![' '; columns];
        let mut fill = |start_s: i64, end_s: i64, with: char| {
            let (first, last) = (column_of(start_s), column_of(end_s));
            let last = if end_s > from_s && start_s < until_s { last.max(first + 1) } else { last };
            for cell in cells.iter_mut().take(last).skip(first) {
                *cell = with;
            }
        };
        for window in &row.open {
            fill(window.start_s, window.end_s, '·');
        }
        for entry in plan.entries.iter().filter(|entry| entry.machine_id == row.machine_id) {
            let place = entry.assignment.clone().unwrap_or_default();
            fill(place.start_s, place.end_s, if entry.booking_id.is_empty() { '▒' } else { '█' });
        }
        let bar: String = cells.into_iter().collect();
        output.line(format!("{:label$}  {}", row.machine_id, bar.trim_end()))?;
    }
    let (first, last) = (shown::time(from_s, &output.clock), shown::time(until_s, &output.clock));
    let between = columns.saturating_sub(first.chars().count() + last.chars().count());
    output.line(format!("{:label$}  {first}{:between$}{last}", "", ""))?;
    Ok(output.notice("█ yours  ▒ others  · open")?)
}
