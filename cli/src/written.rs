//! How people write quantities and times, read into the contract's integers.
//!
//! Each reader takes the text alone and answers with the value or with what it accepts; whoever calls
//! it knows the flag or the field and says so too. Nothing is rounded: what does not come to a whole
//! number of the contract's unit is refused.

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};
use millpool_proto::v1::{MachineClass, Role, Shift, Size};

/// Now and here: what relative and local times are read against, and shown in.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Now.
    pub now: Timestamp,
    /// The time zone of times without an offset.
    pub zone: TimeZone,
}

impl Clock {
    /// Now, in whole seconds since the Unix epoch.
    pub fn now_s(&self) -> i64 {
        self.now.as_second()
    }
}

/// A reader as clap wants it for a flag: clap names the flag and the value, this says what is accepted.
pub fn flag<T>(
    read: impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| read(text).map_err(|accepted| format!("accepted is {accepted}"))
}

/// A decimal number times `unit`, where that is whole.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 9 || number.ends_with('.') {
        return None;
    }
    let divisor = 10_u64.pow(part.len() as u32);
    let part = if part.is_empty() { 0 } else { part.parse::<u64>().ok()? };
    let part = u64::try_from(u128::from(part) * u128::from(unit) / u128::from(divisor))
        .ok()
        .filter(|n| u128::from(*n) * u128::from(divisor) == u128::from(part) * u128::from(unit))?;
    whole.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(part)
}

/// A number and the unit behind it.
fn number_and_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// What a duration may look like.
pub const DURATION: &str = "a number with s, m, h, d or w, e.g. 90s, 20m, 1h30m, 5d";

/// A duration in whole seconds.
pub fn duration_s(text: &str) -> Result<u32, String> {
    let refused = || DURATION.to_owned();
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(refused());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, unit) = number_and_unit(rest);
        let end = unit.find(|c: char| c.is_ascii_digit() || c.is_whitespace()).unwrap_or(unit.len());
        let seconds = match &unit[..end] {
            "s" | "sec" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return Err(refused()),
        };
        total = scaled(number, seconds).and_then(|s| total.checked_add(s)).ok_or_else(refused)?;
        rest = unit[end..].trim_start();
    }
    u32::try_from(total).map_err(|_| "at most 49710d".to_owned())
}

/// What a mass may look like.
pub const MASS: &str = "a number with g, kg or t that comes to whole grams, e.g. 800g, 3kg, 1.2t";

/// A mass in grams.
pub fn mass_g(text: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text.trim());
    let grams = match unit {
        "g" => 1,
        "kg" => 1000,
        "t" => 1_000_000,
        _ => return Err(MASS.to_owned()),
    };
    scaled(number, grams).ok_or_else(|| MASS.to_owned())
}

/// What a tolerance may look like.
pub const TOLERANCE: &str = "whole µm, e.g. 20, 20um or 0.02mm";

/// A tolerance in µm.
pub fn tolerance_um(text: &str) -> Result<u32, String> {
    let (number, unit) = number_and_unit(text.trim());
    let um = match unit {
        "" | "um" | "µm" | "μm" => 1,
        "mm" => 1000,
        _ => return Err(TOLERANCE.to_owned()),
    };
    scaled(number, um).and_then(|n| u32::try_from(n).ok()).ok_or_else(|| TOLERANCE.to_owned())
}

/// What a size may look like.
pub const SIZE: &str = "three edges in whole mm, e.g. 200x120x60";

/// A box as it is written, X Y Z.
pub fn size(text: &str) -> Result<Size, String> {
    let bare = text.trim().trim_end_matches("mm").trim_end();
    let edges: Vec<u32> = bare
        .split(['x', 'X', '×', '*'])
        .map(|edge| edge.trim().parse().ok().filter(|mm| *mm > 0))
        .collect::<Option<_>>()
        .ok_or_else(|| SIZE.to_owned())?;
    match edges[..] {
        [x_mm, y_mm, z_mm] => Ok(Size { x_mm, y_mm, z_mm }),
        _ => Err(SIZE.to_owned()),
    }
}

/// A workpiece: a box with its edges longest first.
pub fn workpiece(text: &str) -> Result<Size, String> {
    let Size { x_mm, y_mm, z_mm } = size(text)?;
    let mut edges = [x_mm, y_mm, z_mm];
    edges.sort_unstable_by(|a, b| b.cmp(a));
    let [x_mm, y_mm, z_mm] = edges;
    Ok(Size { x_mm, y_mm, z_mm })
}

/// What an amount of money may look like.
pub const MONEY: &str = "CNY with at most two decimals, e.g. 5000, 1,234.56 or 400CNY";

