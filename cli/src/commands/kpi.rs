//! `millpool kpi`: what machines did with their time, as a table, and as CSV for who reckons on.

use super::{Desk, json_of, save};
use crate::failure::Failure;
use crate::output::{Output, Sheet, Tone};
use crate::shown;
use crate::spent;
use crate::written::{self, When, flag};
use clap::{Args, ValueEnum};
use millpool_proto::v1::{
    GetIndicatorsRequest, IndicatorGrain, IndicatorGroup, Indicators, MachineState, StateTime,
};
use std::path::PathBuf;

/// Shows what machines did with their time: the indicators of ISO 22400-2.
#[derive(Args, Debug)]
#[command(after_help = "\
allocation      with an operation in hand, of the time lent less maintenance (AUBT / PBT)
utilisation     producing, of the time with an operation in hand (APT / AUBT)
availability    producing, of the time lent less maintenance (APT / PBT)
effectiveness   what the pieces made should have run, of the time producing (PRI x PQ / APT)
quality         good pieces of those made (GQ / PQ)
OEE             availability x effectiveness x quality
setup           setting up, of setting up and producing (AUST / (APT + AUST))
unknown         of the time lent, what nobody knows; it counts as neither production nor setup

Days and shifts are the alliance's, as its policy says, and count whole where one begins or ends in the time
asked for. An operation in hand outside of the time lent is in no share.
Energy is of operations that ended: measured at the machine, else from its power model.

Examples:
  millpool kpi
  millpool kpi --by plant --last 30d
  millpool kpi --machine dmu50-1 --each shift --last 2d
  millpool kpi --by machine --last 30d --svg month.svg
  millpool kpi --by machine --each day --from 2026-11-01T00:00 --until 2026-12-01T00:00 --csv > november.csv")]
pub struct KpiArgs {
    /// Only this member's machines
    #[arg(long, value_name = "MEMBER", default_value = "")]
    member: String,
    /// Only machines of this plant
    #[arg(long, value_name = "PLANT", default_value = "")]
    plant: String,
    /// Only this machine
    #[arg(long, value_name = "MACHINE", default_value = "")]
    machine: String,
    /// A row for each of these; without, one for all
    #[arg(long, value_enum, value_name = "GROUP")]
    by: Option<By>,
    /// A row for each of these; without, one for the whole time
    #[arg(long, value_enum, value_name = "GRAIN")]
    each: Option<Each>,
    /// The last of the time, up to now
    #[arg(long, value_name = "DURATION", value_parser = flag(written::duration_s), default_value = "7d", conflicts_with_all = ["from", "until"])]
    last: u32,
    /// From this time on
    #[arg(long, value_name = "TIME", value_parser = flag(When::read))]
    from: Option<When>,
    /// Up to this time [default: now]
    #[arg(long, value_name = "TIME", value_parser = flag(When::read), requires = "from")]
    until: Option<When>,
    /// As CSV: seconds, pieces, Wh and g, times in seconds since the Unix epoch
    #[arg(long)]
    csv: bool,
    /// Draw the time lent by what the machines did in it, a bar for each row, into this file ('-' for standard output)
    #[arg(long, value_name = "FILE", conflicts_with = "csv")]
    svg: Option<PathBuf>,
}

/// By what rows are taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Member,
    Plant,
    Machine,
}

/// In which stretches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Each {
    Day,
    Shift,
}

/// Runs it.
pub async fn run(args: &KpiArgs, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let request = request(args, desk)?;
    let answer = desk.client()?.get_indicators(request).await?;
    let output = &mut desk.output;
    if args.csv {
        return csv(&answer.indicators, output);
    }
    if let (Some(path), false) = (&args.svg, answer.indicators.is_empty()) {
        let drawn = spent::svg(&answer.indicators, args.by.is_some(), &output.clock);
        return save(path, &drawn, &format!("{} rows", answer.indicators.len()), output);
    }
    if output.json {
        return Ok(output.value(&json_of("GetIndicatorsResponse", &answer)?)?);
    }
    match (answer.indicators.as_slice(), args.by, args.each) {
        ([], ..) => Ok(output.line("Nothing is known of that time.")?),
        ([whole], None, None) => particulars(whole, output),
        (rows, ..) => table(rows, args, output),
    }
}

