//! A cursor over JSON text (RFC 8259), and the tokens of it.
//!
//! Beyond the grammar the tokens `NaN`, `Infinity` and `-Infinity` are numbers, since Python writes them.

use super::fault::Reason;
use super::number::Number;

/// Objects and arrays inside one another. A contract's bodies need four; the rest is skipped, with a bit for each.
pub(super) const DEPTH_MAX: u32 = 64;

/// Where and why the text is no JSON: nothing after it can be read.
#[derive(Debug)]
pub(super) struct Broken {
    pub at: usize,
    pub reason: Reason,
    pub what: &'static str,
}

/// A string between its quotes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'b> {
    pub text: &'b str,
    pub has_escapes: bool,
}

#[derive(Debug)]
pub(super) struct Scanner<'b> {
    text: &'b str,
    bytes: &'b [u8],
    pub at: usize,
}

impl<'b> Scanner<'b> {
    pub fn new(text: &'b str) -> Scanner<'b> {
        Scanner { text, bytes: text.as_bytes(), at: 0 }
    }

    /// The next byte; 0, which no token begins with, at the end.
    #[inline]
    pub fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Passes white space.
    #[inline]
    pub fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    pub fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub fn broken(&self, what: &'static str) -> Broken {
        Broken { at: self.at, reason: Reason::InvalidJson, what }
    }

    /// Passes `prefix` if it comes next.
    #[inline]
    pub fn take(&mut self, prefix: &[u8]) -> bool {
        let found = self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(prefix));
        if found {
            self.at += prefix.len();
        }
        found
    }

    /// Passes a colon with white space about it.
    #[inline]
    pub fn colon(&mut self) -> Result<(), Broken> {
        self.space();
        if self.peek() != b':' {
            return Err(self.broken("a colon is missing after a key"));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// Passes what stands after a member of an object: true if another follows, its opening quote being passed.
    #[inline]
    pub fn next_member(&mut self) -> Result<bool, Broken> {
        self.space();
        match self.peek() {
            b',' => {
                self.at += 1;
                self.space();
                self.quote()?;
                Ok(true)
            }
            b'}' => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.broken("a comma or a closing brace is missing")),
        }
    }

    /// Passes the brace of an object: true if it has a member, its opening quote being passed.
    #[inline]
    pub fn first_member(&mut self) -> Result<bool, Broken> {
        self.at += 1;
        self.space();
        if self.peek() == b'}' {
            self.at += 1;
            return Ok(false);
        }
        self.quote()?;
        Ok(true)
    }

    /// Passes the bracket of an array: true if it has an item.
    pub fn first_item(&mut self) -> bool {
        self.at += 1;
        self.space();
        if self.peek() == b']' {
            self.at += 1;
            return false;
        }
        true
    }

    /// Passes what stands after an item of an array: true if another follows.
    #[inline]
    pub fn next_item(&mut self) -> Result<bool, Broken> {
        self.space();
        let more = match self.peek() {
            b',' => true,
            b']' => false,
            _ => return Err(self.broken("a comma or a closing bracket is missing")),
        };
        self.at += 1;
        self.space();
        Ok(more)
    }

    #[inline]
    fn quote(&mut self) -> Result<(), Broken> {
        if self.peek() != b'"' {
            return Err(self.broken("a key in double quotes is missing"));
        }
        self.at += 1;
        Ok(())
    }

    /// Reads a string whose opening quote is passed, to behind its closing quote.
    #[inline]
    pub fn string(&mut self) -> Result<Raw<'b>, Broken> {
        let start = self.at;
        let mut has_escapes = false;
        loop {
            self.at = plain_end(self.bytes, self.at);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    let text = self.text.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(Raw { text, has_escapes });
                }
                Some(b'\\') => {
                    has_escapes = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.broken("a control character in a string; it must be escaped")),
                None => {
                    self.at = self.bytes.len();
                    return Err(self.broken("the body ends within a string"));
                }
            }
        }
    }

    #[cold]
    fn escape(&mut self) -> Result<(), Broken> {
        let length = match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => 6,
            _ => return Err(self.broken("an escape that JSON does not know")),
        };
        let digits = self.bytes.get(self.at + 2..self.at + length);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(self.broken("four hexadecimal digits are missing"));
        }
        self.at += length;
        Ok(())
    }

    /// Passes `null`, `true` or `false`.
    #[inline]
    pub fn literal(&mut self, word: &'static str) -> Result<(), Broken> {
        if self.take(word.as_bytes()) { Ok(()) } else { Err(self.broken("no value begins like this")) }
    }

    /// Reads a number or one of the three tokens.
    #[inline]
    pub fn number(&mut self) -> Result<Number<'b>, Broken> {
        let start = self.at;
        let is_negative = self.peek() == b'-';
        if is_negative {
            self.at += 1;
        }
        let mut number = Number { is_negative, ..Number::default() };
        match self.peek() {
            b'0' => {
                self.at += 1;
                number.digits = 1;
            }
            b'1'..=b'9' => self.digits(&mut number),
            b'N' if !is_negative && self.take(b"NaN") => {
                number.token = Some(f64::NAN);
                return Ok(number);
            }
            b'I' if self.take(b"Infinity") => {
                number.token = Some(f64::INFINITY);
                return Ok(number);
            }
            _ => return Err(self.broken(if is_negative { "a digit is missing" } else { "no value begins like this" })),
        }
        number.is_integer = true;
        if self.peek() == b'.' {
            self.at += 1;
            number.is_integer = false;
            let before = number.digits;
            self.digits(&mut number);
            if number.digits == before {
                return Err(self.broken("a digit is missing after the point"));
            }
            number.exponent = -i32::try_from(number.digits - before).unwrap_or(i32::MAX);
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            number.is_integer = false;
            number.exponent = number.exponent.saturating_add(self.exponent()?);
        }
        number.text = self.text.get(start..self.at).unwrap_or_default();
        Ok(number)
    }

    #[inline]
    fn digits(&mut self, number: &mut Number<'b>) {
        while let digit @ 0..=9 = self.peek().wrapping_sub(b'0') {
            number.mantissa = number.mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            number.digits += 1;
            self.at += 1;
        }
    }

    fn exponent(&mut self) -> Result<i32, Broken> {
        let is_negative = self.peek() == b'-';
        if matches!(self.peek(), b'-' | b'+') {
            self.at += 1;
        }
        if !self.peek().is_ascii_digit() {
            return Err(self.broken("a digit is missing in the exponent"));
        }
        let mut exponent = 0_i32;
        while let digit @ 0..=9 = self.peek().wrapping_sub(b'0') {
            exponent = exponent.saturating_mul(10).saturating_add(i32::from(digit));
            self.at += 1;
        }
        Ok(if is_negative { -exponent } else { exponent })
    }

    /// Passes one value of any shape.
    pub fn skip(&mut self) -> Result<(), Broken> {
        // One bit per open bracket, the innermost lowest: 1 for an object.
        let mut open = 0_u64;
        let mut depth = 0_u32;
        loop {
            let first = self.peek();
            let mut is_done = true;
            match first {
                b'{' | b'[' => {
                    if depth == DEPTH_MAX {
                        return Err(Broken {
                            at: self.at,
                            reason: Reason::TooDeep,
                            what: "too many brackets are open",
                        });
                    }
                    open = (open << 1) | u64::from(first == b'{');
                    depth += 1;
                    is_done = if first == b'{' { !self.first_member()? } else { !self.first_item() };
                    if is_done {
                        open >>= 1;
                        depth -= 1;
                    } else if first == b'{' {
                        self.string()?;
                        self.colon()?;
                    }
                }
                b'"' => {
                    self.at += 1;
                    self.string()?;
                }
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                _ => {
                    self.number()?;
                }
            }
            while is_done && depth > 0 {
                if open & 1 == 1 {
                    if self.next_member()? {
                        self.string()?;
                        self.colon()?;
                        is_done = false;
                    }
                } else if self.next_item()? {
                    is_done = false;
                }
                if is_done {
                    open >>= 1;
                    depth -= 1;
                }
            }
            if is_done {
                return Ok(());
            }
        }
    }

    /// What kind of value comes next, in words.
    pub fn found(&self) -> &'static str {
        match self.peek() {
            b'"' => "a string",
            b'{' => "an object",
            b'[' => "an array",
            b't' | b'f' => "a boolean",
            b'n' => "null",
            b'N' | b'I' => "NaN or Infinity",
            _ => "a number",
        }
    }
}

