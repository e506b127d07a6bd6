//! Who lends and what: members, plants, machines, principals, and the alliance's policy.

use crate::id::{MachineId, MemberId, PlantId, PrincipalId};
use crate::refusal::{Reason, Refusal, text, within};
use crate::retention::{HISTORY_KEEP_MAX_S, HISTORY_KEEP_MIN_S};
use crate::tally::{DAY_S, SHIFT_MIN_S};
use crate::window::TICK_S;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

/// Dearest rate, fen an hour.
pub const RATE_MAX_FEN_PER_HOUR: i64 = 100_000_000;
/// Most setup families in the alliance: its tables of changeovers grow with their square.
pub const SETUP_FAMILIES_MAX: usize = 128;
/// Most materials, certificates or setup families of a machine.
pub const CAPABILITIES_MAX: usize = 32;
/// Longest changeover, seconds.
pub const CHANGEOVER_MAX_S: i64 = 86_400;

/// A company of the alliance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// The name that people read.
    pub name: String,
    /// Revision of the last change.
    pub revision: u64,
}

/// A place where machines stand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plant {
    /// Its id.
    pub id: PlantId,
    /// Its owner.
    pub member: MemberId,
    /// The name that people read.
    pub name: String,
    /// IANA time zone of its shifts.
    pub time_zone: String,
    /// Metres east on the alliance's grid.
    pub east_m: i64,
    /// Metres north on the alliance's grid.
    pub north_m: i64,
    /// Region of the electricity grid.
    pub grid_region: String,
    /// Revision of the last change.
    pub revision: u64,
}

/// The kinds of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MachineClass {
    /// Lathe.
    Lathe,
    /// Three-axis mill.
    Mill,
    /// Five-axis machining centre.
    FiveAxis,
    /// Grinder.
    Grinder,
    /// Coordinate measuring machine.
    Cmm,
}

impl MachineClass {
    /// The class's name for people.
    pub fn name(self) -> &'static str {
        match self {
            MachineClass::Lathe => "lathe",
            MachineClass::Mill => "mill",
            MachineClass::FiveAxis => "five-axis",
            MachineClass::Grinder => "grinder",
            MachineClass::Cmm => "cmm",
        }
    }
}

/// Three edges, mm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    /// Along X.
    pub x_mm: u32,
    /// Along Y.
    pub y_mm: u32,
    /// Along Z.
    pub z_mm: u32,
}

impl Size {
    /// Whether a workpiece of this size can lie, turned as it likes, in `envelope`.
    pub fn fits(&self, envelope: &Size) -> bool {
        let sorted = |s: &Size| {
            let mut edges = [s.x_mm, s.y_mm, s.z_mm];
            edges.sort_unstable();
            edges
        };
        sorted(self).iter().zip(sorted(envelope)).all(|(mine, room)| *mine <= room)
    }
}

/// What a machine draws in each state, W.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PowerModel {
    /// Idle.
    pub idle_w: u32,
    /// In setup.
    pub setup_w: u32,
    /// Cutting or measuring.
    pub cutting_w: u32,
}

/// Changeover time between two families that differs from the machine's default.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Changeover {
    /// Set up before.
    pub from: String,
    /// To be set up.
    pub to: String,
    /// Time, seconds, a multiple of the tick.
    pub seconds: i64,
}

/// A machine and what it can do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    /// Its id.
    pub id: MachineId,
    /// Where it stands.
    pub plant: PlantId,
    /// The name that people read.
    pub name: String,
    /// Its class.
    pub class: MachineClass,
    /// Axes that move together.
    pub axes: u32,
    /// Work envelope.
    pub envelope: Size,
    /// Largest mass of a workpiece, g.
    pub mass_max_g: u64,
    /// Finest tolerance, µm.
    pub tolerance_um: u32,
    /// Materials that it may cut.
    pub materials: BTreeSet<String>,
    /// Certificates that it holds.
    pub certificates: BTreeSet<String>,
    /// Setup families.
    pub setup_families: BTreeSet<String>,
    /// Changeovers that differ from the default.
    pub changeovers: Vec<Changeover>,
    /// Changeover between different families, seconds.
    pub changeover_default_s: i64,
    /// What it is set up for when it enters the alliance; None makes the first changeover free.
    pub initial_family: Option<String>,
    /// Price of an hour of processing, fen.
    pub rate_fen_per_hour: i64,
    /// Price of an hour of setup, fen.
    pub setup_rate_fen_per_hour: i64,
    /// Speed against the catalogue's run time, thousandths.
    pub speed_permille: i64,
    /// Power model.
    pub power: PowerModel,
    /// Revision of the last change.
    pub revision: u64,
}

