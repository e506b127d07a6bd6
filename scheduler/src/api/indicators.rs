//! What machines did with their time, taken together as asked.

use super::Core;
use super::answer::refused;
use super::capacity::sees_plant;
use crate::wire::{tally as wire, unknown_enum};
use millpool_alliance::command::Caller;
use millpool_alliance::line::Station;
use millpool_alliance::registry::Role;
use millpool_alliance::tally::{Grain, Tally};
use millpool_alliance::{MachineId, Reason, Refusal, State};
use millpool_proto::v1::{self, IndicatorGrain, IndicatorGroup};
use std::collections::{BTreeMap, BTreeSet};
use tonic::Status;

/// Without a time the last days are meant.
const SPAN_S: i64 = 7 * 86_400;
/// Of fewer members that have machines, each could reckon from the alliance's figures what the others did.
const MEMBERS_MIN: usize = 3;
/// Most indicators in an answer.
const INDICATORS_MAX: usize = 20_000;

/// O(machines × shifts or days).
pub(super) async fn get_indicators(
    core: Core,
    caller: Caller,
    request: v1::GetIndicatorsRequest,
) -> Result<v1::GetIndicatorsResponse, Status> {
    let view = core.read(request.consistency).await?;
    let state = view.state.0.as_of(core.clock.now_s());
    let indicators = Asked::read(&state, &request)
        .and_then(|asked| gather(&state, &caller, &request, &asked))
        .map_err(|refusal| refused(&refusal))?;
    Ok(v1::GetIndicatorsResponse { header: Some(core.header(view.revision)), indicators })
}

struct Asked {
    group: IndicatorGroup,
    grain: IndicatorGrain,
    from: i64,
    until: i64,
    /// So coarse that it tells a member nothing of another.
    is_whole: bool,
}

impl Asked {
    fn read(state: &State, request: &v1::GetIndicatorsRequest) -> Result<Self, Refusal> {
        let group = IndicatorGroup::try_from(request.group)
            .map_err(|_| unknown_enum("group", request.group, "all, member, plant or machine"))?;
        let grain = IndicatorGrain::try_from(request.grain)
            .map_err(|_| unknown_enum("grain", request.grain, "whole, day or shift"))?;
        let from = if request.from_s == 0 { state.now() - SPAN_S } else { request.from_s };
        // The shift or day in which it lies counts whole.
        let from = state.policy().span(grain_of(grain), from.clamp(0, state.now())).0;
        let until = if request.until_s == 0 { state.now() } else { request.until_s };
        if from >= until {
            let accepted = format!("after from_s ({from})");
            return Err(Refusal::invalid(Reason::InvalidField, "until_s", until, &accepted));
        }
        let is_coarse = group == IndicatorGroup::All && grain != IndicatorGrain::Shift;
        let is_whole = is_coarse && members(state) >= MEMBERS_MIN;
        Ok(Self { group, grain, from, until, is_whole })
    }
}

/// Machines that were taken together in one stretch.
#[derive(Default)]
struct Together<'a> {
    start: i64,
    end: i64,
    machines: u32,
    /// The one that was counted last.
    last: Option<&'a MachineId>,
    tally: Tally,
}

fn gather(
    state: &State,
    caller: &Caller,
    request: &v1::GetIndicatorsRequest,
    asked: &Asked,
) -> Result<Vec<v1::Indicators>, Refusal> {
    let grain = grain_of(asked.grain);
    let mut all: BTreeMap<(&str, i64), Together> = BTreeMap::new();
    for station in
        state.stations().values().filter(|station| is_meant(state, caller, request, asked, station))
    {
        let group = group_id(state, station, asked.group);
        for (start, found) in state.tallies_of(station.id(), grain, asked.from, asked.until) {
            let stretch = if asked.grain == IndicatorGrain::Whole { 0 } else { start };
            let first = || Together { start, ..Together::default() };
            let together = all.entry((group, stretch)).or_insert_with(first);
            together.start = together.start.min(start);
            together.end = together.end.max(found.end.min(state.now()));
            together.tally += &found.tally;
            if together.last.replace(station.id()) != Some(station.id()) {
                together.machines += 1;
            }
        }
        if all.len() > INDICATORS_MAX {
            let words = "fewer than 20,000: ask by plant, by day, or for a shorter time";
            return Err(Refusal::invalid(Reason::InvalidField, "indicators (count)", all.len(), words));
        }
    }
    let shown = |((group, _), t): ((&str, i64), Together)| {
        wire::indicators(group.to_owned(), t.start, t.end, t.machines, &t.tally)
    };
    Ok(all.into_iter().map(shown).collect())
}

fn grain_of(grain: IndicatorGrain) -> Grain {
    match grain {
        IndicatorGrain::Shift => Grain::Shift,
        IndicatorGrain::Day | IndicatorGrain::Whole => Grain::Day,
    }
}

/// Members that have machines.
fn members(state: &State) -> usize {
    let plants = state.stations().values().filter_map(|station| state.plants().get(&station.machine.plant));
    plants.map(|plant| &plant.member).collect::<BTreeSet<_>>().len()
}

/// Whether a machine is asked for, by somebody who may know. The alliance as a whole is known to all its members.
fn is_meant(
    state: &State,
    caller: &Caller,
    request: &v1::GetIndicatorsRequest,
    asked: &Asked,
    station: &Station,
) -> bool {
    let plant = &station.machine.plant;
    let member = state.plants().get(plant).map(|plant| plant.member.as_str());
    let named = |filter: &str, is: Option<&str>| filter.is_empty() || is == Some(filter);
    let all =
        [&request.member_id, &request.plant_id, &request.machine_id].iter().all(|filter| filter.is_empty());
    let as_a_whole = asked.is_whole && caller.role == Role::Member && all;
    named(&request.member_id, member)
        && named(&request.plant_id, Some(plant.as_str()))
        && named(&request.machine_id, Some(station.id().as_str()))
        && (as_a_whole || sees_plant(state, caller, plant))
}

fn group_id<'a>(state: &'a State, station: &'a Station, group: IndicatorGroup) -> &'a str {
    let plant = &station.machine.plant;
    match group {
        IndicatorGroup::All => "",
        IndicatorGroup::Member => state.plants().get(plant).map_or("", |plant| plant.member.as_str()),
        IndicatorGroup::Plant => plant.as_str(),
        IndicatorGroup::Machine => station.id().as_str(),
    }
}
