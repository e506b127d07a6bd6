//! Offers: what is lent, and when. Shifts come again every week in the plant's local time, and are worked
//! out to absolute windows **before** they enter the log ([`Offer::expand`]), so that a node with another
//! time zone database never disagrees about what was lent.

use crate::id::{MachineId, OfferId};
use crate::refusal::{Reason, Refusal, within};
use crate::window::{LATEST, Window, Windows};
use jiff::{Timestamp, ToSpan, civil, tz::TimeZone};
use std::collections::BTreeSet;

/// Longest stretch that an offer's shifts cover, seconds.
pub const OFFER_SPAN_MAX_S: i64 = 92 * 86_400;
/// Most windows of an offer.
pub const OFFER_WINDOWS_MAX: usize = 512;
/// Longest notice, seconds.
pub const NOTICE_MAX_S: i64 = 31 * 86_400;

/// One shift that comes again every week, in the plant's local time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shift {
    /// Days on which it begins, 1 Monday to 7 Sunday.
    pub weekdays: BTreeSet<u32>,
    /// Minutes after local midnight at which it begins.
    pub start_minute: i64,
    /// Minutes after local midnight at which it ends; at or before the start means on the next day.
    pub end_minute: i64,
}

/// Windows of a machine, lent to the alliance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Offer {
    /// Its id.
    pub id: OfferId,
    /// The machine.
    pub machine: MachineId,
    /// Weekly shifts.
    pub shifts: Vec<Shift>,
    /// First second that they cover, seconds since the Unix epoch.
    pub from: i64,
    /// First second that they no longer cover.
    pub until: i64,
    /// Single windows besides.
    pub windows: Vec<Window>,
    /// Taken out: own work, maintenance.
    pub except: Vec<Window>,
    /// Notice, seconds.
    pub notice_s: i64,
    /// What all that comes to.
    pub open: Windows,
    /// Withdrawn.
    pub withdrawn: bool,
    /// Revision of the last change.
    pub revision: u64,
}

impl Offer {
    /// Works `open` out from shifts, windows and exceptions, in the time zone given. A local time that a
    /// change of clocks skips is taken as the same distance after midnight's offset (the later reading);
    /// one that comes twice is taken the first time, so that a shift is never lost and never doubled.
    pub fn expand(&mut self, time_zone: &str) -> Result<(), Refusal> {
        let zone = zone(time_zone)?;
        self.check()?;
        let mut lent = self.windows.clone();
        for shift in &self.shifts {
            lent.extend(shift_windows(shift, &zone, self.from, self.until)?);
        }
        self.open = Windows::union(lent).without(self.except.iter().copied());
        self.check_open()
    }

    /// When the last of its windows ends, seconds since the Unix epoch.
    pub fn ends_at(&self) -> i64 {
        self.open.iter().map(|window| window.end).max().unwrap_or(i64::MIN)
    }

    /// Refuses what no offer can be, naming field, value and what is accepted.
    pub fn check(&self) -> Result<(), Refusal> {
        within("offer.notice_s", self.notice_s, 0, NOTICE_MAX_S)?;
        within("offer.windows (count)", self.windows.len() as i64, 0, OFFER_WINDOWS_MAX as i64)?;
        within("offer.except (count)", self.except.len() as i64, 0, OFFER_WINDOWS_MAX as i64)?;
        within("offer.shifts (count)", self.shifts.len() as i64, 0, 32)?;
        for (field, windows) in [("offer.windows", &self.windows), ("offer.except", &self.except)] {
            windows.iter().try_for_each(|w| sane(field, w))?;
        }
        if self.shifts.is_empty() && self.windows.is_empty() {
            return Err(Refusal::invalid(
                Reason::InvalidField,
                "offer.windows",
                "none",
                "at least one window or shift",
            ));
        }
        if !self.shifts.is_empty() && !(1..=OFFER_SPAN_MAX_S).contains(&self.until.saturating_sub(self.from))
        {
            return Err(Refusal::invalid(
                Reason::InvalidField,
                "offer.until_s",
                self.until,
                &format!("after from_s ({}) and at most {OFFER_SPAN_MAX_S} s later", self.from),
            ));
        }
        for shift in &self.shifts {
            within("offer.shifts.start_minute", shift.start_minute, 0, 1439)?;
            within("offer.shifts.end_minute", shift.end_minute, 0, 1440)?;
            within("offer.shifts.weekdays (count)", shift.weekdays.len() as i64, 1, 7)?;
            shift.weekdays.iter().try_for_each(|d| within("offer.shifts.weekdays", (*d).into(), 1, 7))?;
        }
        Ok(())
    }

    /// Refuses an offer that lends nothing, too many pieces, or a time that cannot be.
    pub fn check_open(&self) -> Result<(), Refusal> {
        within("offer.open (count)", self.open.len() as i64, 1, OFFER_WINDOWS_MAX as i64)?;
        self.open.iter().try_for_each(|w| sane("offer.open", w))
    }
}