/// Money in fen.
pub fn money_fen(text: &str) -> Result<i64, String> {
    let bare = text.trim().trim_start_matches(['¥', '￥']);
    let bare = bare.strip_suffix("CNY").or_else(|| bare.strip_suffix("cny")).unwrap_or(bare).trim();
    let (whole, part) = bare.split_once('.').map_or((bare, None), |(w, p)| (w, Some(p)));
    let groups: Vec<&str> = whole.split(',').collect();
    let grouped =
        groups.len() == 1 || (groups[0].len() <= 3 && groups[1..].iter().all(|group| group.len() == 3));
    let number = part.map_or(groups.concat(), |part| format!("{}.{part}", groups.concat()));
    if !grouped {
        return Err(MONEY.to_owned());
    }
    scaled(&number, 100).and_then(|fen| i64::try_from(fen).ok()).ok_or_else(|| MONEY.to_owned())
}

/// What a machine class may look like.
pub const CLASS: &str = "lathe, mill, five-axis, grinder or cmm";

/// A machine class.
pub fn class(text: &str) -> Result<MachineClass, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "lathe" | "turning" => Ok(MachineClass::Lathe),
        "mill" | "3-axis" | "three-axis" => Ok(MachineClass::Mill),
        "five-axis" | "5-axis" | "5axis" | "fiveaxis" => Ok(MachineClass::FiveAxis),
        "grinder" => Ok(MachineClass::Grinder),
        "cmm" => Ok(MachineClass::Cmm),
        _ => Err(CLASS.to_owned()),
    }
}

/// A principal's role.
pub fn role(text: &str) -> Result<Role, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "buyer" => Ok(Role::Buyer),
        "member" => Ok(Role::Member),
        "agent" => Ok(Role::Agent),
        "operator" => Ok(Role::Operator),
        "auditor" => Ok(Role::Auditor),
        _ => Err("buyer, member, agent, operator or auditor".to_owned()),
    }
}

/// What a time may look like.
pub const TIME: &str = "+5d, 'fri 17:00', 'tomorrow 08:00', 2026-11-28, '2026-11-28 17:00' or \
                        2026-11-28T17:00:00+08:00";

/// A time as it was written; what it means depends on now and on the time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// So many seconds from now.
    In(u32),
    /// A point in time.
    At(Timestamp),
    /// A local date and time of day.
    Local(civil::DateTime),
    /// So many days after today, at a local time of day.
    Day(i64, civil::Time),
    /// The next such weekday from now on, at a local time of day.
    Weekday(civil::Weekday, civil::Time),
}

impl When {
    /// Reads a time.
    pub fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("now") {
            return Ok(Self::In(0));
        }
        if let Some(ahead) = text.strip_prefix('+') {
            return Ok(Self::In(duration_s(ahead)?));
        }
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self::At(at));
        }
        if let Ok(local) = text.parse::<civil::DateTime>() {
            return Ok(Self::Local(local));
        }
        let refused = || TIME.to_owned();
        let (day, time) = text.split_once(char::is_whitespace).unwrap_or((text, "00:00"));
        let time = time_of_day(time.trim()).ok_or_else(refused)?;
        match day.to_ascii_lowercase().as_str() {
            "today" => Ok(Self::Day(0, time)),
            "tomorrow" => Ok(Self::Day(1, time)),
            name => weekday(name).map(|day| Self::Weekday(day, time)).ok_or_else(refused),
        }
    }

    /// The time that is meant, in seconds since the Unix epoch.
    pub fn resolve_s(&self, clock: &Clock) -> Result<i64, String> {
        let here = clock.now.to_zoned_datetime(clock.zone.clone());
        let local = match self {
            Self::In(seconds) => return Ok(clock.now_s() + i64::from(*seconds)),
            Self::At(at) => return Ok(at.as_second()),
            Self::Local(local) => *local,
            Self::Day(days, time) => {
                here.date().saturating_add(SignedDuration::from_hours(24 * days)).to_datetime(*time)
            }
            Self::Weekday(day, time) => {
                let ahead = i64::from(here.date().weekday().until(*day));
                let next = here.date().saturating_add(SignedDuration::from_hours(24 * ahead));
                let meant = next.to_datetime(*time);
                if meant > here.datetime() {
                    meant
                } else {
                    meant.saturating_add(SignedDuration::from_hours(24 * 7))
                }
            }
        };
        let zoned = clock.zone.to_zoned_datetime(local).map_err(|error| error.to_string())?;
        Ok(zoned.timestamp().as_second())
    }
}

