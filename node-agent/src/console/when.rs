//! Times as people write them: `14:30`, `+90m`, `-10m`, or RFC 3339.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

/// In which direction a time of day is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The last time that it was that late.
    Past,
    /// The next time that it is.
    Future,
}

/// Reads a time, seen from `now_ms`. Answers in ms since the Unix epoch.
pub fn read(text: &str, now_ms: i64, zone: &TimeZone, direction: Direction) -> Result<i64, String> {
    let accepted =
        || format!("{text:?}: accepted is a time of day (14:30), a span (+90m, -10m), or RFC 3339");
    if let Some(span) = text.strip_prefix('+') {
        return Ok(now_ms.saturating_add(span_ms(span).ok_or_else(accepted)?));
    }
    if let Some(span) = text.strip_prefix('-') {
        return Ok(now_ms.saturating_sub(span_ms(span).ok_or_else(accepted)?));
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.as_millisecond());
    }
    let time = Time::strptime("%H:%M", text).map_err(|_| accepted())?;
    let now = Timestamp::from_millisecond(now_ms).map_err(|_| accepted())?.to_zoned_datetime(zone.clone());
    let on = |date: jiff::civil::Date| date.to_datetime(time).to_zoned_datetime(zone.clone()).ok();
    let today = on(now.date()).ok_or_else(accepted)?;
    let found = match direction {
        Direction::Past if today > now => now.date().checked_sub(1.day()).ok().and_then(on),
        Direction::Future if today <= now => now.date().checked_add(1.day()).ok().and_then(on),
        _ => Some(today),
    };
    Ok(found.ok_or_else(accepted)?.timestamp().as_millisecond())
}

/// Reads a span, such as `10m` or `1h30m`. Answers in seconds.
pub fn span_s(text: &str) -> Result<u64, String> {
    let span_s = span_ms(text).and_then(|ms| u64::try_from(ms / 1000).ok());
    span_s.ok_or_else(|| format!("{text:?}: accepted is a span, such as 10m or 1h30m"))
}

fn span_ms(span: &str) -> Option<i64> {
    let span: SignedDuration = span.parse().ok()?;
    i64::try_from(span.as_millis()).ok().filter(|ms| *ms >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_meant() {
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        // 2026-11-27, 14:00 in the plant.
        let now_ms = "2026-11-27T06:00:00Z".parse::<Timestamp>().unwrap().as_millisecond();
        let told = |text: &str, direction| read(text, now_ms, &zone, direction);
        let at = |text: &str| Ok(text.parse::<Timestamp>().unwrap().as_millisecond());
        assert_eq!(told("13:30", Direction::Past), at("2026-11-27T05:30:00Z"));
        assert_eq!(told("14:30", Direction::Past), at("2026-11-26T06:30:00Z"));
        assert_eq!(told("14:30", Direction::Future), at("2026-11-27T06:30:00Z"));
        assert_eq!(told("13:30", Direction::Future), at("2026-11-28T05:30:00Z"));
        assert_eq!(told("-10m", Direction::Past), at("2026-11-27T05:50:00Z"));
        assert_eq!(told("+1h30m", Direction::Future), at("2026-11-27T07:30:00Z"));
        assert_eq!(told("2026-11-27T09:00:00+08:00", Direction::Past), at("2026-11-27T01:00:00Z"));
        for wrong in ["", "25:00", "soon", "+soon", "--5m", "+"] {
            assert!(told(wrong, Direction::Past).is_err(), "{wrong:?}");
        }
    }
}