fn request(args: &KpiArgs, desk: &Desk<'_>) -> Result<GetIndicatorsRequest, Failure> {
    let clock = &desk.output.clock;
    let time = |flag: &str, when: &When| when.resolve_s(clock).map_err(|error| format!("{flag}: {error}"));
    let from_s = match &args.from {
        Some(from) => time("--from", from)?,
        None => clock.now_s() - i64::from(args.last),
    };
    Ok(GetIndicatorsRequest {
        member_id: args.member.clone(),
        plant_id: args.plant.clone(),
        machine_id: args.machine.clone(),
        group: match args.by {
            None => IndicatorGroup::All,
            Some(By::Member) => IndicatorGroup::Member,
            Some(By::Plant) => IndicatorGroup::Plant,
            Some(By::Machine) => IndicatorGroup::Machine,
        }
        .into(),
        grain: match args.each {
            None => IndicatorGrain::Whole,
            Some(Each::Day) => IndicatorGrain::Day,
            Some(Each::Shift) => IndicatorGrain::Shift,
        }
        .into(),
        from_s,
        until_s: args.until.as_ref().map_or(Ok(0), |until| time("--until", until))?,
        consistency: None,
    })
}

/// One row, with what it is made of.
fn particulars(i: &Indicators, output: &mut Output) -> Result<(), Failure> {
    let span = format!(
        "{} machines from {} to {}",
        i.machines,
        shown::time(i.start_s, &output.clock),
        shown::time(i.end_s, &output.clock)
    );
    output.line(output.paint(Tone::Strong, &span))?;
    let of = |what: &str, part: i64, name: &str, whole: i64| {
        format!(
            "{:>7}  {what} {}, {name} {}",
            shown::share(part, whole),
            shown::duration(part),
            shown::duration(whole)
        )
    };
    let made = i.pieces_good + i.pieces_scrapped;
    output.particulars(&[
        ("allocation", of("in hand", i.busy_s, "lent", i.planned_busy_s)),
        ("utilisation", of("producing", i.production_s, "in hand", i.busy_s)),
        ("availability", of("producing", i.production_s, "lent", i.planned_busy_s)),
        ("effectiveness", of("should have run", i.run_planned_s, "producing", i.production_s)),
        ("quality", format!("{:>7}  {} good of {made}", shown::share(i.pieces_good, made), i.pieces_good)),
        ("OEE", format!("{:>7}", shown::ratio(i.oee))),
        ("setup", of("setting up", i.setup_s, "with producing", i.setup_s + i.production_s)),
        ("unknown", of("unknown", i.unknown_s, "lent", i.planned_busy_s)),
        ("besides", format!("{:>7}  in hand while not lent, in no share", shown::duration(i.busy_besides_s))),
        ("energy", energy(i)),
        ("emissions", shown::carbon(i.carbon_g)),
    ])?;
    output.line("")?;
    let mut sheet = Sheet::new(&["STATE", ">TIME", ">SHARE", ">LENT", ">IN HAND"]);
    let all: i64 = i.states.iter().map(|state| state.seconds).sum();
    for state in &i.states {
        sheet.row([
            shown::machine_state(state.state()).to_owned(),
            shown::duration(state.seconds),
            shown::share(state.seconds, all),
            shown::duration(state.lent_s),
            shown::duration(state.in_hand_s),
        ]);
    }
    Ok(output.sheet(&sheet)?)
}

fn energy(i: &Indicators) -> String {
    let wh = |wh: i64| shown::energy(wh.unsigned_abs());
    format!(
        "{} ({} measured, {} modelled)",
        wh(i.energy_measured_wh + i.energy_modelled_wh),
        wh(i.energy_measured_wh),
        wh(i.energy_modelled_wh)
    )
}