fn time_of_day(text: &str) -> Option<civil::Time> {
    let (hour, minute) = text.split_once(':')?;
    civil::Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

const WEEKDAYS: [(&str, civil::Weekday); 7] = [
    ("monday", civil::Weekday::Monday),
    ("tuesday", civil::Weekday::Tuesday),
    ("wednesday", civil::Weekday::Wednesday),
    ("thursday", civil::Weekday::Thursday),
    ("friday", civil::Weekday::Friday),
    ("saturday", civil::Weekday::Saturday),
    ("sunday", civil::Weekday::Sunday),
];

fn weekday(text: &str) -> Option<civil::Weekday> {
    let text = text.to_ascii_lowercase();
    WEEKDAYS.iter().find(|(name, _)| *name == text || name[..3] == text).map(|(_, day)| *day)
}

/// What a stretch of time may look like.
pub const WINDOW: &str = "START..END, each a time, or END as +DURATION after the start, e.g. \
                          'tomorrow 08:00..+10h'";

/// A stretch of time as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    start: When,
    end: When,
}

impl Stretch {
    /// Reads a stretch of time.
    pub fn read(text: &str) -> Result<Self, String> {
        let (start, end) = text.split_once("..").ok_or_else(|| WINDOW.to_owned())?;
        let side = |text| When::read(text).map_err(|_| WINDOW.to_owned());
        Ok(Self { start: side(start)?, end: side(end)? })
    }

    /// Its start and end, in seconds since the Unix epoch.
    pub fn resolve_s(&self, clock: &Clock) -> Result<(i64, i64), String> {
        let start_s = self.start.resolve_s(clock)?;
        let end_s = match self.end {
            When::In(seconds) => start_s + i64::from(seconds),
            _ => self.end.resolve_s(clock)?,
        };
        if end_s <= start_s { Err("an end after the start".to_owned()) } else { Ok((start_s, end_s)) }
    }
}

/// What a weekly shift may look like.
pub const SHIFT: &str = "days and hours, e.g. 'mon-fri 18:00-06:00', 'sat,sun 00:00-24:00'";

/// A weekly shift.
pub fn shift(text: &str) -> Result<Shift, String> {
    read_shift(text).ok_or_else(|| SHIFT.to_owned())
}

