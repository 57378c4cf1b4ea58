//! Decimal text, read exactly.

use super::fault::Reason;

/// The unscaled value of `text` for a decimal of `precision` and `scale`.
///
/// # Errors
/// `invalid_value` for another notation, `out_of_range` for a number that the type cannot hold exactly.
pub(super) fn unscaled(text: &str, precision: u8, scale: u8) -> Result<i128, (Reason, &'static str)> {
    const NOTATION: (Reason, &str) =
        (Reason::InvalidValue, "a decimal is text of digits with an optional minus and point, such as \"-12.50\"");
    const TOO_GREAT: (Reason, &str) = (Reason::OutOfRange, "the number has more digits than the decimal's precision");
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, "")) => return Err(NOTATION),
        Some(parts) => parts,
        None => (digits, ""),
    };
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(NOTATION);
    }
    let scale = usize::from(scale);
    if fraction.bytes().skip(scale).any(|byte| byte != b'0') {
        return Err((Reason::OutOfRange, "the number has more digits after the point than the decimal's scale"));
    }
    let zeros = std::iter::repeat_n(b'0', scale.saturating_sub(fraction.len()));
    let mut value = 0_i128;
    // A precision of 38 is the most: 10^38 is within 127 bits, ten times as much is not.
    let room = 10_i128.pow(u32::from(precision.clamp(1, 38)) - 1);
    for digit in whole.bytes().chain(fraction.bytes().take(scale)).chain(zeros) {
        if value >= room {
            return Err(TOO_GREAT);
        }
        value = value * 10 + i128::from(digit - b'0');
    }
    Ok(if digits.len() < text.len() { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_exactly() {
        for (text, precision, scale, value) in [
            ("0", 1, 0, 0),
            ("-0.0", 3, 1, 0),
            ("12.5", 4, 2, 1250),
            ("-12.50", 4, 2, -1250),
            ("12.500", 4, 2, 1250),
            ("0012.5", 4, 2, 1250),
            ("0.01", 2, 2, 1),
            ("99999999999999999999999999999999999999", 38, 0, 10_i128.pow(38) - 1),
            ("-0.99999999999999999999999999999999999999", 38, 38, 1 - 10_i128.pow(38)),
        ] {
            assert_eq!(unscaled(text, precision, scale), Ok(value), "{text}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_hold() {
        for (text, reason) in [
            ("", Reason::InvalidValue),
            ("-", Reason::InvalidValue),
            (".5", Reason::InvalidValue),
            ("1.", Reason::InvalidValue),
            ("+1", Reason::InvalidValue),
            ("1e2", Reason::InvalidValue),
            ("1.2.3", Reason::InvalidValue),
            ("١", Reason::InvalidValue),
            ("1.005", Reason::OutOfRange),
            ("100", Reason::OutOfRange),
            ("-100.00", Reason::OutOfRange),
            ("170141183460469231731687303715884105728", Reason::OutOfRange),
        ] {
            assert_eq!(unscaled(text, 4, 2).map_err(|(reason, _)| reason), Err(reason), "{text}");
        }
        // Ten times the greatest has more than 127 bits.
        for digits in [39, 40, 41, 77, 200] {
            for first in 1..=9 {
                let text = format!("{first}{}", "9".repeat(digits - 1));
                assert_eq!(unscaled(&text, 38, 0).map_err(|(reason, _)| reason), Err(Reason::OutOfRange), "{text}");
            }
        }
    }
}
