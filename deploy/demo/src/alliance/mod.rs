//! The demo alliance: who lends what, and who wants what made, drawn from one seed.
//!
//! The shape is that of the alliance that Millpool is modelled on: 23 companies within an hour of each
//! other, about 60 machines in five classes, of whose shift hours 41 % are the members' own work. The same
//! [`Blueprint`] gives the same alliance, but for the week that it is laid in.

mod buyers;
mod fleet;
mod lent;
mod orders;

pub use buyers::BUYERS;
pub use orders::{Intent, Wish, wishes};

use millpool_proto::v1::{Machine, Member, Offer, Plant, Window};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Seconds of a day.
pub const DAY_S: i64 = 86_400;
/// Setup families that every machine and every order know.
pub const FAMILIES: [&str; 6] = ["F1", "F2", "F3", "F4", "F5", "F6"];
/// Materials that orders name.
pub const MATERIALS: [&str; 5] = ["aluminium", "steel", "stainless steel", "titanium", "brass"];
/// Time zone of every plant. It has no summer time.
pub const TIME_ZONE: &str = "Asia/Shanghai";
/// How far local time is ahead of UTC there, seconds.
pub const ZONE_OFFSET_S: i64 = 8 * 3600;

/// What an alliance is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blueprint {
    /// Everything that is drawn comes from it.
    pub seed: u64,
    /// Machines over all plants; at least one for each of the 23.
    pub machines: usize,
    /// First second that is lent, seconds since the Unix epoch.
    pub start_s: i64,
    /// Days that are lent, at most 92.
    pub days: i64,
    /// Share of their shift hours that the members keep for their own work, thousandths.
    pub own_permille: u32,
}

impl Blueprint {
    /// 60 machines for two weeks, 41 % of the shift hours being the members' own work.
    pub fn demo(seed: u64, start_s: i64) -> Self {
        Self { seed, machines: 60, start_s, days: 14, own_permille: 410 }
    }

    /// First second that is no longer lent, seconds since the Unix epoch.
    pub fn end_s(&self) -> i64 {
        self.start_s + self.days * DAY_S
    }
}

/// An alliance before anybody has booked anything.
#[derive(Clone, Debug)]
pub struct Alliance {
    /// What it was made from.
    pub blueprint: Blueprint,
    /// The companies.
    pub members: Vec<Member>,
    /// Their plants, one each.
    pub plants: Vec<Plant>,
    /// The plants' machines.
    pub machines: Vec<Machine>,
    /// What is lent of each machine.
    pub offers: Vec<Offer>,
    /// The shift hours, own work included.
    pub shifts: Hours,
}

/// Machine hours before the alliance uses any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hours {
    /// Manned machine time, seconds.
    pub shift_s: i64,
    /// Thereof the members' own work, seconds.
    pub own_s: i64,
}

impl Alliance {
    /// Draws an alliance.
    pub fn new(blueprint: Blueprint) -> Self {
        let mut random = StdRng::seed_from_u64(blueprint.seed);
        let (members, plants) = companies(&mut random);
        let machines = fleet::machines(&mut random, &plants, blueprint.machines);
        let mut shifts = Hours::default();
        let mut offers = Vec::new();
        for machine in &machines {
            let (offer, hours) = lent::offer(&mut random, &blueprint, &machine.id);
            shifts.shift_s += hours.shift_s;
            shifts.own_s += hours.own_s;
            offers.push(offer);
        }
        Self { blueprint, members, plants, machines, offers, shifts }
    }

    /// Machines of a plant, by id.
    pub fn machines_of<'a>(&'a self, plant_id: &'a str) -> impl Iterator<Item = &'a Machine> {
        self.machines.iter().filter(move |machine| machine.plant_id == plant_id)
    }

    /// The time that it lends, as one window.
    pub fn span(&self) -> Window {
        Window { start_s: self.blueprint.start_s, end_s: self.blueprint.end_s() }
    }
}

