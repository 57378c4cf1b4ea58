//! The many ways in which JSON may spell one value.

use super::values::Random;

/// White space, as a rule none.
pub fn space(random: &mut Random) -> &'static str {
    random.of(&["", "", "", " ", "\n", "\t \r"])
}

/// A finite double in a notation that means the same bits.
pub fn double(random: &mut Random, value: f64) -> String {
    let text = match random.below(8) {
        // All digits, which for the greatest and the least are hundreds.
        0 => format!("{value}"),
        1 => format!("{value:e}"),
        2 => format!("{value:.16e}").replace('e', "E"),
        3 => with_sign_of_exponent(&format!("{value:e}")),
        // More digits than the shortest.
        4 => format!("{value:.30e}"),
        // Zeros at the end, and zeros before the exponent's digits.
        5 => {
            let text = format!("{value:.17e}");
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, digits) = exponent.strip_prefix('-').map_or(("", exponent), |digits| ("-", digits));
            format!("{mantissa}{}e{sign}000{digits}", "0".repeat(random.below(20) as usize))
        }
        // The point elsewhere: 0.000…digits with a greater exponent.
        6 => {
            let text = format!("{value:.16e}");
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, digits) = mantissa.strip_prefix('-').map_or(("", mantissa), |digits| ("-", digits));
            let zeros = random.below(30) as usize;
            let exponent: i64 = exponent.parse().unwrap_or_default();
            format!("{sign}0.{}{}e{}", "0".repeat(zeros), digits.replace('.', ""), exponent + zeros as i64 + 1)
        }
        _ => format!("{value:?}"),
    };
    let read: f64 = text.parse().unwrap_or(f64::NAN);
    assert_eq!(read.to_bits(), value.to_bits(), "{text}");
    text
}

fn with_sign_of_exponent(text: &str) -> String {
    if text.contains("e-") { text.to_owned() } else { text.replace('e', "e+") }
}

/// A string with its quotes: characters as they are or escaped, in the ways that JSON has.
pub fn string(random: &mut Random, text: &str) -> String {
    let mut spelt = String::from("\"");
    let escapes_once_in = random.of(&[2, 10, 1000]);
    for character in text.chars() {
        let short = match character {
            '"' => Some("\\\""),
            '\\' => Some("\\\\"),
            '/' => Some("\\/"),
            '\u{8}' => Some("\\b"),
            '\u{c}' => Some("\\f"),
            '\n' => Some("\\n"),
            '\r' => Some("\\r"),
            '\t' => Some("\\t"),
            _ => None,
        };
        let must = character < ' ' || character == '"' || character == '\\';
        if !must && !random.once_in(escapes_once_in) {
            spelt.push(character);
        } else if let Some(short) = short.filter(|_| !random.once_in(3)) {
            spelt.push_str(short);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let digits = if random.once_in(2) { format!("{unit:04x}") } else { format!("{unit:04X}") };
                spelt.push_str("\\u");
                spelt.push_str(&digits);
            }
        }
    }
    spelt.push('"');
    spelt
}

/// An object of these members, in their order or in another.
pub fn object(random: &mut Random, mut members: Vec<(String, String)>) -> String {
    if random.once_in(2) {
        for place in (1..members.len()).rev() {
            members.swap(place, random.below(place as u64 + 1) as usize);
        }
    }
    let members: Vec<String> = members
        .into_iter()
        .map(|(key, value)| {
            let key = if random.once_in(20) { string(random, &key) } else { format!("\"{key}\"") };
            format!("{}{key}{}:{}{value}{}", space(random), space(random), space(random), space(random))
        })
        .collect();
    format!("{{{}}}", members.join(","))
}
