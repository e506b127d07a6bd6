//! What machine time is worth, by class of machines and day: the prices behind the bound, in a form that people read.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter, Result};

use crate::explain::text::{DAY, Money};
use crate::{Fen, Instance, Tick};

/// Days that stand beside one another where prices are printed.
const DAYS_A_ROW: usize = 7;

/// What an hour of machine time is worth at the margin, by class of machines and day.
///
/// They are the dual prices of the relaxation that the bound comes from (multipliers of machine time, Lagrangian
/// relaxation), each the mean over the hours that a class offers on a day: near them, an hour more would save about
/// as much, and an hour less would cost as much. Where a class has hours to spare it is nothing. They are as good as
/// the bound: far from its best they are rough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    /// By class, in the order of their names. Empty where nothing was priced: a flexible job shop, or no time.
    pub classes: Vec<ClassPrices>,
}

/// The prices of one class of machines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassPrices {
    /// The class, as the machines have it.
    pub class: String,
    /// By day from the first: fen an hour, or what the objective is in; `None` where no machine of it is open.
    pub hourly: Vec<Option<Fen>>,
}

impl Prices {
    /// From what machines offer: machine, tick, how many ticks there, and the price of each.
    pub(crate) fn new(instance: &Instance, offers: impl Iterator<Item = (usize, Tick, f64, f64)>) -> Prices {
        let day = |tick: Tick| (tick * instance.tick_seconds / DAY) as usize;
        let days = day((instance.horizon - 1).max(0)) + 1;
        let mut sums: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for (machine, tick, ticks, price) in offers.filter(|offer| offer.2 > 0.0) {
            let class = instance.shop.machines[machine].class.as_str();
            let sum = &mut sums.entry(class).or_insert_with(|| vec![(0.0, 0.0); days])[day(tick)];
            *sum = (sum.0 + ticks, sum.1 + ticks * price);
        }
        let an_hour = 3600.0 / instance.tick_seconds as f64;
        let hourly =
            |&(ticks, worth): &(f64, f64)| (ticks > 0.0).then(|| (worth / ticks * an_hour).round() as Fen);
        let of_class = |(class, sums): (&str, Vec<(f64, f64)>)| ClassPrices {
            class: class.to_owned(),
            hourly: sums.iter().map(hourly).collect(),
        };
        Prices { classes: sums.into_iter().map(of_class).collect() }
    }

    /// Those of some classes alone.
    pub fn of(&self, class: impl Fn(&str) -> bool) -> Prices {
        Prices { classes: self.classes.iter().filter(|c| class(&c.class)).cloned().collect() }
    }
}

/// A table: a row a class, a column a day, a week beside one another.
impl Display for Prices {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let width = self.classes.iter().map(|c| c.class.len()).max().unwrap_or(0).max("day".len());
        let days = self.classes.iter().map(|c| c.hourly.len()).max().unwrap_or(0);
        for first in (0..days).step_by(DAYS_A_ROW) {
            let row = first..(first + DAYS_A_ROW).min(days);
            write!(f, "{:width$}", "day")?;
            row.clone().try_for_each(|day| write!(f, " {:>10}", day + 1))?;
            writeln!(f)?;
            for ClassPrices { class, hourly } in &self.classes {
                write!(f, "{class:width$}")?;
                for day in row.clone() {
                    let told =
                        hourly.get(day).copied().flatten().map_or("-".into(), |fen| Money(fen).number());
                    write!(f, " {told:>10}")?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Options, read_instance, solve};

    /// Twenty jobs of an hour want one machine that has ten, and leaving out the n-th costs n x 1000 fen; another
    /// class has an hour of work for all day.
    #[test]
    fn an_hour_is_worth_what_the_next_job_would_save() {
        let job = |id: usize, machine: usize, out: i64| {
            format!(
                r#"{{"id": "J{id}", "release": 0, "due": 1440, "deadline": null, "tardiness_weight": 0,
                    "rejection_cost": {out}, "ops": [{{"family": 0, "splittable": false, "modes":
                    [{{"machine": {machine}, "duration": 60, "cost": 0}}], "fixed": null}}]}}"#
            )
        };
        let jobs: Vec<String> =
            (1..=20).map(|n| job(n, 0, 1000 * n as i64)).chain([job(21, 1, 5000)]).collect();
        let machine = |id: &str, class: &str, open: &str| {
            format!(
                r#"{{"id": "{id}", "class": "{class}", "plant": 0, "open": {open}, "setup_cost_per_tick": 0,
                    "initial_family": 0}}"#
            )
        };
        let text = format!(
            r#"{{"format": "alliance-instance/1", "name": "prices", "tick_seconds": 60, "horizon": 2880,
                "plants": ["P"], "transport": [[0]], "transport_cost": [[0]], "setup": [[0]],
                "machines": [{}, {}], "jobs": [{}]}}"#,
            machine("M1", "mill", "[[0, 600]]"),
            machine("M2", "lathe", "[[0, 1440], [1500, 2880]]"),
            jobs.join(", ")
        );
        let instance = read_instance("prices", &text).unwrap();
        for threads in [1, 2] {
            let time_limit = Duration::from_secs(3600);
            let options = Options { iterations: Some(100_000), time_limit, threads, ..Options::default() };
            let solution = solve(&instance, &options, |_| ()).unwrap();
            assert_eq!(solution.cost, 55_000);
            let [lathe, mill] = &solution.prices.classes[..] else { panic!("{:?}", solution.prices) };
            assert_eq!((lathe.class.as_str(), mill.class.as_str()), ("lathe", "mill"));
            assert_eq!(lathe.hourly, [Some(0), Some(0)]);
            let [Some(scarce), None] = mill.hourly[..] else { panic!("{mill:?}") };
            // The dual may be anything between the tenth and the eleventh; the steps come within a fifth of it.
            assert!((8_000..=13_200).contains(&scarce), "threads {threads}: {scarce} fen an hour");
        }
    }

    #[test]
    fn a_week_stands_in_a_row() {
        let hourly = (0..9).map(|day| (day != 1).then_some(12_345 * day)).collect();
        let prices = Prices { classes: vec![ClassPrices { class: "mill".into(), hourly }] };
        assert_eq!(
            prices.to_string(),
            "day           1          2          3          4          5          6          7\n\
             mill       0.00          -     246.90     370.35     493.80     617.25     740.70\n\
             day           8          9\n\
             mill     864.15     987.60\n"
        );
        assert_eq!(prices.of(|class| class == "lathe").to_string(), "");
    }
}
