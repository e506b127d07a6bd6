//! How quantities, times and states are shown to people.

use crate::written::Clock;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use millpool_proto::v1::{
    BookingStatus, DisturbanceKind, MachineClass, MachineState, Objective, OperationState, Role, Shift, Size,
};

/// Digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Money: "1,234.56 CNY".
pub fn money(fen: i64) -> String {
    format!("{} CNY", amount(fen))
}

/// Money without its unit: "1,234.56".
pub fn amount(fen: i64) -> String {
    let sign = if fen < 0 { "-" } else { "" };
    let fen = fen.unsigned_abs();
    format!("{sign}{}.{:02}", grouped(fen / 100), fen % 100)
}

/// A duration by its two largest units: "1 h 30 min".
pub fn duration(seconds: i64) -> String {
    let sign = if seconds < 0 { "-" } else { "" };
    let mut left = seconds.unsigned_abs();
    let mut parts = Vec::new();
    for (unit, name) in [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")] {
        let count = left / unit;
        left %= unit;
        if count > 0 {
            parts.push(format!("{count} {name}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0 s".to_owned() } else { format!("{sign}{}", parts.join(" ")) }
}

/// Carbon: "12.35 kg".
pub fn carbon(grams: i64) -> String {
    let sign = if grams < 0 { "-" } else { "" };
    let decagrams = (grams.unsigned_abs() + 5) / 10;
    format!("{sign}{}.{:02} kg", grouped(decagrams / 100), decagrams % 100)
}

/// Energy: "3.25 kWh".
pub fn energy(wh: u64) -> String {
    let hundredths = (wh + 5) / 10;
    format!("{}.{:02} kWh", grouped(hundredths / 100), hundredths % 100)
}

/// Mass: "3 kg", "2.5 kg", "800 g".
pub fn mass(grams: u64) -> String {
    match grams {
        0..1000 => format!("{grams} g"),
        _ if grams.is_multiple_of(1000) => format!("{} kg", grouped(grams / 1000)),
        _ => {
            let kg = format!("{}.{:03}", grouped(grams / 1000), grams % 1000);
            format!("{} kg", kg.trim_end_matches('0'))
        }
    }
}

/// A box: "200 × 120 × 60".
pub fn size(size: Option<&Size>) -> String {
    size.map_or_else(String::new, |size| format!("{} × {} × {}", size.x_mm, size.y_mm, size.z_mm))
}

/// A ratio in percent: "78.0 %"; a dash where there is none.
pub fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0))
}

/// A share in per cent with one decimal; a dash where the whole is nothing.
pub fn share(part: i64, whole: i64) -> String {
    if whole <= 0 {
        return "–".to_owned();
    }
    let permille = (i128::from(part) * 1000 + i128::from(whole) / 2) / i128::from(whole);
    let sign = if permille < 0 { "-" } else { "" };
    let permille = permille.unsigned_abs();
    format!("{sign}{}.{} %", permille / 10, permille % 10)
}

/// A time in the clock's zone, RFC 3339 without seconds where they are 0: "2026-11-28 17:00+08:00",
/// "2026-11-28 09:00Z". A dash for 0.
pub fn time(seconds: i64, clock: &Clock) -> String {
    let Some(at) = Some(seconds).filter(|s| *s != 0).and_then(|s| Timestamp::from_second(s).ok()) else {
        return "–".to_owned();
    };
    let zoned = at.to_zoned_datetime(clock.zone.clone());
    let offset = if clock.zone == TimeZone::UTC { "Z" } else { "%:z" };
    let form = if zoned.second() == 0 { "%Y-%m-%d %H:%M" } else { "%Y-%m-%d %H:%M:%S" };
    zoned.strftime(&format!("{form}{offset}")).to_string()
}

/// How far away a time is: "in 5 d", "2 h ago".
pub fn relative(seconds: i64, clock: &Clock) -> String {
    let ahead = seconds - clock.now_s();
    match ahead {
        0 => "now".to_owned(),
        1.. => format!("in {}", duration(ahead)),
        _ => format!("{} ago", duration(-ahead)),
    }
}

/// A machine class.
pub fn class(class: MachineClass) -> &'static str {
    match class {
        MachineClass::Unspecified => "unspecified",
        MachineClass::Lathe => "lathe",
        MachineClass::Mill => "mill",
        MachineClass::FiveAxis => "five-axis",
        MachineClass::Grinder => "grinder",
        MachineClass::Cmm => "cmm",
    }
}

/// A machine's state.
pub fn machine_state(state: MachineState) -> &'static str {
    match state {
        MachineState::Unknown => "unknown",
        MachineState::Off => "off",
        MachineState::Idle => "idle",
        MachineState::Setup => "setup",
        MachineState::Producing => "producing",
        MachineState::Held => "held",
        MachineState::Blocked => "blocked",
        MachineState::Maintenance => "maintenance",
    }
}

