//! What is lent of a machine: the shifts of the week less the member's own work.

use super::{Blueprint, DAY_S, Hours, ZONE_OFFSET_S, happens, pick};
use millpool_proto::v1::{Offer, Shift, Window};
use rand::{RngExt as _, rngs::StdRng};

/// A machine's week: manned from and to, minutes after midnight, and whether it works on Sundays.
#[derive(Clone, Copy)]
struct Week {
    start_minute: u32,
    end_minute: u32,
    sundays: bool,
}

/// Day shifts, two shifts, and round the clock, with their weights.
const WEEKS: [(u32, Week); 4] = [
    (30, Week { start_minute: 480, end_minute: 1200, sundays: false }),
    (35, Week { start_minute: 480, end_minute: 1320, sundays: false }),
    (10, Week { start_minute: 420, end_minute: 1260, sundays: true }),
    (25, Week { start_minute: 0, end_minute: 1440, sundays: true }),
];

/// The offer of a machine, and its hours.
pub(super) fn offer(random: &mut StdRng, blueprint: &Blueprint, machine_id: &str) -> (Offer, Hours) {
    let week = pick(random, &WEEKS);
    let manned = manned(blueprint, week);
    let except = own_work(random, &manned, blueprint.own_permille);
    let sum = |windows: &[Window]| windows.iter().map(|window| window.end_s - window.start_s).sum();
    let hours = Hours { shift_s: sum(&manned), own_s: sum(&except) };
    let weekdays = (1..=if week.sundays { 7 } else { 6 }).collect();
    let shift = Shift { weekdays, start_minute: week.start_minute, end_minute: week.end_minute };
    let offer = Offer {
        id: format!("{machine_id}-w1"),
        machine_id: machine_id.to_owned(),
        shifts: vec![shift],
        from_s: blueprint.start_s,
        until_s: blueprint.end_s(),
        except,
        ..Offer::default()
    };
    (offer, hours)
}

/// The manned windows of the time that is lent.
fn manned(blueprint: &Blueprint, week: Week) -> Vec<Window> {
    let local_day = |s: i64| (s + ZONE_OFFSET_S).div_euclid(DAY_S);
    let (first, last) = (local_day(blueprint.start_s), local_day(blueprint.end_s()));
    // 1970-01-01 was a Thursday: day 3 was a Sunday.
    let works = |day: &i64| week.sundays || (day - 3).rem_euclid(7) != 0;
    let window = |day: i64| {
        let midnight_s = day * DAY_S - ZONE_OFFSET_S;
        let at = |minute: u32| midnight_s + i64::from(minute) * 60;
        Window {
            start_s: at(week.start_minute).max(blueprint.start_s),
            end_s: at(week.end_minute).min(blueprint.end_s()),
        }
    };
    let windows = (first..=last).filter(works).map(window);
    windows.filter(|window| window.start_s < window.end_s).collect()
}

/// Stretches of two to six hours that the member keeps for itself.
fn own_work(random: &mut StdRng, manned: &[Window], own_permille: u32) -> Vec<Window> {
    let mut own: Vec<Window> = Vec::new();
    for window in manned {
        let mut start_s = window.start_s;
        while start_s < window.end_s {
            let length_s = 900 * random.random_range(8..=24);
            let end_s = (start_s + length_s).min(window.end_s);
            if happens(random, own_permille) {
                match own.last_mut().filter(|last| last.end_s == start_s) {
                    Some(last) => last.end_s = end_s,
                    None => own.push(Window { start_s, end_s }),
                }
            }
            start_s = end_s;
        }
    }
    own
}
