//! What is published of a plant and of each of its machines: names, data types, and how their values follow from what the
//! agent knows. Pure.
//!
//! Every machine has the same metrics, whether there is a value or not: a slot that is empty is null. The next items are
//! those of its dispatch list that are neither at hand nor over, as far as the plant knows, so that the list is right while
//! the line to the coordinator is cut.
//!
//! Of what a list holds nothing else is published; buyers' names and prices are not on it to begin with.

use crate::adapter::sparkplug::payload::{BOOLEAN, Content, DATETIME, STRING, UINT32, UINT64};
use crate::health::{Line, MachineReport, Report};
use millpool_proto::v1::{DispatchItem, DispatchList};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Items of a machine's list that are published.
pub const ITEMS_SHOWN: usize = 8;

/// A metric's name and data type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Its data type.
    pub datatype: u32,
}

/// The values of the metrics, in the order of their names; none is null.
pub type Values = Vec<Option<Content>>;

/// The plant's own metrics.
pub static OF_PLANT: LazyLock<Vec<Metric>> = LazyLock::new(|| {
    let names =
        [("Agent/Version", STRING), ("Coordinator/Connected", BOOLEAN), ("Dispatch/Revision", UINT64)];
    names.map(metric).into()
});

/// A machine's metrics.
pub static OF_MACHINE: LazyLock<Vec<Metric>> = LazyLock::new(|| {
    let own = [
        ("State", STRING),
        ("Operation/Booking", STRING),
        ("Operation/Number", UINT32),
        ("Operation/Quantity", UINT32),
        ("Operation/Pieces Good", UINT32),
        ("Operation/Expected End", DATETIME),
        ("Dispatch/Revision", UINT64),
    ];
    let item = [
        ("Booking", STRING),
        ("Number", UINT32),
        ("Start", DATETIME),
        ("End", DATETIME),
        ("Setup Family", STRING),
        ("Setup Seconds", UINT32),
        ("Run Seconds", UINT32),
        ("Quantity", UINT32),
        ("Material", STRING),
        ("Frozen", BOOLEAN),
    ];
    let slots = (1..=ITEMS_SHOWN).flat_map(|slot| {
        item.iter().map(move |(name, datatype)| metric((&format!("Dispatch/{slot}/{name}"), *datatype)))
    });
    own.map(metric).into_iter().chain(slots).collect()
});

fn metric((name, datatype): (&str, u32)) -> Metric {
    Metric { name: name.to_owned(), datatype }
}

/// The plant's values.
pub fn of_plant(report: &Report, revision: u64) -> Values {
    vec![
        text(env!("CARGO_PKG_VERSION")),
        Some(Content::Boolean(matches!(report.line, Line::Connected { .. }))),
        Some(Content::Long(revision)),
    ]
}

/// A machine's values.
pub fn of_machine(report: &MachineReport, list: &List) -> Values {
    let at_hand = report.at_hand();
    let item = at_hand.and_then(|at_hand| list.items.iter().find(|item| is(item, at_hand)));
    let work = report.work.as_ref();
    let mut values = vec![
        text(&report.machine_state),
        at_hand.and_then(|(booking_id, _)| text(booking_id)),
        at_hand.map(|(_, operation)| Content::Int(operation)),
        item.map(|item| Content::Int(item.quantity)),
        work.map(|work| Content::Int(work.pieces_good)),
        work.and_then(|work| time(work.expected_end_s)),
        Some(Content::Long(list.revision)),
    ];
    let mut next = list.items.iter().filter(|item| {
        at_hand.is_none_or(|at_hand| !is(item, at_hand)) && !report.over.iter().any(|over| over.is(item))
    });
    for _ in 0..ITEMS_SHOWN {
        values.extend(of_item(next.next()));
    }
    values
}

fn of_item(item: Option<&DispatchItem>) -> [Option<Content>; 10] {
    [
        item.and_then(|item| text(&item.booking_id)),
        item.map(|item| Content::Int(item.operation)),
        item.and_then(|item| time(item.start_s)),
        item.and_then(|item| time(item.end_s)),
        item.and_then(|item| text(&item.setup_family)),
        item.map(|item| Content::Int(item.setup_s)),
        item.map(|item| Content::Int(item.run_s)),
        item.map(|item| Content::Int(item.quantity)),
        item.and_then(|item| text(&item.material)),
        item.map(|item| Content::Boolean(item.frozen)),
    ]
}