/// Where a booking stands.
pub fn booking_status(status: BookingStatus) -> &'static str {
    match status {
        BookingStatus::Unspecified => "unspecified",
        BookingStatus::Held => "held",
        BookingStatus::Confirmed => "confirmed",
        BookingStatus::Completed => "completed",
        BookingStatus::Cancelled => "cancelled",
        BookingStatus::Expired => "expired",
    }
}

/// How far an operation is.
pub fn operation_state(state: OperationState) -> &'static str {
    match state {
        OperationState::Planned => "planned",
        OperationState::Running => "running",
        OperationState::Finished => "finished",
    }
}

/// A disturbance's kind.
pub fn disturbance(kind: DisturbanceKind) -> &'static str {
    match kind {
        DisturbanceKind::Unspecified => "disturbance",
        DisturbanceKind::Breakdown => "breakdown",
        DisturbanceKind::Overrun => "overrun",
        DisturbanceKind::Scrap => "scrap",
        DisturbanceKind::OfferWithdrawn => "offer withdrawn",
        DisturbanceKind::LatePart => "late part",
    }
}

/// By which measure an option is best.
pub fn objective(objective: Objective) -> &'static str {
    match objective {
        Objective::Unspecified | Objective::Cheapest => "cheapest",
        Objective::Fastest => "fastest",
        Objective::Greenest => "greenest",
    }
}

/// A principal's role.
pub fn role(role: Role) -> &'static str {
    match role {
        Role::Unspecified => "unspecified",
        Role::Buyer => "buyer",
        Role::Member => "member",
        Role::Agent => "agent",
        Role::Operator => "operator",
        Role::Auditor => "auditor",
    }
}

/// A weekly shift: "mon-fri 18:00-06:00".
pub fn shift(shift: &Shift) -> String {
    const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let name = |day: u32| NAMES.get(day.wrapping_sub(1) as usize).copied().unwrap_or("?");
    let mut parts: Vec<String> = Vec::new();
    let mut days = shift.weekdays.iter().copied().peekable();
    while let Some(first) = days.next() {
        let mut last = first;
        while let Some(next) = days.next_if_eq(&(last + 1)) {
            last = next;
        }
        parts.push(match last - first {
            0 => name(first).to_owned(),
            1 => format!("{},{}", name(first), name(last)),
            _ => format!("{}-{}", name(first), name(last)),
        });
    }
    let hour = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
    format!("{} {}-{}", parts.join(","), hour(shift.start_minute), hour(shift.end_minute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_well() {
        assert_eq!(money(123_456), "1,234.56 CNY");
        assert_eq!(money(-5), "-0.05 CNY");
        assert_eq!(money(100_000_000), "1,000,000.00 CNY");
        assert_eq!(duration(0), "0 s");
        assert_eq!(duration(45), "45 s");
        assert_eq!(duration(5400), "1 h 30 min");
        assert_eq!(duration(3605), "1 h");
        assert_eq!(duration(187_200), "2 d 4 h");
        assert_eq!(duration(-90), "-1 min 30 s");
        assert_eq!(carbon(12_345), "12.35 kg");
        assert_eq!(carbon(4), "0.00 kg");
        assert_eq!(energy(3250), "3.25 kWh");
        assert_eq!(mass(800), "800 g");
        assert_eq!(mass(3000), "3 kg");
        assert_eq!(mass(2500), "2.5 kg");
        assert_eq!(mass(1_200_000), "1,200 kg");
        assert_eq!(share(78, 100), "78.0 %");
        assert_eq!(share(1, 3), "33.3 %");
        assert_eq!(share(0, 0), "–");
    }

    #[test]
    fn times_name_their_offset() {
        let now = "2026-11-25T02:30:00Z".parse().unwrap();
        let there = Clock { now, zone: TimeZone::get("Asia/Shanghai").unwrap() };
        let utc = Clock { now, zone: TimeZone::UTC };
        assert_eq!(time(1_764_320_400, &there), "2025-11-28 17:00+08:00");
        assert_eq!(time(1_764_320_400, &utc), "2025-11-28 09:00Z");
        assert_eq!(time(1_764_320_401, &utc), "2025-11-28 09:00:01Z");
        assert_eq!(time(0, &utc), "–");
        assert_eq!(time(i64::MAX, &utc), "–");
        assert_eq!(relative(utc.now_s() + 432_000, &utc), "in 5 d");
        assert_eq!(relative(utc.now_s() - 60, &utc), "1 min ago");
        assert_eq!(relative(utc.now_s(), &utc), "now");
    }

    #[test]
    fn shifts_are_shown_as_they_are_written() {
        for text in ["mon-fri 18:00-06:00", "sat,sun 00:00-24:00", "mon,wed 08:00-12:30", "tue 08:00-12:00"] {
            assert_eq!(shift(&crate::written::shift(text).unwrap()), text);
        }
    }
}