/// The time zone of that name, from the database inside this binary.
pub fn zone(name: &str) -> Result<TimeZone, Refusal> {
    TimeZone::get(name).map_err(|_| {
        Refusal::invalid(
            Reason::InvalidField,
            "plant.time_zone",
            name,
            "an IANA time zone, e.g. Asia/Shanghai",
        )
    })
}

fn sane(field: &str, window: &Window) -> Result<(), Refusal> {
    if window.start >= window.end || window.start < 0 || window.end > LATEST {
        return Err(Refusal::invalid(
            Reason::InvalidField,
            field,
            format!("[{}, {})", window.start, window.end),
            "start_s before end_s, both seconds since 1970, before the year 10000",
        ));
    }
    Ok(())
}

fn shift_windows(shift: &Shift, zone: &TimeZone, from: i64, until: i64) -> Result<Vec<Window>, Refusal> {
    let local = |second: i64| {
        Timestamp::from_second(second).map(|t| zone.to_datetime(t).date()).map_err(|_| {
            Refusal::invalid(
                Reason::InvalidField,
                "offer.from_s",
                second,
                "seconds since 1970, before the year 9999",
            )
        })
    };
    // A night shift may have begun on the local day before.
    let mut day = local(from)?.saturating_sub(1.day());
    let last = local(until)?;
    let mut found = Vec::new();
    while day <= last {
        if shift.weekdays.contains(&(day.weekday().to_monday_one_offset() as u32)) {
            let start = instant(zone, day, shift.start_minute);
            let overnight = if shift.end_minute <= shift.start_minute { 1440 } else { 0 };
            let end = instant(zone, day, shift.end_minute + overnight);
            if let (Some(start), Some(end)) = (start, end) {
                found.push(Window::new(start.max(from), end.min(until)));
            }
        }
        day = day.saturating_add(1.day());
    }
    found.retain(|w| w.start < w.end);
    Ok(found)
}

/// The second at which the local wall clock of `day` shows `minute` minutes after midnight.
fn instant(zone: &TimeZone, day: civil::Date, minute: i64) -> Option<i64> {
    let day = day.saturating_add((minute / 1440).days());
    let minute = minute % 1440;
    let time = civil::Time::new((minute / 60) as i8, (minute % 60) as i8, 0, 0).ok()?;
    zone.to_ambiguous_timestamp(day.to_datetime(time)).compatible().ok().map(|t| t.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(zone: &str, from: &str, until: &str, start: i64, end: i64) -> Vec<String> {
        let second = |t: &str| t.parse::<Timestamp>().unwrap().as_second();
        let mut offer = Offer {
            id: OfferId::trusted("o"),
            machine: MachineId::trusted("m"),
            shifts: vec![Shift { weekdays: (1..=7).collect(), start_minute: start, end_minute: end }],
            from: second(from),
            until: second(until),
            windows: vec![],
            except: vec![],
            notice_s: 0,
            open: Windows::default(),
            withdrawn: false,
            revision: 0,
        };
        offer.expand(zone).unwrap();
        let show = |s: i64| Timestamp::from_second(s).unwrap().to_string();
        offer.open.iter().map(|w| format!("{} {}", show(w.start), show(w.end))).collect()
    }

    #[test]
    fn a_shift_keeps_its_local_hours_when_the_clocks_change() {
        assert_eq!(
            offer("Europe/Berlin", "2026-03-28T00:00:00Z", "2026-03-30T00:00:00Z", 480, 960),
            ["2026-03-28T07:00:00Z 2026-03-28T15:00:00Z", "2026-03-29T06:00:00Z 2026-03-29T14:00:00Z"]
        );
    }

    #[test]
    fn a_night_shift_over_the_change_is_an_hour_shorter_or_longer() {
        assert_eq!(
            offer("Europe/Berlin", "2026-03-28T20:00:00Z", "2026-03-29T12:00:00Z", 1320, 360),
            ["2026-03-28T21:00:00Z 2026-03-29T04:00:00Z"]
        );
        assert_eq!(
            offer("Europe/Berlin", "2026-10-24T19:00:00Z", "2026-10-25T12:00:00Z", 1320, 360),
            ["2026-10-24T20:00:00Z 2026-10-25T05:00:00Z"]
        );
    }

    #[test]
    fn a_local_time_that_does_not_exist_is_read_later_and_one_that_comes_twice_once() {
        assert_eq!(
            offer("Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T12:00:00Z", 150, 240),
            ["2026-03-29T01:30:00Z 2026-03-29T02:00:00Z"]
        );
        assert_eq!(
            offer("Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T12:00:00Z", 150, 240),
            ["2026-10-25T00:30:00Z 2026-10-25T03:00:00Z"]
        );
    }

    #[test]
    fn midnight_to_midnight_is_the_whole_day() {
        assert_eq!(
            offer("Asia/Shanghai", "2026-11-23T00:00:00Z", "2026-11-25T00:00:00Z", 0, 1440),
            ["2026-11-23T00:00:00Z 2026-11-25T00:00:00Z"]
        );
    }

    #[test]
    fn an_unknown_zone_is_refused_by_name() {
        assert_eq!(zone("Mars/Olympus").unwrap_err().value, "Mars/Olympus");
    }
}