fn table(rows: &[Indicators], args: &KpiArgs, output: &mut Output) -> Result<(), Failure> {
    let group = args.by.map(|by| match by {
        By::Member => "MEMBER",
        By::Plant => "PLANT",
        By::Machine => "MACHINE",
    });
    let stretch = args.each.map(|each| match each {
        Each::Day => "DAY FROM",
        Each::Shift => "SHIFT FROM",
    });
    let figures = [
        ">ALLOCATION",
        ">UTILISATION",
        ">AVAILABILITY",
        ">EFFECTIVENESS",
        ">QUALITY",
        ">OEE",
        ">SETUP",
        ">UNKNOWN",
        ">ENERGY",
        ">MEASURED",
        ">EMISSIONS",
    ];
    let columns: Vec<_> = group.into_iter().chain(stretch).chain(figures).collect();
    let mut sheet = Sheet::new(&columns);
    for i in rows {
        let energy_wh = i.energy_measured_wh + i.energy_modelled_wh;
        let named = args.by.map(|_| (Tone::Strong, i.group_id.clone()));
        let begun = args.each.map(|_| (Tone::Plain, shown::time(i.start_s, &output.clock)));
        let shares =
            [i.allocation, i.utilisation, i.availability, i.effectiveness, i.quality, i.oee, i.setup_ratio];
        let figures = shares.map(shown::ratio).into_iter().chain([
            shown::share(i.unknown_s, i.planned_busy_s),
            shown::energy(energy_wh.unsigned_abs()),
            shown::share(i.energy_measured_wh, energy_wh),
            shown::carbon(i.carbon_g),
        ]);
        let figures = figures.map(|figure| (Tone::Plain, figure));
        sheet.toned(named.into_iter().chain(begun).chain(figures).collect());
    }
    Ok(output.sheet(&sheet)?)
}

/// The states' columns.
const STATES: [MachineState; 8] = [
    MachineState::Unknown,
    MachineState::Off,
    MachineState::Idle,
    MachineState::Setup,
    MachineState::Producing,
    MachineState::Held,
    MachineState::Blocked,
    MachineState::Maintenance,
];

/// Numbers as they came; ids hold nothing that would need quotes.
fn csv(rows: &[Indicators], output: &mut Output) -> Result<(), Failure> {
    let states = STATES.map(|state| format!("state_{}_s", shown::machine_state(state)));
    output.line(format!(
        "group_id,start_s,end_s,machines,planned_busy_s,busy_s,production_s,setup_s,lent_unknown_s,busy_besides_s,{},\
        pieces_good,pieces_scrapped,run_planned_s,energy_measured_wh,energy_modelled_wh,carbon_g,\
        allocation,utilisation,availability,effectiveness,quality,oee,setup_ratio",
        states.join(",")
    ))?;
    for i in rows {
        let in_state = |state: MachineState| {
            let of = |time: &&StateTime| time.state() == state;
            i.states.iter().find(of).map_or(0, |time| time.seconds)
        };
        let whole = [
            i.start_s,
            i.end_s,
            i.machines.into(),
            i.planned_busy_s,
            i.busy_s,
            i.production_s,
            i.setup_s,
            i.unknown_s,
            i.busy_besides_s,
        ];
        let output_figures = [
            i.pieces_good,
            i.pieces_scrapped,
            i.run_planned_s,
            i.energy_measured_wh,
            i.energy_modelled_wh,
            i.carbon_g,
        ];
        let numbers = whole.into_iter().chain(STATES.map(in_state)).chain(output_figures);
        let shares =
            [i.allocation, i.utilisation, i.availability, i.effectiveness, i.quality, i.oee, i.setup_ratio];
        let shares = shares.map(|share| share.map_or_else(String::new, |share| format!("{share:.6}")));
        let cells: Vec<_> =
            [i.group_id.clone()].into_iter().chain(numbers.map(|n| n.to_string())).chain(shares).collect();
        output.line(cells.join(","))?;
    }
    Ok(())
}