impl Machine {
    /// Changeover time from `before` (None: nothing is set up) to `family`, seconds.
    pub fn changeover_s(&self, before: Option<&str>, family: &str) -> i64 {
        match before {
            None => 0,
            Some(from) => self
                .changeovers
                .iter()
                .find(|c| c.from == from && c.to == family)
                .map_or(if from == family { 0 } else { self.changeover_default_s }, |c| c.seconds),
        }
    }

    /// The longest changeover into `family` from any family of the machine, seconds: what a quote counts.
    pub fn longest_changeover_s(&self, family: &str) -> i64 {
        // Every quote asks this of every machine: one pass, as each pair of families is named at most once.
        let named = self.changeovers.iter().filter(|c| c.to == family);
        let (longest, others) = named.fold((0, 0), |(longest, others), c| {
            (c.seconds.max(longest), others + usize::from(c.from != family))
        });
        let others_of_machine = self.setup_families.len() - usize::from(self.setup_families.contains(family));
        if others < others_of_machine { longest.max(self.changeover_default_s) } else { longest }
    }

    /// Refuses what no machine can be, naming field, value and what is accepted.
    pub fn check(&self) -> Result<(), Refusal> {
        text("machine.name", &self.name, 1, 100)?;
        within("machine.axes", self.axes.into(), 2, 9)?;
        for (field, edge) in [
            ("machine.envelope.x_mm", self.envelope.x_mm),
            ("machine.envelope.y_mm", self.envelope.y_mm),
            ("machine.envelope.z_mm", self.envelope.z_mm),
        ] {
            within(field, edge.into(), 1, 100_000)?;
        }
        within("machine.mass_max_g", i64::try_from(self.mass_max_g).unwrap_or(i64::MAX), 1, 1_000_000_000)?;
        within("machine.tolerance_um", self.tolerance_um.into(), 1, 100_000)?;
        for (field, names, least) in [
            ("machine.materials", &self.materials, 1),
            ("machine.certificates", &self.certificates, 0),
            ("machine.setup_families", &self.setup_families, 1),
        ] {
            within(&format!("{field} (count)"), names.len() as i64, least, CAPABILITIES_MAX as i64)?;
            names.iter().try_for_each(|name| text(field, name, 1, 40))?;
        }
        within("machine.rate_fen_per_hour", self.rate_fen_per_hour, 0, RATE_MAX_FEN_PER_HOUR)?;
        within("machine.setup_rate_fen_per_hour", self.setup_rate_fen_per_hour, 0, RATE_MAX_FEN_PER_HOUR)?;
        if self.setup_rate_fen_per_hour % 60 != 0 {
            return Err(Refusal::invalid(
                Reason::InvalidField,
                "machine.setup_rate_fen_per_hour",
                self.setup_rate_fen_per_hour,
                "a multiple of 60, so that a minute costs whole fen",
            ));
        }
        within("machine.speed_permille", self.speed_permille, 100, 10_000)?;
        for (field, watts) in [
            ("machine.power.idle_w", self.power.idle_w),
            ("machine.power.setup_w", self.power.setup_w),
            ("machine.power.cutting_w", self.power.cutting_w),
        ] {
            within(field, watts.into(), 0, 1_000_000)?;
        }
        self.check_changeovers()
    }

    fn check_changeovers(&self) -> Result<(), Refusal> {
        let known = |field: &str, family: &str| {
            if self.setup_families.contains(family) {
                return Ok(());
            }
            let families: Vec<&str> = self.setup_families.iter().map(String::as_str).collect();
            Err(Refusal::invalid(Reason::InvalidField, field, family, &families.join(", ")))
        };
        if let Some(family) = &self.initial_family {
            known("machine.initial_family", family)?;
        }
        let mut seen = BTreeSet::new();
        for c in &self.changeovers {
            known("machine.changeovers.from", &c.from)?;
            known("machine.changeovers.to", &c.to)?;
            whole_ticks("machine.changeovers.seconds", c.seconds)?;
            if !seen.insert((&c.from, &c.to)) {
                return Err(Refusal::invalid(
                    Reason::InvalidField,
                    "machine.changeovers",
                    format!("{} to {} twice", c.from, c.to),
                    "each pair of families once",
                ));
            }
        }
        whole_ticks("machine.changeover_default_s", self.changeover_default_s)
    }
}

