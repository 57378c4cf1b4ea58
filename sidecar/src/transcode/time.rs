//! Dates and instants as text (RFC 3339), in the proleptic Gregorian calendar, years 0001 to 9999.

const DAY_US: i64 = 86_400_000_000;

/// The instants that text can say and that every engine reads: the years 1 to 9999, in microseconds since the epoch.
pub(crate) const MICROS: std::ops::RangeInclusive<i64> = -719_162 * DAY_US..=2_932_897 * DAY_US - 1;

/// Days since the epoch of `YYYY-MM-DD`.
pub(crate) fn days(text: &str) -> Option<i32> {
    date(text.as_bytes()).filter(|_| text.len() == 10)
}

/// Microseconds since the epoch of an RFC 3339 instant with up to six digits of a second.
pub(crate) fn micros(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let days = date(bytes)?;
    let [separator, clock @ ..] = bytes.get(10..)? else { return None };
    if !matches!(separator, b'T' | b't' | b' ') {
        return None;
    }
    let (hour, minute) = hour_and_minute(clock.get(..5)?)?;
    let [b':', seconds @ ..] = clock.get(5..)? else { return None };
    let second = two(seconds)?;
    if second > 59 {
        return None;
    }
    let mut rest = seconds.get(2..)?;
    let mut micros = 0;
    if let [b'.', fraction @ ..] = rest {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=6).contains(&digits) {
            return None;
        }
        micros = fraction[..digits].iter().fold(0, |value, byte| value * 10 + i64::from(byte - b'0'));
        micros *= 10_i64.pow(6 - u32::try_from(digits).ok()?);
        rest = &fraction[digits..];
    }
    let offset_minutes = match rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), offset @ ..] if offset.len() == 5 => {
            let (hour, minute) = hour_and_minute(offset)?;
            (hour * 60 + minute) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let minutes = hour * 60 + minute - offset_minutes;
    Some(i64::from(days) * DAY_US + (minutes * 60 + second) * 1_000_000 + micros)
}

fn hour_and_minute(bytes: &[u8]) -> Option<(i64, i64)> {
    let (hour, minute) = (two(bytes)?, two(bytes.get(3..)?)?);
    (bytes[2] == b':' && hour <= 23 && minute <= 59).then_some((hour, minute))
}

fn two(bytes: &[u8]) -> Option<i64> {
    match bytes {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9', ..] => Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0')),
        _ => None,
    }
}

fn date(bytes: &[u8]) -> Option<i32> {
    let (century, year) = (two(bytes)?, two(bytes.get(2..)?)?);
    let year = century * 100 + year;
    let [b'-', month @ ..] = bytes.get(4..)? else { return None };
    let [b'-', day @ ..] = bytes.get(7..)? else { return None };
    let (month, day) = (two(month)?, two(day)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => return None,
    };
    if year == 0 || !(1..=length).contains(&day) {
        return None;
    }
    // Years from March on, so that the leap day is the last of its year: days before the year, then before the month.
    let year = if month <= 2 { year - 1 } else { year };
    let months = (month + 9) % 12;
    let before_year = 365 * year + year / 4 - year / 100 + year / 400;
    let before_month = (153 * months + 2) / 5;
    // 719,468 days lie between the first of March of year 0 and the epoch.
    i32::try_from(before_year + before_month + day - 1 - 719_468).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_dates() {
        for (text, value) in [
            ("1970-01-01", Some(0)),
            ("1969-12-31", Some(-1)),
            ("2000-02-29", Some(11_016)),
            ("2013-01-31", Some(15_736)),
            ("0001-01-01", Some(-719_162)),
            ("9999-12-31", Some(2_932_896)),
            ("1900-02-29", None),
            ("2013-13-01", None),
            ("2013-04-31", None),
            ("0000-01-01", None),
            ("2013-1-01", None),
            ("2013-01-01Z", None),
            ("", None),
        ] {
            assert_eq!(days(text), value, "{text}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = None;
        for year in 1..=9999 {
            for month in 1..=12 {
                for day in 1..=31 {
                    if let Some(days) = days(&format!("{year:04}-{month:02}-{day:02}")) {
                        assert!(last.is_none_or(|last| days == last + 1), "{year}-{month}-{day}");
                        last = Some(days);
                    }
                }
            }
        }
    }

    #[test]
    fn reads_instants() {
        for (text, value) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01t00:00:00.000001z", Some(1)),
            ("1970-01-01 01:00:00+01:00", Some(0)),
            ("1969-12-31T23:59:59.5-00:00", Some(-500_000)),
            ("2013-01-01T05:15:00-05:00", Some(1_357_035_300_000_000)),
            ("2013-01-01T05:15:00.1234567Z", None),
            ("2013-01-01T05:15:00.Z", None),
            ("2013-01-01T05:15:00", None),
            ("2013-01-01T05:15Z", None),
            ("2013-01-01T24:00:00Z", None),
            ("2013-01-01T23:59:60Z", None),
            ("2013-01-01T05:15:00+0100", None),
            ("2013-01-01T05:15:00+24:00", None),
            ("2013-01-01T05:15:00Zx", None),
            ("2013-01-01", None),
            ("", None),
        ] {
            assert_eq!(micros(text), value, "{text}");
        }
        assert_eq!(micros("0001-01-01T00:00:00Z"), Some(*MICROS.start()));
        assert_eq!(micros("9999-12-31T23:59:59.999999Z"), Some(*MICROS.end()));
    }
}
