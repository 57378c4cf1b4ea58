//! A JSON number as it was read, and the numbers it can become.

use super::scanner::Scanner;

/// What the scan of a number found. Its text is what the scanner has passed since `start`.
#[derive(Debug, Default)]
pub(super) struct Number {
    pub start: usize,
    pub is_negative: bool,
    /// No point and no exponent.
    pub is_integer: bool,
    pub token: Token,
    /// All digits but those of the exponent, as one integer; meaningful up to [`DIGITS_MAX`] of them.
    pub mantissa: u64,
    pub digits: usize,
    /// The value is mantissa × 10^exponent.
    pub exponent: i32,
}

/// The numbers that have no digits.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    #[default]
    None,
    NaN,
    Infinity,
}

/// Digits that always fit into the 64 bits of a mantissa.
const DIGITS_MAX: usize = 19;

/// Powers of ten that an f64 holds exactly.
const TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// A power of five that 64 bits hold, made ready to divide by.
#[derive(Clone, Copy)]
struct Five {
    /// Shifted up until it fills 64 bits.
    shifted: u64,
    shift: u32,
    /// (2^127 − 1) / `shifted`, rounded down.
    reciprocal: u64,
}

/// By exponent.
const FIVES: [Five; 28] = {
    let mut fives = [Five { shifted: 0, shift: 0, reciprocal: 0 }; 28];
    let mut five = 1_u64;
    let mut place = 0;
    while place < fives.len() {
        let shift = five.leading_zeros();
        let shifted = five << shift;
        // The divisor has 64 bits, and so has this.
        let reciprocal = ((u128::MAX >> 1) / shifted as u128) as u64;
        fives[place] = Five { shifted, shift, reciprocal };
        // The last of them is the greatest.
        five = five.wrapping_mul(5);
        place += 1;
    }
    fives
};

impl Number {
    pub fn token(token: Token, is_negative: bool) -> Number {
        Number { token, is_negative, ..Number::default() }
    }

    /// The f64 nearest to the text; infinite only for a token or a text that is out of range.
    #[inline]
    pub fn double(&self, scanner: &Scanner<'_>) -> f64 {
        match self.token {
            Token::None => {}
            // The one quiet NaN, without a sign.
            Token::NaN => return f64::NAN,
            Token::Infinity => return if self.is_negative { f64::NEG_INFINITY } else { f64::INFINITY },
        }
        if (self.digits <= DIGITS_MAX || self.has_few_digits(scanner))
            && let Some(value) = nearest(self.mantissa, self.exponent)
        {
            return if self.is_negative { -value } else { value };
        }
        // The scan has checked the grammar, of which Rust's is a superset.
        scanner.text_since(self.start).parse().unwrap_or(f64::INFINITY)
    }

    /// Whether the digits from the first that is not 0 fit into the mantissa.
    fn has_few_digits(&self, scanner: &Scanner<'_>) -> bool {
        let text = scanner.text_since(self.start).bytes();
        let zeros = text.skip_while(|byte| *byte == b'-').take_while(|byte| matches!(byte, b'0' | b'.'));
        self.digits <= DIGITS_MAX + zeros.filter(|byte| *byte == b'0').count()
    }

    /// The f32 nearest to the text, likewise.
    pub fn float(&self, scanner: &Scanner<'_>) -> f32 {
        match self.token {
            Token::None => {
                let double = self.double(scanner);
                match narrowed(double) {
                    Some(value) => value,
                    None => scanner.text_since(self.start).parse().unwrap_or(f32::INFINITY),
                }
            }
            Token::NaN => f32::NAN,
            Token::Infinity if self.is_negative => f32::NEG_INFINITY,
            Token::Infinity => f32::INFINITY,
        }
    }

    /// The integer, where the text is one and it fits.
    #[inline]
    pub fn long(&self) -> Option<i64> {
        if !self.is_integer || self.digits > DIGITS_MAX {
            return None;
        }
        if self.is_negative { 0_i64.checked_sub_unsigned(self.mantissa) } else { i64::try_from(self.mantissa).ok() }
    }
}

/// The f64 nearest to mantissa × 10^exponent, ties to even, for the exponents that most numbers have.
#[inline]
fn nearest(mantissa: u64, exponent: i32) -> Option<f64> {
    // Zero is zero with any exponent.
    if exponent == 0 || mantissa == 0 {
        return Some(mantissa as f64);
    }
    let places = exponent.unsigned_abs() as usize;
    // Clinger's fast path ("How to read floating point numbers accurately", 1990): both factors are exact, so the one
    // operation rounds correctly.
    if mantissa <= 1 << f64::MANTISSA_DIGITS
        && let Some(tens) = TENS.get(places)
    {
        let mantissa = mantissa as f64;
        return Some(if exponent < 0 { mantissa / tens } else { mantissa * tens });
    }
    let five = FIVES.get(places).filter(|_| exponent < 0)?;
    Some(divide(mantissa, five, exponent))
}