fn whole_ticks(field: &str, seconds: i64) -> Result<(), Refusal> {
    if (0..=CHANGEOVER_MAX_S).contains(&seconds) && seconds % TICK_S == 0 {
        return Ok(());
    }
    Err(Refusal::invalid(
        Reason::InvalidField,
        field,
        seconds,
        &format!("a multiple of {TICK_S} from 0 to {CHANGEOVER_MAX_S}"),
    ))
}

/// What a principal may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Books and follows its own bookings.
    Buyer,
    /// Lends machines, and sees the work on them.
    Member,
    /// A plant's agent.
    Agent,
    /// Runs the alliance.
    Operator,
    /// Reads everything, changes nothing.
    Auditor,
}

/// Somebody who may call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// Its id: a buyer's, a member's, or an agent's plant's.
    pub id: PrincipalId,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of its bearer token.
    pub token_sha256: [u8; 32],
    /// When the token expires, seconds since the Unix epoch.
    pub expires_at: i64,
    /// Its access was taken away.
    pub revoked: bool,
}

/// An emission factor of an electricity grid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GridFactor {
    /// Region.
    pub region: String,
    /// Year of the record.
    pub year: u32,
    /// mg CO2e per kWh.
    pub mg_per_kwh: u32,
    /// What is averaged.
    pub basis: String,
    /// Where the figure comes from.
    pub source: String,
}

/// How transport is reckoned from distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransportTariff {
    /// Seconds for any trip.
    pub base_s: i64,
    /// Seconds per km.
    pub s_per_km: i64,
    /// Fen for any trip.
    pub base_fen: i64,
    /// Fen per km.
    pub fen_per_km: i64,
    /// g CO2e per km.
    pub g_per_km: i64,
}

/// The rules that the alliance has given itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Assignments that start within this time are frozen, seconds.
    pub freeze_s: i64,
    /// New work starts no sooner than this, seconds.
    pub lead_s: i64,
    /// A promise allows this much after the planned completion, seconds.
    pub promise_slack_s: i64,
    /// A quote is good for this long, seconds.
    pub quote_valid_s: i64,
    /// What a late minute costs the plan, fen.
    pub tardiness_fen_per_minute: i64,
    /// Transport.
    pub transport: TransportTariff,
    /// Grid factors.
    pub grid_factors: Vec<GridFactor>,
    /// Request ids are remembered for this long, seconds.
    pub request_id_keep_s: i64,
    /// Most holds of a buyer at once.
    pub holds_max_per_buyer: i64,
    /// Revision of the last change.
    pub revision: u64,
    /// What is over is known for this long, seconds; 0: as long as there is room ([`crate::retention`]). From format 3 on.
    pub history_keep_s: i64,
    /// When the alliance's day begins, seconds after midnight UTC ([`crate::tally`]). From format 5 on.
    pub day_start_s: i64,
    /// Length of a shift, seconds, the first of which begins with the day; 0: [`crate::tally::SHIFT_S`]. From format 5 on.
    pub shift_s: i64,
}

