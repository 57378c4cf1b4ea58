//! Durations as contracts write them: a whole number and a unit, `5ms`, `30s`, `10m`, `12h`, `30d`.

const UNITS: [(&str, i64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A hundred years: longer is a typing error, and sums of a few stay far from overflow.
const MS_MAX: i64 = 36_525 * 86_400_000;

/// Reads a duration, in milliseconds.
///
/// # Errors
/// A sentence that says what is wrong and what to write.
pub fn parse(text: &str) -> Result<i64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    match (number.parse::<i64>(), factor) {
        (Ok(number), Some(factor)) => number
            .checked_mul(factor)
            .filter(|ms| *ms <= MS_MAX)
            .ok_or_else(|| format!("`{text}` is longer than a hundred years; write a shorter one")),
        _ => Err(format!("`{text}` is no duration; write a whole number and one of ms, s, m, h, d, such as `12h`")),
    }
}

/// The duration in the greatest unit that holds it exactly.
pub fn format(ms: i64) -> String {
    let (unit, factor) = UNITS.iter().rev().find(|(_, factor)| ms % factor == 0).unwrap_or(&UNITS[0]);
    if ms == 0 { "0s".to_owned() } else { format!("{}{unit}", ms / factor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for (text, ms) in
            [("5ms", 5), ("0s", 0), ("90s", 90_000), ("5m", 300_000), ("12h", 43_200_000), ("30d", 2_592_000_000)]
        {
            assert_eq!(parse(text), Ok(ms));
            assert_eq!(format(ms), text);
        }
        assert_eq!(format(120_000), "2m");
    }

    #[test]
    fn refuses_what_is_none() {
        for text in ["", "12", "h", "-1h", "1.5h", "1h30m", "12 h", "9999999999999d", "40000d", "+5m"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