fn is(item: &DispatchItem, (booking_id, operation): (&str, u32)) -> bool {
    item.booking_id == booking_id && item.operation == operation
}

fn text(text: &str) -> Option<Content> {
    Some(Content::Text(text.to_owned()))
}

/// A time; 0 is none.
fn time(at_s: i64) -> Option<Content> {
    u64::try_from(at_s.saturating_mul(1000)).ok().filter(|at_ms| *at_ms > 0).map(Content::Long)
}

/// A machine's part of a dispatch list, by start.
#[derive(Clone, Debug, Default)]
pub struct List {
    revision: u64,
    items: Vec<DispatchItem>,
}

/// Takes a list apart by its machines.
pub fn lists(list: Option<&DispatchList>, machines: &[String]) -> BTreeMap<String, List> {
    let revision = list.map_or(0, |list| list.revision);
    let mut lists: BTreeMap<_, _> =
        machines.iter().map(|id| (id.clone(), List { revision, items: Vec::new() })).collect();
    for item in list.iter().flat_map(|list| &list.items) {
        if let Some(list) = lists.get_mut(&item.machine_id) {
            list.items.push(item.clone());
        }
    }
    for list in lists.values_mut() {
        list.items.sort_by(|one, other| {
            let key = |item: &DispatchItem| (item.start_s, item.operation);
            key(one).cmp(&key(other)).then_with(|| one.booking_id.cmp(&other.booking_id))
        });
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Over;

    fn item(booking: &str, start_s: i64) -> DispatchItem {
        DispatchItem {
            machine_id: "mill".into(),
            booking_id: booking.into(),
            start_s,
            end_s: start_s + 10,
            ..DispatchItem::default()
        }
    }

    /// The bookings in the slots.
    fn next(report: &MachineReport, items: Vec<DispatchItem>) -> Vec<String> {
        let list = DispatchList { items, revision: 3, ..DispatchList::default() };
        let lists = lists(Some(&list), &["mill".to_owned()]);
        let values = of_machine(report, &lists["mill"]);
        assert_eq!(values.len(), OF_MACHINE.len());
        let bookings = OF_MACHINE
            .iter()
            .zip(values)
            .filter(|(metric, _)| metric.name.starts_with("Dispatch/") && metric.name.ends_with("/Booking"));
        let text = |value| match value {
            Some(Content::Text(text)) => Some(text),
            _ => None,
        };
        bookings.filter_map(|(_, value)| text(value)).collect()
    }

    #[test]
    fn what_is_next_is_neither_at_hand_nor_over_and_what_was_lost_comes_again() {
        let mut report = MachineReport { operation: Some("b/0".into()), ..MachineReport::default() };
        let items = || vec![item("d", 40), item("c", 30), item("b", 20), item("a", 10)];
        assert_eq!(next(&report, items()), ["a", "c", "d"]);
        report.over = vec![Over::done("a", 0), Over::lost("c", 0, 35_000)];
        assert_eq!(next(&report, items()), ["d"]);
        assert_eq!(next(&report, vec![item("c", 50), item("d", 40)]), ["d", "c"]);
        assert_eq!(next(&report, (0..20).map(|at| item("e", at)).collect()).len(), ITEMS_SHOWN);
        let strange = DispatchItem { machine_id: "lathe".into(), ..item("f", 1) };
        assert!(next(&report, vec![strange]).is_empty(), "another machine's");
    }

    #[test]
    fn every_value_has_the_type_of_its_metric() {
        let report = MachineReport {
            operation: Some("b/0".into()),
            work: Some(crate::health::Work { pieces_good: 1, expected_end_s: 9 }),
            ..MachineReport::default()
        };
        let list = List { revision: 3, items: (0..20).map(|at| item("b", at + 1)).collect() };
        let plant = of_plant(&Report::default(), 3);
        let all = OF_PLANT.iter().zip(plant).chain(OF_MACHINE.iter().zip(of_machine(&report, &list)));
        for (metric, value) in all {
            let datatypes: &[u32] = match value {
                None => continue,
                Some(Content::Text(_)) => &[STRING],
                Some(Content::Int(_)) => &[UINT32],
                Some(Content::Long(_)) => &[UINT64, DATETIME],
                Some(Content::Boolean(_)) => &[BOOLEAN],
                Some(other) => panic!("{}: {other:?}", metric.name),
            };
            assert!(datatypes.contains(&metric.datatype), "{}", metric.name);
        }
        assert_eq!(of_plant(&Report::default(), 3).len(), OF_PLANT.len());
    }
}
