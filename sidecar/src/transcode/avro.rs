//! The bytes of Avro's binary encoding (Avro 1.12 specification, "Binary Encoding").

/// An int or a long: zig-zag, then seven bits a byte, least first.
#[inline]
pub(crate) fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A count or a length.
#[inline]
pub(crate) fn put_length(out: &mut Vec<u8>, length: usize) {
    put_long(out, length as i64);
}

/// A string or bytes.
#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// A decimal's unscaled value: length, then two's complement, greatest byte first, as few bytes as hold it.
pub(crate) fn put_decimal(out: &mut Vec<u8>, unscaled: i128) {
    let bytes = unscaled.to_be_bytes();
    let sign = if unscaled < 0 { 0xff } else { 0 };
    let mut first = 0;
    while first < bytes.len() - 1 && bytes[first] == sign && (bytes[first + 1] ^ sign) < 0x80 {
        first += 1;
    }
    put_bytes(out, &bytes[first..]);
}

/// Puts the count of an array before its items, which stand at the end of `out` from `start`, and ends the array.
/// One block, as an empty array has none.
pub(crate) fn close_array(out: &mut Vec<u8>, start: usize, count: usize) {
    if count > 0 {
        let end = out.len();
        put_length(out, count);
        let width = out.len() - end;
        out[start..].rotate_right(width);
    }
    out.push(0);
}

/// Reads the long at the start of `bytes`, and what follows it.
pub(crate) fn take_long(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut value = 0_u64;
    for (shift, byte) in (0..64).step_by(7).zip(bytes) {
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let rest = &bytes[shift / 7 + 1..];
            return Some(((value >> 1).cast_signed() ^ -(value & 1).cast_signed(), rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longs_come_back() {
        for value in [0, -1, 1, 63, -64, 64, -65, i64::MAX, i64::MIN, 1 << 40] {
            let mut out = Vec::new();
            put_long(&mut out, value);
            out.push(7);
            assert_eq!(take_long(&out), Some((value, &[7][..])), "{value}");
        }
        assert_eq!(take_long(&[0x80]), None);
    }

    #[test]
    fn decimals_are_as_short_as_can_be() {
        for (value, bytes) in [
            (0, &[2, 0][..]),
            (127, &[2, 0x7f]),
            (128, &[4, 0, 0x80]),
            (-128, &[2, 0x80]),
            (-129, &[4, 0xff, 0x7f]),
            (-1, &[2, 0xff]),
            (256, &[4, 1, 0]),
        ] {
            let mut out = Vec::new();
            put_decimal(&mut out, value);
            assert_eq!(out, bytes, "{value}");
        }
    }

    #[test]
    fn arrays_have_their_count_before_them() {
        let mut out = vec![9];
        close_array(&mut out, 1, 0);
        assert_eq!(out, [9, 0]);
        let mut out = vec![9, 2, 4, 6];
        close_array(&mut out, 1, 3);
        assert_eq!(out, [9, 6, 2, 4, 6, 0]);
    }
}
