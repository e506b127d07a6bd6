//! The list as people read it.

use super::{ItemListing, Listing, MachineListing};
use crate::health::Line;
use crate::remote::quarantine::Waiting;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fmt::Write as _;

/// Items of a machine that are shown unless it is asked for by name.
const ITEMS_SHOWN: usize = 5;

/// The plant, or one machine of it, in words. `zone` is the reader's.
pub fn listing(listing: &Listing, machine: Option<&str>, zone: &TimeZone) -> String {
    let mut words = String::new();
    let at = |at_ms| time(at_ms, listing.now_ms, zone);
    // Writing to a string does not fail.
    let _ = write!(words, "{}: it is {}", listing.plant_id, at(listing.now_ms));
    let _ = match listing.revision {
        0 => writeln!(words, ", no dispatch list has come yet"),
        revision => writeln!(words, ", list {revision} came {}", at(listing.since_ms)),
    };
    let _ = writeln!(words, "{}", line(listing));
    for refused in &listing.refused {
        let _ = writeln!(words, "the coordinator refused {refused}");
    }
    let shown = listing.machines.iter().filter(|own| machine.is_none_or(|id| id == own.id));
    let items_max = if machine.is_some() { usize::MAX } else { ITEMS_SHOWN };
    for machine in shown {
        words.push_str(&self::machine(machine, items_max, &at));
    }
    words
}

/// What waits in quarantine, in words.
pub fn programs(waiting: &[Waiting], zone: &TimeZone) -> String {
    if waiting.is_empty() {
        return "nothing is in quarantine\n".to_owned();
    }
    let mut words = String::new();
    for Waiting { machine_id, program, bytes, job, holder, since_ms } in waiting {
        let since = zone.to_datetime(Timestamp::from_millisecond(*since_ms).unwrap_or_default());
        let since = since.strftime("%Y-%m-%d %H:%M");
        // Writing to a string does not fail.
        let _ = writeln!(words, "{machine_id}  {}  {bytes} bytes, since {since}", program.name);
        let _ = writeln!(words, "  for {job} of {holder}; SHA-256 {}", program.sha256);
    }
    words
}

fn line(listing: &Listing) -> String {
    let unsent = match listing.unsent {
        0 => String::new(),
        unsent => format!("; {unsent} events are on disk and not applied yet"),
    };
    let line = match &listing.line {
        Line::Starting => "the line to the coordinator is being opened".to_owned(),
        Line::Connecting { to } => format!("the line to {to} is being opened"),
        Line::Connected { to, .. } => format!("connected to {to}"),
        Line::Waiting { tried, why } => {
            format!("the line to the coordinator is cut ({tried}: {why}); the list stands")
        }
        Line::Refused { by, reason, why } => format!("refused by {by}: {reason} {why}"),
    };
    line + &unsent
}

fn machine(machine: &MachineListing, items_max: usize, at: &dyn Fn(i64) -> String) -> String {
    let MachineListing { id, adapter, adapter_state, state, at_hand, session, trouble, items, more } =
        machine;
    let mut words = format!("\n{id}  {state}  ({adapter}, {adapter_state})");
    if let Some(at_hand) = at_hand {
        let _ = write!(words, "  at hand: {at_hand}");
    }
    words.push('\n');
    if let Some(session) = session {
        let _ = writeln!(words, "  may be operated from afar: session {session}");
    }
    if let Some(trouble) = trouble {
        let _ = writeln!(words, "  trouble: {trouble}");
    }
    let names = items.iter().map(|item| item.name.len()).max().unwrap_or(0);
    for item in items.iter().take(items_max) {
        let _ = writeln!(words, "{}", row(item, names, at_hand.as_ref() == Some(&item.name), at));
    }
    match items.len().saturating_sub(items_max) + more {
        0 if items.is_empty() => words.push_str("  nothing is listed\n"),
        0 => {}
        rest => {
            let _ = writeln!(words, "    and {rest} more");
        }
    }
    words
}

fn row(item: &ItemListing, names: usize, at_hand: bool, at: &dyn Fn(i64) -> String) -> String {
    let ItemListing { name, start_s, end_s, setup_s, quantity, material, setup_family, running, frozen } =
        item;
    let mark = if at_hand { '>' } else { ' ' };
    let standing = match (running, frozen) {
        (true, _) => "begun",
        (false, true) => "frozen",
        (false, false) => "",
    };
    let (from, until) = (at(start_s.saturating_mul(1000)), at(end_s.saturating_mul(1000)));
    let minutes = setup_s.div_ceil(60);
    let row = format!(
        "  {mark} {name:names$}  {from:>12} to {until:>12}  {quantity:>5} pcs  {material}, {setup_family}, setup {minutes} \
         min  {standing}"
    );
    row.trim_end().to_owned()
}

/// A time of day; with its date, where that is another than now's.
fn time(at_ms: i64, now_ms: i64, zone: &TimeZone) -> String {
    let zoned =
        |at_ms| Timestamp::from_millisecond(at_ms).unwrap_or_default().to_zoned_datetime(zone.clone());
    let (at, now) = (zoned(at_ms), zoned(now_ms));
    at.strftime(if at.date() == now.date() { "%H:%M" } else { "%m-%d %H:%M" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, start_s: i64) -> ItemListing {
        ItemListing {
            name: name.to_owned(),
            start_s,
            end_s: start_s + 7_200,
            setup_s: 1_500,
            quantity: 12,
            material: "6061".to_owned(),
            setup_family: "vise".to_owned(),
            running: start_s == 0,
            frozen: true,
        }
    }

    #[test]
    fn the_list_is_one_look() {
        let plant = Listing {
            plant_id: "cq-yubei-1".to_owned(),
            now_ms: 3_600_000,
            line: Line::Waiting { tried: "10.0.0.5:7070".to_owned(), why: "timed out".to_owned() },
            revision: 42,
            since_ms: 1_800_000,
            unsent: 3,
            refused: vec!["17: operation 0 of b-1 is finished already".to_owned()],
            machines: vec![MachineListing {
                id: "lathe-3".to_owned(),
                adapter: "manual".to_owned(),
                adapter_state: "told at the console".to_owned(),
                state: "producing".to_owned(),
                at_hand: Some("b-2/0".to_owned()),
                session: Some("s000007 of bo, for b-2/0".to_owned()),
                trouble: None,
                items: vec![item("b-2/0", 0), item("b-17/1", 86_400)],
                more: 2,
            }],
        };
        let expected = "\
cq-yubei-1: it is 01:00, list 42 came 00:30
the line to the coordinator is cut (10.0.0.5:7070: timed out); the list stands; 3 events are on disk and not applied yet
the coordinator refused 17: operation 0 of b-1 is finished already

lathe-3  producing  (manual, told at the console)  at hand: b-2/0
  may be operated from afar: session s000007 of bo, for b-2/0
  > b-2/0          00:00 to        02:00     12 pcs  6061, vise, setup 25 min  begun
    b-17/1   01-02 00:00 to  01-02 02:00     12 pcs  6061, vise, setup 25 min  frozen
    and 2 more
";
        assert_eq!(listing(&plant, None, &TimeZone::UTC), expected);
    }
}