/// What former formats did not have adds nothing to the hash where it is not set, so that versions agree.
impl Hash for Policy {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Policy {
            freeze_s,
            lead_s,
            promise_slack_s,
            quote_valid_s,
            tardiness_fen_per_minute,
            transport,
            grid_factors,
            request_id_keep_s,
            holds_max_per_buyer,
            revision,
            history_keep_s,
            day_start_s,
            shift_s,
        } = self;
        (freeze_s, lead_s, promise_slack_s, quote_valid_s, tardiness_fen_per_minute).hash(hasher);
        (transport, grid_factors, request_id_keep_s, holds_max_per_buyer, revision).hash(hasher);
        if *history_keep_s != 0 {
            history_keep_s.hash(hasher);
        }
        if (*day_start_s, *shift_s) != (0, 0) {
            (day_start_s, shift_s).hash(hasher);
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        let factor = |year, mg_per_kwh| GridFactor {
            region: "CN-CQ".into(),
            year,
            mg_per_kwh,
            basis: "provincial average".into(),
            source: "Ministry of Ecology and Environment / National Bureau of Statistics".into(),
        };
        Policy {
            freeze_s: 2 * 3600,
            lead_s: 1800,
            promise_slack_s: 4 * 3600,
            quote_valid_s: 600,
            tardiness_fen_per_minute: 50,
            transport: TransportTariff {
                base_s: 1800,
                s_per_km: 90,
                base_fen: 3000,
                fen_per_km: 350,
                g_per_km: 250,
            },
            grid_factors: vec![factor(2021, 474_300), factor(2022, 522_700)],
            request_id_keep_s: 24 * 3600,
            holds_max_per_buyer: 20,
            revision: 0,
            history_keep_s: 0,
            day_start_s: 0,
            shift_s: 0,
        }
    }
}

impl Policy {
    /// The grid factor of `region`: the latest year's.
    pub fn grid_factor(&self, region: &str) -> Option<&GridFactor> {
        self.grid_factors.iter().filter(|f| f.region == region).max_by_key(|f| f.year)
    }

    /// Refuses a policy that cannot be.
    pub fn check(&self) -> Result<(), Refusal> {
        const MONTH_S: i64 = 31 * 86_400;
        for (field, value, most) in [
            ("policy.freeze_s", self.freeze_s, MONTH_S),
            ("policy.lead_s", self.lead_s, MONTH_S),
            ("policy.promise_slack_s", self.promise_slack_s, MONTH_S),
            ("policy.quote_valid_s", self.quote_valid_s, MONTH_S),
            ("policy.tardiness_fen_per_minute", self.tardiness_fen_per_minute, 1_000_000),
            ("policy.transport.base_s", self.transport.base_s, MONTH_S),
            ("policy.transport.s_per_km", self.transport.s_per_km, 3600),
            ("policy.transport.base_fen", self.transport.base_fen, 100_000_000),
            ("policy.transport.fen_per_km", self.transport.fen_per_km, 1_000_000),
            ("policy.transport.g_per_km", self.transport.g_per_km, 1_000_000),
            ("policy.holds_max_per_buyer", self.holds_max_per_buyer, 10_000),
        ] {
            within(field, value, 0, most)?;
        }
        within("policy.request_id_keep_s", self.request_id_keep_s, 60, MONTH_S)?;
        if self.history_keep_s != 0
            && !(HISTORY_KEEP_MIN_S..=HISTORY_KEEP_MAX_S).contains(&self.history_keep_s)
        {
            let accepted = format!("0, or {HISTORY_KEEP_MIN_S} to {HISTORY_KEEP_MAX_S}");
            let (field, value) = ("policy.history_keep_s", self.history_keep_s);
            return Err(Refusal::invalid(Reason::InvalidField, field, value, &accepted));
        }
        if !(0..DAY_S).contains(&self.day_start_s) || self.day_start_s % TICK_S != 0 {
            let accepted = format!("whole minutes, 0 to {}", DAY_S - TICK_S);
            let (field, value) = ("policy.day_start_s", self.day_start_s);
            return Err(Refusal::invalid(Reason::InvalidField, field, value, &accepted));
        }
        let shift_s = self.shift_s;
        if shift_s != 0 && (!(SHIFT_MIN_S..=DAY_S).contains(&shift_s) || DAY_S % shift_s != 0) {
            let accepted = format!("0, or {SHIFT_MIN_S} to {DAY_S} of which a day is a multiple");
            return Err(Refusal::invalid(Reason::InvalidField, "policy.shift_s", shift_s, &accepted));
        }
        within("policy.grid_factors (count)", self.grid_factors.len() as i64, 0, 256)?;
        for f in &self.grid_factors {
            text("policy.grid_factors.region", &f.region, 1, 40)?;
            text("policy.grid_factors.basis", &f.basis, 0, 200)?;
            text("policy.grid_factors.source", &f.source, 1, 200)?;
            within("policy.grid_factors.year", f.year.into(), 1990, 2200)?;
            within("policy.grid_factors.mg_per_kwh", f.mg_per_kwh.into(), 0, 5_000_000)?;
        }
        Ok(())
    }
}
