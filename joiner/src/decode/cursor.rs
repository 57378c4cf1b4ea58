//! Reading the values of a datum: every read checks what it reads.

use flywheel_schemas::types::Type;

use super::DatumFault;

/// A value of a scalar type, as it lies in the datum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Boolean(bool),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    /// Unscaled.
    Decimal(i128),
    /// Also of a uuid.
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Days since the epoch.
    Date(i32),
    /// Microseconds since the epoch.
    Timestamp(i64),
}

/// A place in a datum. After an error it stands at the value that was refused, or within it.
pub(super) struct Cursor<'a> {
    datum: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(datum: &'a [u8]) -> Cursor<'a> {
        Cursor { datum, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn remaining(&self) -> usize {
        self.datum.len() - self.position
    }

    /// A scalar of type `ty`. Lists are not read here: the plan takes them apart.
    #[inline]
    pub(super) fn scalar(&mut self, ty: &Type) -> Result<Value<'a>, DatumFault> {
        Ok(match ty {
            Type::Boolean => Value::Boolean(match self.take(1)? {
                [0] => false,
                [1] => true,
                _ => return Err(DatumFault::Boolean),
            }),
            Type::Int => Value::Int(self.int()?),
            Type::Long => Value::Long(self.long()?),
            Type::Float => Value::Float(f32::from_le_bytes(self.array()?)),
            Type::Double => Value::Double(f64::from_le_bytes(self.array()?)),
            Type::Decimal { precision, .. } => Value::Decimal(decimal(self.bytes()?, *precision)?),
            Type::String | Type::Uuid => Value::Text(std::str::from_utf8(self.bytes()?).map_err(|_| DatumFault::Utf8)?),
            Type::Bytes | Type::List(_) => Value::Bytes(self.bytes()?),
            Type::Date => Value::Date(self.int()?),
            Type::Timestamp => Value::Timestamp(self.long()?),
        })
    }

    /// The branch of a union of two.
    #[inline]
    pub(super) fn branch(&mut self) -> Result<u8, DatumFault> {
        match self.long()? {
            0 => Ok(0),
            1 => Ok(1),
            _ => Err(DatumFault::Branch),
        }
    }

    /// The head of an array block: how many items follow (0 ends the array), and where the block must end if it says.
    pub(super) fn block(&mut self) -> Result<(usize, Option<usize>), DatumFault> {
        let count = self.long()?;
        let end = if count < 0 {
            let bytes = usize::try_from(self.long()?).ok().filter(|bytes| *bytes <= self.remaining());
            Some(self.position + bytes.ok_or(DatumFault::BlockSize)?)
        } else {
            None
        };
        // Every item takes a byte or more.
        let items = usize::try_from(count.unsigned_abs()).ok().filter(|items| *items <= self.remaining());
        Ok((items.ok_or(DatumFault::BlockCount)?, end))
    }

    /// A zig-zag varint. Ten bytes hold 70 bits; of the last one only the lowest may be set.
    #[inline]
    fn long(&mut self) -> Result<i64, DatumFault> {
        let mut bits = 0_u64;
        for (index, byte) in self.datum[self.position..].iter().take(10).enumerate() {
            if index == 9 && *byte > 1 {
                return Err(DatumFault::Varint);
            }
            bits |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.position += index + 1;
                return Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed());
            }
        }
        Err(DatumFault::Truncated)
    }

    fn int(&mut self) -> Result<i32, DatumFault> {
        i32::try_from(self.long()?).map_err(|_| DatumFault::IntRange)
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8], DatumFault> {
        let length = usize::try_from(self.long()?).map_err(|_| DatumFault::Length)?;
        if length > self.remaining() {
            return Err(DatumFault::Length);
        }
        self.take(length)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DatumFault> {
        self.take(N)?.try_into().map_err(|_| DatumFault::Truncated)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DatumFault> {
        let taken = self.datum[self.position..].get(..length).ok_or(DatumFault::Truncated)?;
        self.position += length;
        Ok(taken)
    }
}

/// Big-endian two's complement of any length, as long as the value has at most `precision` digits.
fn decimal(bytes: &[u8], precision: u8) -> Result<i128, DatumFault> {
    let first = bytes.first().ok_or(DatumFault::Decimal)?;
    let sign = if first & 0x80 == 0 { 0x00 } else { 0xff };
    // Beyond sixteen bytes there may only be copies of the sign.
    let (extension, value) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut wide = [sign; 16];
    wide[16 - value.len()..].copy_from_slice(value);
    let value = i128::from_be_bytes(wide);
    let same_sign = extension.iter().all(|byte| *byte == sign) && (value < 0) == (sign == 0xff);
    if same_sign && value.unsigned_abs() < 10_u128.pow(u32::from(precision.min(38))) {
        Ok(value)
    } else {
        Err(DatumFault::Decimal)
    }
}