/// Id and name of each member. The names are made up; no company is meant.
const COMPANIES: [(&str, &str); 23] = [
    ("alder", "Alder Precision"),
    ("aspen", "Aspen Gears"),
    ("beech", "Beech Machining"),
    ("birch", "Birch Tooling"),
    ("camphor", "Camphor Moulds"),
    ("cedar", "Cedar Aeroparts"),
    ("elm", "Elm Shafts"),
    ("fir", "Fir Instruments"),
    ("ginkgo", "Ginkgo Precision"),
    ("hazel", "Hazel Hydraulics"),
    ("juniper", "Juniper Dies"),
    ("larch", "Larch Turning"),
    ("linden", "Linden Metrology"),
    ("maple", "Maple Motors"),
    ("oak", "Oak Heavy Machining"),
    ("pine", "Pine Fixtures"),
    ("plane", "Plane Castings"),
    ("rowan", "Rowan Medical Parts"),
    ("spruce", "Spruce Grinding"),
    ("sumac", "Sumac Prototypes"),
    ("walnut", "Walnut Bearings"),
    ("willow", "Willow Robotics"),
    ("yew", "Yew Optics"),
];

/// The members, each with a plant on a plane of 80 by 60 km.
fn companies(random: &mut StdRng) -> (Vec<Member>, Vec<Plant>) {
    let members = COMPANIES.map(|(id, name)| Member { id: id.into(), name: name.into(), revision: 0 });
    let plants = COMPANIES.map(|(id, name)| Plant {
        id: id.into(),
        member_id: id.into(),
        name: format!("{name}, plant 1"),
        time_zone: TIME_ZONE.into(),
        east_m: random.random_range(0..=80_000),
        north_m: random.random_range(0..=60_000),
        grid_region: "CN-CQ".into(),
        revision: 0,
    });
    (members.into(), plants.into())
}

/// One of several by weight.
fn pick<T: Copy>(random: &mut StdRng, weighted: &[(u32, T)]) -> T {
    let total: u32 = weighted.iter().map(|(weight, _)| weight).sum();
    let mut at = random.random_range(0..total);
    for (weight, value) in weighted {
        if at < *weight {
            return *value;
        }
        at -= weight;
    }
    weighted[weighted.len() - 1].1
}

/// True in `permille` of a thousand cases.
fn happens(random: &mut StdRng, permille: u32) -> bool {
    random.random_range(0..1000) < permille
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A Monday, 06:00 in Shanghai.
    const MONDAY_S: i64 = 1_764_540_000;

    #[test]
    fn the_same_blueprint_gives_the_same_alliance() {
        let [one, two] = [7, 7].map(|seed| Alliance::new(Blueprint::demo(seed, MONDAY_S)));
        assert_eq!(one.machines, two.machines);
        assert_eq!(one.offers, two.offers);
        assert_ne!(one.machines, Alliance::new(Blueprint::demo(8, MONDAY_S)).machines);
    }

    #[test]
    fn every_plant_has_a_machine_and_ids_are_unique() {
        for machines in [60, 300] {
            let alliance = Alliance::new(Blueprint { machines, ..Blueprint::demo(1, MONDAY_S) });
            assert_eq!((alliance.members.len(), alliance.machines.len()), (23, machines));
            for plant in &alliance.plants {
                assert!(alliance.machines_of(&plant.id).next().is_some(), "{} has no machine", plant.id);
            }
            let ids: BTreeSet<_> = alliance.machines.iter().map(|machine| &machine.id).collect();
            assert_eq!(ids.len(), machines);
        }
    }

    #[test]
    fn about_two_fifths_of_the_shift_hours_are_the_members_own_work() {
        let alliance = Alliance::new(Blueprint::demo(1, MONDAY_S));
        let permille = alliance.shifts.own_s * 1000 / alliance.shifts.shift_s;
        assert!((380..=440).contains(&permille), "{permille}");
    }

    #[test]
    fn machines_and_offers_stay_within_the_contracts_limits() {
        let alliance = Alliance::new(Blueprint { days: 92, own_permille: 0, ..Blueprint::demo(3, MONDAY_S) });
        for machine in &alliance.machines {
            assert_eq!(machine.setup_rate_fen_per_hour % 60, 0);
            assert!(
                machine.changeovers.iter().all(|c| c.seconds % 60 == 0 && (900..=3000).contains(&c.seconds))
            );
        }
        let alliance = Alliance::new(Blueprint::demo(3, MONDAY_S));
        assert!(alliance.offers.iter().all(|offer| offer.except.len() <= 512));
    }
}
