//! Parses the times in Google's JSON (RFC 3339, 5.6).

use std::time::Duration;

/// Reads `2026-11-28T18:30:00.5Z`, also with an offset. Returns the time since the epoch, or `None` if the text is not
/// exactly such a time, or is before the epoch.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't'])?;
    let (time, rest) = rest.split_at_checked(8)?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    // A leap second is the last one of its minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (nanos, zone) = fraction(rest)?;
    let seconds = days(year, month, day)? * 86_400 + hour * 3_600 + minute * 60 + second.min(59);
    let seconds = u64::try_from(seconds - offset(zone)?).ok()?;
    Some(Duration::new(seconds, nanos))
}

/// Parses numbers, each of exactly the given number of digits.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut values = [0; N];
    for (value, digits) in values.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits)?;
        if !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *value = part.parse().ok()?;
    }
    parts.next().is_none().then_some(values)
}

/// Returns the fraction of a second in nanoseconds, and the rest of the text.
fn fraction(text: &str) -> Option<(u32, &str)> {
    let Some(rest) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let end = rest
        .bytes()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(rest.len());
    let (digits, zone) = rest.split_at_checked(end)?;
    let kept: String = digits.chars().chain("000000000".chars()).take(9).collect();
    (!digits.is_empty()).then(|| Some((kept.parse().ok()?, zone)))?
}

/// Parses a zone to seconds east of UTC.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match zone.strip_prefix('+') {
        Some(rest) => (1, rest),
        None => (-1, zone.strip_prefix('-')?),
    };
    let [hours, minutes] = numbers(rest, ':', [2, 2])?;
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// Returns the days since the epoch in the Gregorian calendar, or `None` if the day does not exist.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let february = if is_leap { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let index = usize::try_from(month.checked_sub(1)?).ok()?;
    if !(1..=*months.get(index)?).contains(&day) {
        return None;
    }
    let before: i64 = months.iter().take(index).sum();
    // The leap days from 1970 to the year before.
    let past = year - 1;
    let leaps = past / 4 - past / 100 + past / 400 - 477;
    Some((year - 1970) * 365 + leaps + before + day - 1)
}

/// Parses any text and compares the result with that of `humantime`, if it supports the form. `humantime` also accepts a
/// leap second in any minute, and a fraction without digits.
#[cfg(any(fuzzing, test))]
pub(super) fn fuzz_rfc3339(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else {
        return;
    };
    let parsed = parse(text);
    if let Ok(time) = humantime::parse_rfc3339(text)
        && !text.contains(":60")
        && !text.contains(".Z")
    {
        let expected = time.duration_since(std::time::UNIX_EPOCH).ok();
        assert_eq!(parsed, expected, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        parse(text).map(|time| time.as_secs())
    }

    #[test]
    fn fractions_and_offsets_are_parsed() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2014-10-02T15:01:23Z"), Some(1_412_262_083));
        assert_eq!(seconds("2024-02-29T23:59:59z"), Some(1_709_251_199));
        assert_eq!(seconds("2000-03-01t00:00:00Z"), Some(951_868_800));
        assert_eq!(seconds("2014-10-02T17:01:23+02:00"), Some(1_412_262_083));
        assert_eq!(seconds("2014-10-02T09:31:23-05:30"), Some(1_412_262_083));
        assert_eq!(seconds("2016-12-31T23:59:60Z"), Some(1_483_228_799));
        assert_eq!(
            parse("2014-10-02T15:01:23.045123456789Z"),
            Some(Duration::new(1_412_262_083, 45_123_456))
        );
    }

    #[test]
    fn a_text_that_is_not_exactly_a_time_is_rejected() {
        for text in [
            "",
            "1412262083",
            "2014-10-02",
            "2014-10-02T15:01:23",
            "2014-10-02 15:01:23Z",
            "2014-10-02T15:01Z",
            "2014-10-02T15:01:23.Z",
            "2014-10-02T15:01:23,5Z",
            "2014-10-02T15:01:23Z ",
            " 2014-10-02T15:01:23Z",
            "2014-13-02T15:01:23Z",
            "2014-00-02T15:01:23Z",
            "2014-02-29T15:01:23Z",
            "1900-02-29T15:01:23Z",
            "2014-10-32T15:01:23Z",
            "2014-10-02T24:01:23Z",
            "2014-10-02T15:60:23Z",
            "2014-10-02T15:01:61Z",
            "2014-10-02T15:01:23+0200",
            "2014-10-02T15:01:23+24:00",
            "2014-10-02T15:01:23UTC",
            "2014-1-02T15:01:23Z",
            "+014-10-02T15:01:23Z",
            "1969-12-31T23:59:59Z",
            "20141002T150123Z",
            "２014-10-02T15:01:23Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_second_is_parsed_as_humantime_does(since in 0u64..253_402_300_799, nanos in 0u32..1_000_000_000) {
            let time = Duration::new(since, nanos);
            let text = humantime::format_rfc3339_nanos(std::time::UNIX_EPOCH + time).to_string();
            prop_assert_eq!(parse(&text), Some(time));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}|[0-9T:.Z+-]{0,40}") {
            fuzz_rfc3339(text.as_bytes());
        }
    }
}
