//! A JSON number as it was read, and the numbers it can become.

/// The text of a number with what its scan found.
#[derive(Debug, Default)]
pub(super) struct Number<'b> {
    /// Empty for a token.
    pub text: &'b str,
    pub is_negative: bool,
    /// No point and no exponent.
    pub is_integer: bool,
    /// All digits but those of the exponent, as one integer; meaningful up to [`DIGITS_MAX`] of them.
    pub mantissa: u64,
    pub digits: u32,
    /// The value is mantissa × 10^exponent.
    pub exponent: i32,
    /// NaN or Infinity, without its sign.
    pub token: Option<f64>,
}

/// Digits that always fit into the 64 bits of a mantissa.
const DIGITS_MAX: u32 = 19;

/// Powers of ten that an f64 holds exactly.
const TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

impl Number<'_> {
    /// The f64 nearest to the text; infinite only for a token or a text that is out of range.
    #[inline]
    pub fn double(&self) -> f64 {
        if let Some(token) = self.token {
            return if self.is_negative { -token } else { token };
        }
        // Clinger's fast path: mantissa and power of ten are both exact, so the one operation rounds correctly.
        let tens = TENS.get(self.exponent.unsigned_abs() as usize);
        if let Some(tens) = tens.filter(|_| self.digits <= DIGITS_MAX && self.mantissa <= 1 << f64::MANTISSA_DIGITS) {
            let mantissa = self.mantissa as f64;
            let value = if self.exponent < 0 { mantissa / tens } else { mantissa * tens };
            return if self.is_negative { -value } else { value };
        }
        // The scan has checked the grammar, of which Rust's is a superset.
        self.text.parse().unwrap_or(f64::INFINITY)
    }

    /// The f32 nearest to the text, likewise.
    pub fn float(&self) -> f32 {
        match self.token {
            Some(token) if self.is_negative => -token as f32,
            Some(token) => token as f32,
            None => self.text.parse().unwrap_or(f32::INFINITY),
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