/// The f64 nearest to mantissa / 10^places, by integer division, where `five` is 5^places, `exponent` is −places and
/// the mantissa is not 0.
///
/// With both numbers shifted to fill 64 bits the quotient has 63 or 64 bits, ten more than an f64 holds; with the
/// remainder it says on which side of the middle the value lies. Nothing is near the subnormals: 10^-27 is the least.
#[inline]
fn divide(mantissa: u64, five: &Five, exponent: i32) -> f64 {
    let up = mantissa.leading_zeros();
    let (quotient, is_exact) = five.divide(mantissa << up);
    let drop = 11 - quotient.leading_zeros();
    let (kept, rest, half) = (quotient >> drop, quotient & ((1 << drop) - 1), 1 << (drop - 1));
    let is_up = rest > half || (rest == half && (!is_exact || kept & 1 == 1));
    let power = drop.cast_signed() + five.shift.cast_signed() - up.cast_signed() - 63 + exponent;
    // Both factors are exact: at most 2^53, and a power of two that is no subnormal.
    let power = f64::from_bits(u64::from((1023 + power).cast_unsigned()) << 52);
    (kept + u64::from(is_up)) as f64 * power
}

impl Five {
    /// `dividend` × 2^63 / `shifted`, rounded down, and whether nothing is left. The dividend fills 64 bits.
    ///
    /// Multiplied by the reciprocal it is at most two less than that: one for what was rounded off the reciprocal, one for
    /// what is rounded off here.
    #[inline]
    fn divide(&self, dividend: u64) -> (u64, bool) {
        let guess = (u128::from(dividend) * u128::from(self.reciprocal)) >> 64;
        let divisor = u128::from(self.shifted);
        let rest = (u128::from(dividend) << 63) - guess * divisor;
        let more = u64::from(rest >= divisor) + u64::from(rest >= 2 * divisor);
        (guess as u64 + more, rest == u128::from(more) * divisor)
    }
}

/// The f32 nearest to the text of which `double` is the nearest f64.
///
/// Rounding twice goes wrong only where the first rounding ends in the middle between two of the second: the text may be on
/// either side of it. Subnormals, whose middles lie elsewhere, are left out.
#[inline]
fn narrowed(double: f64) -> Option<f32> {
    /// The bits of an f64 below those of an f32.
    const BELOW: u32 = f64::MANTISSA_DIGITS - f32::MANTISSA_DIGITS;
    let is_middle = double.to_bits() & ((1 << BELOW) - 1) == 1 << (BELOW - 1);
    let value = double as f32;
    (!is_middle && (value.is_normal() || double == 0.0)).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(mantissa: u64, exponent: i32) {
        if let Some(value) = nearest(mantissa, exponent) {
            let expected: f64 = format!("{mantissa}e{exponent}").parse().unwrap();
            assert_eq!(value.to_bits(), expected.to_bits(), "{mantissa}e{exponent}");
        }
    }

    /// Values in the middle between two doubles, and a step beside it: the hardest to round.
    #[test]
    fn middles_are_rounded_to_even() {
        for exponent in -27..=0_i32 {
            for bits in [1_u64 << 53, (1 << 53) + 1, (1 << 54) - 1, (1 << 54) - 3] {
                // bits × 2^exponent has an odd last bit below the 53 that are kept; × 10^-exponent it is an integer.
                let middle = u128::from(bits | 1) * 5_u128.pow(exponent.unsigned_abs());
                for mantissa in [middle - 1, middle, middle + 1] {
                    if let Ok(mantissa) = u64::try_from(mantissa) {
                        check(mantissa, exponent);
                    }
                }
            }
        }
        check(9_007_199_254_740_993, 0);
        check(9_007_199_254_740_993, -1);
        check(u64::MAX, -27);
        check(1 << 54 | 1, -22);
    }

    #[test]
    fn quotients_are_exact() {
        let (low, high) = (1_u64 << 63, u64::MAX);
        for five in &FIVES {
            let d = five.shifted;
            let mut word = 0x9e37_79b9_7f4a_7c15_u64;
            let random = (0..20_000).map(|_| {
                word = word.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
                word | low
            });
            for dividend in [low, low + 1, d, d - 1, d.saturating_add(1), high - 1, high].into_iter().chain(random) {
                let dividend = dividend | low;
                let (quotient, rest) =
                    ((u128::from(dividend) << 63) / u128::from(d), (u128::from(dividend) << 63) % u128::from(d));
                assert_eq!(five.divide(dividend), (u64::try_from(quotient).unwrap(), rest == 0), "{dividend} / {d}");
            }
        }
    }

    /// Texts that lie on the middle between two f32 and just beside it: nearer to it than any f64 but itself.
    #[test]
    fn floats_are_rounded_once() {
        for bits in (0..0x7f7f_ffff).step_by(0x3_1337).chain([0, 1, 0x7f_ffff, 0x80_0000, 0x7f7f_fffe]) {
            let (low, high) = (f32::from_bits(bits), f32::from_bits(bits + 1));
            let middle = f64::midpoint(low.into(), high.into());
            let exact = format!("{middle:.160}");
            for text in
                [exact.clone(), format!("{exact}1"), format!("-{exact}1"), format!("{middle}"), format!("{low}")]
            {
                let mut scanner = Scanner::new(&text);
                let Ok(number) = scanner.number() else { panic!("{text}") };
                assert_eq!(number.float(&scanner).to_bits(), text.parse::<f32>().unwrap().to_bits(), "{text}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

        #[test]
        fn every_value_is_the_nearest(mantissa: u64, bits in 0..64_u32, exponent in -30..30_i32) {
            check(mantissa >> bits, exponent);
        }
    }
}
