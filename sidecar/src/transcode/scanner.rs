//! A cursor over JSON text (RFC 8259), and the tokens of it.
//!
//! Beyond the grammar the tokens `NaN`, `Infinity` and `-Infinity` are numbers, since Python writes them.

use super::fault::Reason;
use super::number::{Number, Token};

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
        if self.peek() <= b' ' {
            self.long_space();
        }
    }

    fn long_space(&mut self) {
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

    /// Passes a name with what belongs to it, if they come next. They are compared by words: a call that compares memory
    /// takes longer than that.
    #[inline]
    pub fn take_name(&mut self, name: &[u8]) -> bool {
        let Some(text) = self.bytes.get(self.at..).and_then(|rest| rest.get(..name.len())) else { return false };
        let found = match (name.last_chunk::<8>(), text.last_chunk::<8>()) {
            (Some(name_end), Some(text_end)) => {
                name_end == text_end && name.as_chunks::<8>().0 == text.as_chunks::<8>().0
            }
            _ => name == text,
        };
        if found {
            self.at += name.len();
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

    /// Reads a string whose opening quote is passed, to behind its closing quote. Always inlined, as [`Self::number`].
    #[inline(always)]
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

    /// Reads a number or one of the three tokens. Always inlined: its result is wider than the registers that carry
    /// one, and waiting for it to come back through memory took a third of the time of a double.
    #[inline(always)]
    pub fn number(&mut self) -> Result<Number, Broken> {
        let start = self.at;
        let is_negative = self.peek() == b'-';
        let first = start + usize::from(is_negative);
        self.at = first;
        match self.peek() {
            b'0'..=b'9' => {}
            b'N' if !is_negative && self.take(b"NaN") => return Ok(Number::token(Token::NaN, is_negative)),
            b'I' if self.take(b"Infinity") => return Ok(Number::token(Token::Infinity, is_negative)),
            _ if is_negative => return Err(self.broken("a digit is missing")),
            _ => return Err(self.broken("no value begins like this")),
        }
        let (mut mantissa, mut at) = digits(self.bytes, first, 0);
        let mut digit_count = at - first;
        if digit_count > 1 && self.peek() == b'0' {
            return Err(self.broken("a number begins with 0"));
        }
        let mut is_integer = true;
        let mut exponent = 0;
        if self.bytes.get(at) == Some(&b'.') {
            is_integer = false;
            let before = at + 1;
            (mantissa, at) = digits(self.bytes, before, mantissa);
            if at == before {
                self.at = at;
                return Err(self.broken("a digit is missing after the point"));
            }
            digit_count += at - before;
            exponent = -i32::try_from(at - before).unwrap_or(i32::MAX);
        }
        self.at = at;
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            is_integer = false;
            exponent = exponent.saturating_add(self.exponent()?);
        }
        Ok(Number { start, is_negative, is_integer, token: Token::None, mantissa, digits: digit_count, exponent })
    }

    /// What was passed since `start`.
    pub fn text_since(&self, start: usize) -> &'b str {
        self.text.get(start..self.at).unwrap_or_default()
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

/// The eight bytes from `at` on, the first as the lowest.
#[inline]
fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

/// Reads digits from `at` on as further ones of `mantissa`: the mantissa, and where they end.
#[inline(always)]
fn digits(bytes: &[u8], mut at: usize, mut mantissa: u64) -> (u64, usize) {
    while let Some(word) = word_at(bytes, at) {
        // A digit becomes its value; adding 0x76 to anything from 10 on sets the top bit of its byte. Above the first
        // byte that is no digit the bits mean nothing.
        let digits = word ^ (ONES * b'0' as u64);
        let others = (digits | digits.wrapping_add(ONES * 0x76)) & (ONES * 0x80);
        if others != 0 {
            // How many there are is found without a branch, since how long a number is cannot be foretold. They move up
            // to the end of the word, and zeros come before them.
            let count = others.trailing_zeros() as usize / 8;
            let value = eight_digits((digits << 8) << (56 - 8 * count));
            return (mantissa.wrapping_mul(TENS[count]).wrapping_add(value), at + count);
        }
        // Apart from that, so that the next word need not wait for the count of this one.
        mantissa = mantissa.wrapping_mul(100_000_000).wrapping_add(eight_digits(digits));
        at += 8;
    }
    while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
        mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        at += 1;
    }
    (mantissa, at)
}

/// One in each byte of a word.
const ONES: u64 = 0x0101_0101_0101_0101;

/// Powers of ten by exponent.
const TENS: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// The number whose eight digits the bytes of a word are, the lowest byte being the first.
#[inline]
fn eight_digits(digits: u64) -> u64 {
    // Neighbours are joined in all lanes of the word at once: digits to two, two to four, four to eight.
    let twos = (digits * 10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (twos * 100).wrapping_add(twos >> 16) & 0x0000_ffff_0000_ffff;
    (fours * 10_000).wrapping_add(fours >> 32) & 0xffff_ffff
}

/// The first quote, backslash or control character of `bytes` from `at`, or its end.
#[inline]
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    const TOPS: u64 = 0x8080_8080_8080_8080;
    // Eight bytes at a time. The least significant top bit set in `special` is that of the first such byte; bits
    // above it may be false.
    while let Some(word) = word_at(bytes, at) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_where_all_of_it_comes() {
        for name in ["a\":", "aaaa_f\":", "aaaa_fe\":", "first_distance\":", "a_name_of_more_than_two_words\":"] {
            let text = format!("{name}1");
            let mut scanner = Scanner::new(&text);
            assert!(scanner.take_name(name.as_bytes()) && scanner.at == name.len());
            assert!(!scanner.take_name(name.as_bytes()), "the text is over");
            // One byte is another, wherever it is.
            for at in 0..name.len() {
                let mut other = text.clone().into_bytes();
                other[at] ^= 1;
                let other = String::from_utf8(other).unwrap();
                let mut scanner = Scanner::new(&other);
                assert!(!scanner.take_name(name.as_bytes()) && scanner.at == 0, "{other}");
            }
        }
    }
}
