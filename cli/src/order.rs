//! An order from flags, from a file, or from a file with flags that change it.

use crate::failure::Failure;
use crate::json;
use crate::written::{self, Clock, When, flag};
use clap::Args;
use millpool_proto::v1::{Operation, Order, Size};
use std::path::PathBuf;

/// What a buyer wants made, as flags.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Order")]
pub struct OrderArgs {
    /// Order as a JSON or TOML file ('-' reads JSON from standard input); the flags below change it
    #[arg(long, value_name = "FILE")]
    pub order: Option<PathBuf>,
    /// Your own reference, for people
    #[arg(long, value_name = "TEXT")]
    pub reference: Option<String>,
    /// Pieces
    #[arg(long, value_name = "N")]
    pub quantity: Option<u32>,
    /// Material, e.g. aluminium
    #[arg(long, value_name = "NAME")]
    pub material: Option<String>,
    /// Outer size of the raw workpiece, mm, e.g. 200x120x60
    #[arg(long, value_name = "XxYxZ", value_parser = flag(written::workpiece))]
    pub size: Option<Size>,
    /// Mass of the raw workpiece, e.g. 3kg, 800g
    #[arg(long, value_name = "MASS", value_parser = flag(written::mass_g))]
    pub mass: Option<u64>,
    /// One step of the route, repeated in sequence: a class, then family=F1 run=6m (time of one piece),
    /// and as needed setup=20m tol=20 (µm) axes=5 cert=AS9100 splittable
    #[arg(long = "op", value_name = "STEP", value_parser = operation)]
    pub operations: Vec<Operation>,
    /// Earliest start [default: now]
    #[arg(long, value_name = "TIME", value_parser = flag(When::read))]
    pub release: Option<When>,
    /// Wanted by: +5d, 'fri 17:00', 2026-11-28. Later is possible, but costs the plan
    #[arg(long, value_name = "TIME", value_parser = flag(When::read))]
    pub due: Option<When>,
    /// No use later than this
    #[arg(long, value_name = "TIME", value_parser = flag(When::read))]
    pub deadline: Option<When>,
    /// Most that it may cost, CNY
    #[arg(long, value_name = "MONEY", value_parser = flag(written::money_fen))]
    pub budget: Option<i64>,
    /// A plant that shall not see or make it; repeat for more
    #[arg(long, value_name = "PLANT")]
    pub exclude: Vec<String>,
}

impl OrderArgs {
    /// Whether anything at all was said about an order.
    pub fn is_given(&self) -> bool {
        self.order.is_some() || self.quantity.is_some() || !self.operations.is_empty()
    }

    /// The order.
    pub fn read(&self, clock: &Clock) -> Result<Order, Failure> {
        let mut order = match &self.order {
            Some(path) => json::read("Order", json::file(path)?, clock)
                .map_err(|told| format!("--order {}: {told}", path.display()))?,
            None => self.complete()?,
        };
        self.change(&mut order, clock)?;
        Ok(order)
    }

    /// An empty order, where the flags say all that an order needs.
    fn complete(&self) -> Result<Order, Failure> {
        let missing: Vec<&str> = [
            ("--quantity", self.quantity.is_none()),
            ("--material", self.material.is_none()),
            ("--size", self.size.is_none()),
            ("--mass", self.mass.is_none()),
            ("--op", self.operations.is_empty()),
            ("--due", self.due.is_none()),
        ]
        .into_iter()
        .filter_map(|(flag, missing)| missing.then_some(flag))
        .collect();
        if missing.is_empty() {
            return Ok(Order::default());
        }
        Err(Failure::Usage(format!(
            "the order lacks {}; say them, or name a file with --order\n\
             For example: --quantity 20 --material aluminium --size 200x120x60 --mass 3kg \
             --op \"five-axis family=F1 setup=20m run=6m tol=20\" --due +5d",
            missing.join(", ")
        )))
    }

    fn change(&self, order: &mut Order, clock: &Clock) -> Result<(), Failure> {
        let time = |flag: &str, when: &Option<When>| -> Result<Option<i64>, Failure> {
            let resolved = when.as_ref().map(|when| when.resolve_s(clock)).transpose();
            Ok(resolved.map_err(|error| format!("{flag}: {error}"))?)
        };
        fn set<T>(to: &mut T, from: Option<T>) {
            if let Some(from) = from {
                *to = from;
            }
        }
        set(&mut order.reference, self.reference.clone());
        set(&mut order.quantity, self.quantity);
        set(&mut order.material, self.material.clone());
        set(&mut order.size, self.size.map(Some));
        set(&mut order.mass_g, self.mass);
        set(&mut order.route, Some(self.operations.clone()).filter(|route| !route.is_empty()));
        set(&mut order.release_s, time("--release", &self.release)?);
        set(&mut order.due_s, time("--due", &self.due)?);
        set(&mut order.deadline_s, time("--deadline", &self.deadline)?);
        set(&mut order.budget_fen, self.budget);
        set(&mut order.excluded_plants, Some(self.exclude.clone()).filter(|plants| !plants.is_empty()));
        Ok(())
    }
}

