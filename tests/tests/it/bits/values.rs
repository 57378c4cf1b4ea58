//! Random values of every type of a contract: first the value, then one of the many ways to spell it in JSON.
//!
//! What is expected in the table comes from the value, or from the standard library's reading of the text; nothing of
//! Flywheel's own parsing is asked.

use serde_json::{Value, json};

use super::spelling;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn word(&mut self) -> u64 {
        crate::chaos::next(&mut self.0)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.word() % end
    }

    /// Once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    pub fn within(&mut self, from: i64, to: i64) -> i64 {
        from + (self.word() % (to - from + 1) as u64) as i64
    }
}

/// The JSON of a value, and its cell as `bits.py` shows it.
pub type Spelt = (String, Value);

/// A value of the type that a contract calls `ty`.
pub fn any(random: &mut Random, ty: &str) -> Spelt {
    if let Some(item) = ty.strip_prefix("list<").and_then(|rest| rest.strip_suffix('>')) {
        let items: Vec<Spelt> = (0..random.below(5)).map(|_| any(random, item)).collect();
        let (texts, cells): (Vec<String>, Vec<Value>) = items.into_iter().unzip();
        let comma = format!("{},{}", spelling::space(random), spelling::space(random));
        return (format!("[{}]", texts.join(&comma)), Value::Array(cells));
    }
    if let Some(places) = ty.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')) {
        let (precision, scale) = places.split_once(',').unwrap();
        return decimal(random, precision.parse().unwrap(), scale.parse().unwrap());
    }
    match ty {
        "boolean" => {
            let value = random.once_in(2);
            (value.to_string(), json!(value.to_string()))
        }
        "int" => integer(random, i32::MIN.into(), i32::MAX.into()),
        "long" => integer(random, i64::MIN, i64::MAX),
        "double" => double(random),
        "float" => float(random),
        "string" => {
            let text = string(random);
            (spelling::string(random, &text), json!(hex(text.as_bytes())))
        }
        "bytes" => {
            let bytes: Vec<u8> = (0..random.below(40)).map(|_| random.word() as u8).collect();
            let text = base64(&bytes);
            (spelling::string(random, &text), json!(hex(&bytes)))
        }
        "uuid" => {
            let text = uuid::Uuid::from_u64_pair(random.word(), random.word()).to_string();
            let is_upper = random.once_in(2);
            let spelt = if is_upper { text.to_uppercase() } else { text.clone() };
            (spelling::string(random, &spelt), json!(hex(text.as_bytes())))
        }
        "date" => {
            let (text, days) = day(random);
            (spelling::string(random, &text), json!(days.to_string()))
        }
        "timestamp" => timestamp(random),
        other => panic!("no values of {other}"),
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn integer(random: &mut Random, min: i64, max: i64) -> Spelt {
    let value = match random.below(6) {
        0 => random.of(&[min, max, min + 1, max - 1]),
        1 => random.of(&[0, -1, 1, (1 << 53) + 1, -(1 << 53) - 1, i64::from(i32::MAX) + 1]),
        _ => random.word() as i64 >> random.below(64),
    };
    let value = value.clamp(min, max);
    let text = if value == 0 && random.once_in(2) { "-0".to_owned() } else { value.to_string() };
    (text, json!(value.to_string()))
}

fn double(random: &mut Random) -> Spelt {
    const SPECIAL: [f64; 12] = [
        0.0,
        -0.0,
        f64::MIN_POSITIVE,
        f64::MAX,
        f64::MIN,
        f64::EPSILON,
        0.1,
        0.1 + 0.2,
        1.0 / 3.0,
        9_007_199_254_740_993.0,
        1e23,
        2.225_073_858_507_201e-308,
    ];
    let text = match random.below(10) {
        0 => {
            let token = random.of(&["NaN", "Infinity", "-Infinity"]);
            let bits = if token == "NaN" { 0x7ff8_0000_0000_0000 } else { token.parse::<f64>().unwrap().to_bits() };
            return (token.to_owned(), json!(format!("{bits:016x}")));
        }
        1 => spelling::double(random, SPECIAL[random.0 as usize % SPECIAL.len()]),
        // Subnormals, down to the least.
        2 => {
            let bits = (random.word() & 0x800f_ffff_ffff_ffff) >> 1 >> random.below(51);
            spelling::double(random, f64::from_bits(bits))
        }
        // Texts of 17 and more digits, which no double gave.
        3 => {
            let digits = random.within(1, 21) as usize;
            let mantissa: String = (0..digits).map(|_| char::from(b'0' + random.below(10) as u8)).collect();
            format!("{}.{mantissa}e{}", random.within(-9, 9), random.within(-330, 300))
        }
        // An odd integer of 54 bits is in the middle between two doubles; then a little beside it, or elsewhere.
        4 => {
            let middle = (1_u64 << 52 | random.word() >> 12) << 1 | 1;
            let beside =
                random.of(&["", ".0", ".00", "0e-1", ".0000000000000000000000000000001", "e0", "e-5", "e+250"]);
            format!("{middle}{beside}")
        }
        _ => {
            let value = f64::from_bits(random.word());
            spelling::double(random, if value.is_finite() { value } else { 17.25 })
        }
    };
    let value: f64 = text.parse().unwrap();
    assert!(value.is_finite(), "{text}");
    (text, json!(format!("{:016x}", value.to_bits())))
}

fn float(random: &mut Random) -> Spelt {
    let text = match random.below(8) {
        0 => {
            let token = random.of(&["NaN", "Infinity", "-Infinity"]);
            let bits = if token == "NaN" { 0x7fc0_0000 } else { token.parse::<f32>().unwrap().to_bits() };
            return (token.to_owned(), json!(format!("{bits:08x}")));
        }
        1 => random.of(&["0", "-0.0", "-0", "1e-45", "3.4028235e38", "-3.4028235E+38", "1.1754942e-38"]).to_owned(),
        // Just above the middle between two floats, where rounding twice goes wrong.
        2 => {
            let value = f32::from_bits(0x3f80_0000 | random.word() as u32 & 0x007f_ffff);
            let middle = f64::from(value) + f64::from(f32::EPSILON) / 2.0;
            format!("{middle:.25}0000000000000001")
        }
        _ => {
            let value = f32::from_bits(random.word() as u32);
            let value = if value.is_finite() { value } else { -0.75 };
            match random.below(4) {
                0 => format!("{value:e}"),
                1 => format!("{value}"),
                2 => spelling::double(random, value.into()),
                _ => format!("{value:?}"),
            }
        }
    };
    let value: f32 = text.parse().unwrap();
    assert!(value.is_finite(), "{text}");
    (text, json!(format!("{:08x}", value.to_bits())))
}

/// Text of every plane of Unicode, controls and NUL among it; sometimes none, sometimes much.
pub fn string(random: &mut Random) -> String {
    let length = match random.below(10) {
        0 => 0,
        1 => random.below(1500),
        _ => random.below(12),
    };
    (0..length).map(|_| character(random)).collect()
}

fn character(random: &mut Random) -> char {
    const SPECIAL: [char; 14] = [
        '\0',
        '"',
        '\\',
        '/',
        '\n',
        '\r',
        '\t',
        '\u{7f}',
        '\u{d7ff}',
        '\u{e000}',
        '\u{feff}',
        '\u{ffff}',
        '\u{10000}',
        '\u{10ffff}',
    ];
    match random.below(5) {
        0 => random.of(&SPECIAL),
        1 => char::from(random.below(0x20) as u8),
        2 => char::from(random.within(0x20, 0x7e) as u8),
        3 => char::from_u32(random.below(0xd800) as u32).unwrap(),
        // Planes 0 to 16; the surrogates, which are no characters, become another one.
        _ => char::from_u32((random.below(17) << 16 | random.below(0x1_0000)) as u32).unwrap_or('\u{2708}'),
    }
}

fn decimal(random: &mut Random, precision: u32, scale: usize) -> Spelt {
    let limit = 10_u128.pow(precision);
    let magnitude = match random.below(6) {
        0 => limit - 1,
        1 => random.below(2).into(),
        _ => {
            let digits = random.within(1, precision.into()) as u32;
            (u128::from(random.word()) << 64 | u128::from(random.word())) % 10_u128.pow(digits)
        }
    };
    let is_negative = random.once_in(2);
    let digits = format!("{magnitude:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let mut text = format!("{}{}{whole}", if is_negative { "-" } else { "" }, "0".repeat(random.below(3) as usize));
    // Zeros at the end may be left out, or there may be more of them than the scale has places.
    let fraction = match random.below(3) {
        0 => fraction.trim_end_matches('0').to_owned(),
        1 => format!("{fraction}{}", "0".repeat(random.below(4) as usize)),
        _ => fraction.to_owned(),
    };
    if !fraction.is_empty() {
        text = format!("{text}.{fraction}");
    }
    let sign = if is_negative && magnitude > 0 { "-" } else { "" };
    (spelling::string(random, &text), json!(format!("{sign}{magnitude}")))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && year % 100 != 0 || year % 400 == 0
}

/// A day of the years 1 to 9999 as text, and its number from the epoch, by counting.
fn day(random: &mut Random) -> (String, i64) {
    let year = match random.below(5) {
        0 => random.of(&[1, 4, 100, 400, 1582, 1900, 1969, 1970, 2000, 2038, 9999]),
        _ => random.within(1, 9999),
    };
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month = random.below(12) as usize;
    let day = if random.once_in(4) { lengths[month] } else { random.within(1, lengths[month]) };
    let leaps = (1..year).filter(|year| is_leap(*year)).count() as i64;
    // 719,162 days lie between the first day of year 1 and the epoch.
    let days = (year - 1) * 365 + leaps + lengths[..month].iter().sum::<i64>() + day - 1 - 719_162;
    (format!("{year:04}-{:02}-{day:02}", month + 1), days)
}

fn timestamp(random: &mut Random) -> Spelt {
    if random.once_in(4) {
        let value = random.within(-62_135_596_800_000_000, 253_402_300_799_999_999);
        return (value.to_string(), json!(value.to_string()));
    }
    let (date, days) = day(random);
    let (hour, minute, second) = (random.below(24) as i64, random.below(60) as i64, random.below(60) as i64);
    let digits = random.below(7) as u32;
    let fraction = if random.once_in(3) { 10_i64.pow(digits) - 1 } else { random.below(10_u64.pow(digits)) as i64 };
    let shown = if digits > 0 { format!(".{fraction:0>width$}", width = digits as usize) } else { String::new() };
    // At the ends of the calendar an offset would lead out of it.
    let is_inner = (-719_000..2_932_000).contains(&days);
    let offset = if is_inner && random.once_in(2) { random.within(-1439, 1439) } else { 0 };
    let zone = match offset {
        0 => random.of(&["Z", "z", "+00:00", "-00:00"]).to_owned(),
        _ => format!("{}{:02}:{:02}", if offset < 0 { '-' } else { '+' }, offset.abs() / 60, offset.abs() % 60),
    };
    let separator = random.of(&['T', 't', ' ']);
    let text = format!("{date}{separator}{hour:02}:{minute:02}:{second:02}{shown}{zone}");
    let seconds = days * 86_400 + (hour * 60 + minute - offset) * 60 + second;
    let micros = seconds * 1_000_000 + fraction * 10_i64.pow(6 - digits);
    (spelling::string(random, &text), json!(micros.to_string()))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0_usize, |word, place| word << 8 | usize::from(*chunk.get(place).unwrap_or(&0)));
        for place in 0..4 {
            let letter = char::from(LETTERS[word >> (18 - 6 * place) & 63]);
            text.push(if place <= chunk.len() { letter } else { '=' });
        }
    }
    text
}

#[test]
fn the_expectations_are_sound() {
    assert_eq!(base64(b"\xff\xefMa"), "/+9NYQ==");
    let mut random = Random(7);
    for _ in 0..2000 {
        let (text, days) = day(&mut random);
        match text.as_str() {
            "1970-01-01" => assert_eq!(days, 0),
            "9999-12-31" => assert_eq!(days, 2_932_896),
            _ => assert!((-719_162..=2_932_896).contains(&days), "{text} {days}"),
        }
    }
}