/// The first quote, backslash or control character of `bytes` from `at`, or its end.
#[inline]
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    // Eight bytes at a time. The least significant top bit set in `special` is that of the first such byte; bits
    // above it may be false.
    while let Some(Ok(word)) = bytes.get(at..).and_then(|rest| rest.get(..8)).map(<[u8; 8]>::try_from) {
        let word = u64::from_le_bytes(word);
        let quote = word ^ (ONES * b'"' as u64);
        let slash = word ^ (ONES * b'\\' as u64);
        let special = (quote.wrapping_sub(ONES) & !quote)
            | (slash.wrapping_sub(ONES) & !slash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let special = special & TOPS;
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)) {
        at += 1;
    }
    at
}

/// Writes `raw` without its escapes over `text`. False where it has half a surrogate pair, which no text can hold: a
/// replacement character stands for it.
pub(super) fn unescape(raw: Raw<'_>, text: &mut String) -> bool {
    text.clear();
    let mut is_whole = true;
    let mut rest = raw.text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        text.push_str(plain);
        let mut characters = escape.chars();
        let character = match characters.next() {
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let (code, after) = code_point(characters.as_str());
                characters = after.chars();
                char::from_u32(code).unwrap_or_else(|| {
                    is_whole = false;
                    char::REPLACEMENT_CHARACTER
                })
            }
            // The scan has let pass no other escape than the three that stand for themselves.
            other => other.unwrap_or_default(),
        };
        text.push(character);
        rest = characters.as_str();
    }
    text.push_str(rest);
    is_whole
}

/// The code point of the escape whose `\u` is passed, of a pair where it is one, and what follows it.
fn code_point(escape: &str) -> (u32, &str) {
    let hex = |digits: &str| u32::from_str_radix(digits, 16).unwrap_or_default();
    let (high, after) = escape.split_at_checked(4).unwrap_or_default();
    let high = hex(high);
    if (0xd800..0xdc00).contains(&high)
        && let Some((low, after)) = after.strip_prefix("\\u").and_then(|rest| rest.split_at_checked(4))
        && let low @ 0xdc00..0xe000 = hex(low)
    {
        return (0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00), after);
    }
    (high, after)
}