/// What a step of a route may look like.
const STEP: &str = "a class and then key=value, e.g. \"five-axis family=F1 setup=20m run=6m tol=20\"";

/// One step of a route.
pub fn operation(text: &str) -> Result<Operation, String> {
    let mut words = text.split_whitespace();
    let class = words.next().ok_or_else(|| format!("accepted is {STEP}"))?;
    let class = written::class(class).map_err(|classes| format!("'{class}' is not {classes}"))?;
    let mut step = Operation { class: class.into(), ..Operation::default() };
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let bad = |accepted: String| format!("{key} '{value}' is not {accepted}");
        match key {
            "family" => step.setup_family = value.to_owned(),
            "setup" => step.setup_s = written::duration_s(value).map_err(bad)?,
            "run" => step.run_s_per_piece = written::duration_s(value).map_err(bad)?,
            "tol" | "tolerance" => step.tolerance_um = written::tolerance_um(value).map_err(bad)?,
            "axes" => {
                step.axes_min = value.parse().map_err(|_| bad("a number of axes, 2 to 9".to_owned()))?
            }
            "cert" => step.certificates.extend(value.split(',').map(str::to_owned)),
            "splittable" if value.is_empty() => step.splittable = true,
            _ => {
                return Err(format!(
                    "'{word}' is not family=, setup=, run=, tol=, axes=, cert= or splittable"
                ));
            }
        }
    }
    let missing: Vec<&str> = [("family=", step.setup_family.is_empty()), ("run=", step.run_s_per_piece == 0)]
        .into_iter()
        .filter_map(|(key, missing)| missing.then_some(key))
        .collect();
    if missing.is_empty() {
        Ok(step)
    } else {
        Err(format!("{} missing; accepted is {STEP}", missing.join(" and ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpool_proto::v1::MachineClass;

    #[test]
    fn steps_of_a_route() {
        let step =
            operation("five-axis family=F1 setup=20m run=6m tol=20 axes=5 cert=AS9100,ISO9001 splittable");
        let expected = Operation {
            class: MachineClass::FiveAxis.into(),
            axes_min: 5,
            tolerance_um: 20,
            certificates: vec!["AS9100".to_owned(), "ISO9001".to_owned()],
            setup_family: "F1".to_owned(),
            setup_s: 1200,
            run_s_per_piece: 360,
            splittable: true,
        };
        assert_eq!(step, Ok(expected));
        assert_eq!(operation("cmm family=F2 run=90s").unwrap().run_s_per_piece, 90);
    }

    #[test]
    fn bad_steps_say_what_is_accepted() {
        let cases = [
            ("", "five-axis family=F1"),
            ("saw family=F1 run=6m", "'saw' is not lathe, mill"),
            ("mill run=6m", "family= missing"),
            ("mill family=F1", "run= missing"),
            ("mill", "family= and run= missing"),
            ("mill family=F1 run=6", "run '6' is not a number with s, m, h"),
            ("mill family=F1 run=6m setup=x", "setup 'x'"),
            ("mill family=F1 run=6m tol=fine", "tol 'fine' is not whole µm"),
            ("mill family=F1 run=6m axes=many", "axes 'many'"),
            ("mill family=F1 run=6m colour=red", "'colour=red' is not family="),
        ];
        for (text, told) in cases {
            let error = operation(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn flags_change_the_order_of_a_file() {
        let clock = Clock { now: "2026-11-25T02:30:00Z".parse().unwrap(), zone: jiff::tz::TimeZone::UTC };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("order.toml");
        let text = "quantity = 20\nmaterial = 'steel'\nsize = '200x120x60'\nmass_g = '3kg'\n\
                    due_s = 2026-11-28T17:00:00Z\n\n\
                    [[route]]\nclass = 'mill'\nsetup_family = 'F1'\nrun_s_per_piece = '6m'\n";
        std::fs::write(&path, text).unwrap();
        let args = OrderArgs { order: Some(path), quantity: Some(30), ..OrderArgs::default() };
        let order = args.read(&clock).unwrap();
        assert_eq!((order.quantity, order.material.as_str(), order.mass_g), (30, "steel", 3000));
        assert_eq!(order.due_s, clock.now_s() + 3 * 86_400 + 14 * 3600 + 1800);
        assert_eq!(order.route[0].run_s_per_piece, 360);
    }

    #[test]
    fn an_order_that_lacks_something_names_it() {
        let clock = Clock { now: "2026-11-25T02:30:00Z".parse().unwrap(), zone: jiff::tz::TimeZone::UTC };
        let args =
            OrderArgs { quantity: Some(3), material: Some("steel".to_owned()), ..OrderArgs::default() };
        let told = args.read(&clock).unwrap_err().to_string();
        assert!(told.starts_with("the order lacks --size, --mass, --op, --due"), "{told}");
    }
}
