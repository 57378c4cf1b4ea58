//! The types a contract may declare, and the one table that says what each is in Avro, Iceberg, Arrow and JSON.
//!
//! | contract | Avro | Iceberg | Arrow | JSON |
//! |---|---|---|---|---|
//! | `boolean` | boolean | boolean | Boolean | `true`, `false` |
//! | `int` | int | int | Int32 | integer, 32 bit |
//! | `long` | long | long | Int64 | integer, 64 bit |
//! | `float` | float | float | Float32 | number, or the tokens `NaN` `Infinity` `-Infinity` |
//! | `double` | double | double | Float64 | number, or the tokens `NaN` `Infinity` `-Infinity` |
//! | `decimal(p,s)` | bytes, decimal | decimal(p,s) | Decimal128(p,s) | text, such as `"12.50"`; p at most 38 |
//! | `string` | string | string | Utf8 | string |
//! | `bytes` | bytes | binary | LargeBinary | base64 text (RFC 4648, padded) |
//! | `date` | int, date | date | Date32 | text, `"2013-01-31"` |
//! | `timestamp` | long, timestamp-micros | timestamptz | Timestamp(µs, UTC) | RFC 3339 text, or integer µs since the epoch; years 1 to 9999 |
//! | `uuid` | string, uuid | string | Utf8 | text, hyphenated; lower-cased on intake |
//! | `list<T>` | array of T | list of T, elements required | List | array |
//!
//! A `uuid` is an Iceberg `string`: Spark has no UUID type and reads one as text, Trino and DuckDB do not, and a
//! join across engines should not depend on it.

use std::fmt;

use serde_json::{Value, json};

/// A declared type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Type {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    /// `precision` 1 to 38, `scale` 0 to `precision`.
    Decimal {
        precision: u8,
        scale: u8,
    },
    String,
    Bytes,
    Date,
    Timestamp,
    Uuid,
    List(Box<Type>),
}

impl Type {
    /// Reads the notation of a contract, such as `double`, `decimal(10,2)` or `list<float>`.
    ///
    /// # Errors
    /// A sentence that says what is wrong and which types there are.
    pub fn parse(text: &str) -> Result<Type, String> {
        let text = text.trim();
        if let Some(inner) = text.strip_prefix("list<").and_then(|rest| rest.strip_suffix('>')) {
            return match Type::parse(inner)? {
                Type::List(_) => Err(format!("`{text}`: a list cannot hold lists")),
                item => Ok(Type::List(Box::new(item))),
            };
        }
        if let Some(inner) = text.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')) {
            let parsed = inner.split_once(',').and_then(|(precision, scale)| {
                Some((precision.trim().parse::<u8>().ok()?, scale.trim().parse::<u8>().ok()?))
            });
            return match parsed {
                Some((precision @ 1..=38, scale)) if scale <= precision => Ok(Type::Decimal { precision, scale }),
                _ => Err(format!("`{text}`: decimal takes a precision of 1 to 38 and a scale of 0 to the precision")),
            };
        }
        Ok(match text {
            "boolean" => Type::Boolean,
            "int" => Type::Int,
            "long" => Type::Long,
            "float" => Type::Float,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "date" => Type::Date,
            "timestamp" => Type::Timestamp,
            "uuid" => Type::Uuid,
            _ => {
                return Err(format!(
                    "`{text}` is no type; there are boolean, int, long, float, double, decimal(p,s), string, bytes, \
                     date, timestamp, uuid and list<T>"
                ));
            }
        })
    }

    /// The Avro type.
    pub fn avro(&self) -> Value {
        match self {
            Type::Boolean => json!("boolean"),
            Type::Int => json!("int"),
            Type::Long => json!("long"),
            Type::Float => json!("float"),
            Type::Double => json!("double"),
            Type::Decimal { precision, scale } => {
                json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
            }
            Type::String => json!("string"),
            Type::Bytes => json!("bytes"),
            Type::Date => json!({"type": "int", "logicalType": "date"}),
            Type::Timestamp => json!({"type": "long", "logicalType": "timestamp-micros"}),
            Type::Uuid => json!({"type": "string", "logicalType": "uuid"}),
            Type::List(item) => json!({"type": "array", "items": item.avro()}),
        }
    }

    /// The declared type that an Avro type stands for; none where the table above has no such row.
    pub fn from_avro(avro: &Value) -> Option<Type> {
        if let Some(name) = avro.as_str() {
            return Some(match name {
                "boolean" => Type::Boolean,
                "int" => Type::Int,
                "long" => Type::Long,
                "float" => Type::Float,
                "double" => Type::Double,
                "string" => Type::String,
                "bytes" => Type::Bytes,
                _ => return None,
            });
        }
        let small = |key: &str| avro.get(key).and_then(Value::as_u64).and_then(|n| u8::try_from(n).ok());
        Some(match (avro.get("type")?.as_str()?, avro.get("logicalType").and_then(Value::as_str)) {
            ("int", Some("date")) => Type::Date,
            ("long", Some("timestamp-micros")) => Type::Timestamp,
            ("string", Some("uuid")) => Type::Uuid,
            ("bytes", Some("decimal")) => {
                Type::Decimal { precision: small("precision")?, scale: small("scale").unwrap_or(0) }
            }
            ("array", _) => Type::List(Box::new(Type::from_avro(avro.get("items")?)?)),
            (name, None) => return Type::from_avro(&json!(name)),
            _ => return None,
        })
    }

    /// The JSON form as JSON Schema 2020-12.
    pub fn json_schema(&self) -> Value {
        match self {
            Type::Boolean => json!({"type": "boolean"}),
            Type::Int => json!({"type": "integer", "format": "int32"}),
            Type::Long => json!({"type": "integer", "format": "int64"}),
            Type::Float => json!({"type": "number", "format": "float"}),
            Type::Double => json!({"type": "number", "format": "double"}),
            Type::Decimal { precision, scale } => {
                let whole = precision - scale;
                let fraction = if *scale > 0 { format!("(\\.[0-9]{{1,{scale}}})?") } else { String::new() };
                json!({"type": "string", "pattern": format!("^-?0*[0-9]{{1,{}}}{fraction}$", whole.max(1))})
            }
            Type::String => json!({"type": "string"}),
            Type::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Type::Date => json!({"type": "string", "format": "date"}),
            Type::Timestamp => json!({"oneOf": [
                {"type": "string", "format": "date-time"},
                {"type": "integer", "format": "int64", "description": "Microseconds since the epoch"},
            ]}),
            Type::Uuid => json!({"type": "string", "format": "uuid"}),
            Type::List(item) => json!({"type": "array", "items": item.json_schema()}),
        }
    }

    /// The Iceberg type by its name in the specification; a list is `list<…>`.
    pub fn iceberg(&self) -> String {
        match self {
            Type::Bytes => "binary".to_owned(),
            Type::Timestamp => "timestamptz".to_owned(),
            Type::Uuid => "string".to_owned(),
            Type::List(item) => format!("list<{}>", item.iceberg()),
            other => other.to_string(),
        }
    }

    /// Whether values of this type can be ordered by the aggregates `min` and `max`.
    pub fn is_ordered(&self) -> bool {
        !matches!(self, Type::List(_) | Type::Bytes)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Boolean => f.write_str("boolean"),
            Type::Int => f.write_str("int"),
            Type::Long => f.write_str("long"),
            Type::Float => f.write_str("float"),
            Type::Double => f.write_str("double"),
            Type::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Type::String => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Date => f.write_str("date"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Uuid => f.write_str("uuid"),
            Type::List(item) => write!(f, "list<{item}>"),
        }
    }
}