fn read_shift(text: &str) -> Option<Shift> {
    let (days, hours) = text.trim().split_once(char::is_whitespace)?;
    let number = |name: &str| weekday(name).map(|day| u32::from(day.to_monday_one_offset().unsigned_abs()));
    let mut weekdays = Vec::new();
    for part in days.split(',') {
        match part.split_once('-') {
            None if part == "daily" => weekdays.extend(1..=7),
            None => weekdays.push(number(part)?),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                weekdays.extend((0..=(last + 7 - first) % 7).map(|ahead| (first - 1 + ahead) % 7 + 1));
            }
        }
    }
    weekdays.sort_unstable();
    weekdays.dedup();
    let (start, end) = hours.trim().split_once('-')?;
    let minute = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let hour = hour.parse::<u32>().ok().filter(|h| *h <= 24)?;
        let total = hour * 60 + minute.parse::<u32>().ok().filter(|m| *m < 60)?;
        (total <= 1440).then_some(total)
    };
    let (start_minute, end_minute) = (minute(start)?, minute(end)?);
    (start_minute < 1440).then_some(Shift { weekdays, start_minute, end_minute })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock {
            now: "2026-11-25T10:30:00+08:00".parse().unwrap(), // a Wednesday
            zone: TimeZone::get("Asia/Shanghai").unwrap(),
        }
    }

    #[test]
    fn durations() {
        let good = [
            ("90s", 90),
            ("20m", 1200),
            ("20min", 1200),
            ("1h30m", 5400),
            ("1h 30m", 5400),
            ("1.5h", 5400),
            ("0.5m", 30),
            ("5d", 432_000),
            ("2w", 1_209_600),
            ("0", 0),
            ("0s", 0),
        ];
        for (text, seconds) in good {
            assert_eq!(duration_s(text), Ok(seconds), "{text}");
        }
        for text in ["", "90", "m", "-5m", "5x", "1.m", "0.3s", "5 d 3", "999999w", "1e3s", "٣s", "+5d"] {
            assert!(duration_s(text).is_err(), "{text}");
        }
    }

    #[test]
    fn masses_sizes_and_tolerances() {
        assert_eq!(mass_g("3kg"), Ok(3000));
        assert_eq!(mass_g("0.25 kg"), Ok(250));
        assert_eq!(mass_g("800g"), Ok(800));
        assert_eq!(mass_g("1.2t"), Ok(1_200_000));
        for text in ["", "3", "kg", "-3kg", "3lb", "0.0001kg", "1.2.3kg", "99999999999999999999t"] {
            assert!(mass_g(text).is_err(), "{text}");
        }
        assert_eq!(size("60x200x120"), Ok(Size { x_mm: 60, y_mm: 200, z_mm: 120 }));
        assert_eq!(workpiece("60x200x120"), Ok(Size { x_mm: 200, y_mm: 120, z_mm: 60 }));
        assert_eq!(workpiece("200 × 120 × 60 mm"), Ok(Size { x_mm: 200, y_mm: 120, z_mm: 60 }));
        for text in ["", "200", "200x120", "200x120x60x4", "0x1x1", "axbxc", "200x120x-60", "1.5x2x3"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(tolerance_um("20"), Ok(20));
        assert_eq!(tolerance_um("20µm"), Ok(20));
        assert_eq!(tolerance_um("0.02mm"), Ok(20));
        for text in ["", "0.5um", "20nm", "x", "0.0001mm"] {
            assert!(tolerance_um(text).is_err(), "{text}");
        }
    }

    #[test]
    fn money() {
        let good = [
            ("5000", 500_000),
            ("5,000", 500_000),
            ("1,234.56 CNY", 123_456),
            ("1,234,567.8", 123_456_780),
            ("400CNY", 40_000),
            ("¥400", 40_000),
            ("0.01", 1),
        ];
        for (text, fen) in good {
            assert_eq!(money_fen(text), Ok(fen), "{text}");
        }
        for text in ["", "CNY", "-5", "5.001", "1,23", "12,34.5", "1.2.3", "5 EUR", "1,2345", "5."] {
            assert!(money_fen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times() {
        let at = |text: &str| {
            let s = When::read(text).and_then(|when| when.resolve_s(&clock())).unwrap();
            Timestamp::from_second(s).unwrap().to_zoned_datetime(clock().zone).datetime().to_string()
        };
        assert_eq!(at("now"), "2026-11-25T10:30:00");
        assert_eq!(at("+5d"), "2026-11-30T10:30:00");
        assert_eq!(at("+90m"), "2026-11-25T12:00:00");
        assert_eq!(at("2026-11-28"), "2026-11-28T00:00:00");
        assert_eq!(at("2026-11-28 17:00"), "2026-11-28T17:00:00");
        assert_eq!(at("2026-11-28T17:00"), "2026-11-28T17:00:00");
        assert_eq!(at("2026-11-28T17:00:00Z"), "2026-11-29T01:00:00");
        assert_eq!(at("2026-11-28T17:00:00+08:00"), "2026-11-28T17:00:00");
        assert_eq!(at("fri 17:00"), "2026-11-27T17:00:00");
        assert_eq!(at("Friday"), "2026-11-27T00:00:00");
        assert_eq!(at("wed 11:00"), "2026-11-25T11:00:00");
        assert_eq!(at("wed 10:00"), "2026-12-02T10:00:00");
        assert_eq!(at("tomorrow 08:00"), "2026-11-26T08:00:00");
        assert_eq!(at("today 18:30"), "2026-11-25T18:30:00");
        for text in ["", "soon", "5d", "+5", "fri 25:00", "2026-13-01", "28.11.2026", "17:00", "fri 17"] {
            assert!(When::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn stretches() {
        let length = |text: &str| {
            Stretch::read(text)
                .and_then(|stretch| stretch.resolve_s(&clock()))
                .map(|(start, end)| end - start)
        };
        assert_eq!(length("tomorrow 08:00..+10h"), Ok(36_000));
        assert_eq!(length("2026-11-28 08:00..2026-11-28 18:00"), Ok(36_000));
        assert!(length("2026-11-28 08:00..2026-11-28 08:00").is_err());
        assert!(length("2026-11-28 08:00..2026-11-27").is_err());
        assert!(length("2026-11-28 08:00").is_err());
    }

    #[test]
    fn shifts() {
        let weekdays = |text: &str| shift(text).unwrap().weekdays;
        let night = shift("mon-fri 18:00-06:00").unwrap();
        assert_eq!(night, Shift { weekdays: vec![1, 2, 3, 4, 5], start_minute: 1080, end_minute: 360 });
        assert_eq!(weekdays("sat,sun 00:00-24:00"), [6, 7]);
        assert_eq!(weekdays("fri-mon 00:00-24:00"), [1, 5, 6, 7]);
        assert_eq!(weekdays("daily 08:00-12:00"), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(shift("sun 00:00-24:00").unwrap().end_minute, 1440);
        for text in [
            "",
            "mon",
            "mon 8-12",
            "xyz 08:00-12:00",
            "mon 08:00-25:00",
            "mon 24:00-25:00",
            "mon 08:60-9:00",
            "mon 4294967295:00-06:00",
        ] {
            assert!(shift(text).is_err(), "{text}");
        }
    }

    #[test]
    fn classes_and_roles() {
        assert_eq!(class("five-axis"), Ok(MachineClass::FiveAxis));
        assert_eq!(class("5-axis"), Ok(MachineClass::FiveAxis));
        assert_eq!(class("CMM"), Ok(MachineClass::Cmm));
        assert!(class("saw").is_err());
        assert_eq!(role("operator"), Ok(Role::Operator));
        assert!(role("boss").is_err());
    }
}
