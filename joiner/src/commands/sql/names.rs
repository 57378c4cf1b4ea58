//! How an engine names tables and columns, and says what the engines say differently.
//!
//! Inside of the texts instants are whole microseconds since the epoch as 64-bit integers, so that no engine's interval
//! arithmetic decides anything; only `micros` and `instant` know what an engine calls them. There is no `/`, which Trino
//! does on integers, and no `GREATEST` or `LEAST` of nulls, of which the engines think differently.

use arrow::datatypes::DataType;
use chrono::{DateTime, Utc};
use clap::ValueEnum;
use flywheel_schemas::contract::Scalar;
use flywheel_schemas::types::Type;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    Spark,
    Trino,
    Duckdb,
}

/// How an engine names tables and writes values.
pub struct Names<'a> {
    pub engine: Engine,
    pub namespace: &'a str,
    pub model: &'a str,
}

impl Names<'_> {
    pub(super) fn table(&self, suffix: &str) -> String {
        format!("{}.{}_{suffix}", self.namespace, self.model)
    }

    pub(super) fn shared(&self, table: &str) -> String {
        format!("{}.{table}", self.namespace)
    }

    /// A column that a contract named: it may be a word of the engine's.
    pub(super) fn column(&self, name: &str) -> String {
        match self.engine {
            Engine::Spark => format!("`{name}`"),
            Engine::Trino | Engine::Duckdb => format!("\"{name}\""),
        }
    }

    /// The literal of an instant.
    pub(super) fn instant(&self, instant: DateTime<Utc>) -> String {
        let text = instant.format("%Y-%m-%d %H:%M:%S%.6f");
        match self.engine {
            Engine::Trino => format!("TIMESTAMP '{text} UTC'"),
            Engine::Spark => format!("TIMESTAMP '{text}+00:00'"),
            Engine::Duckdb => format!("TIMESTAMPTZ '{text}+00:00'"),
        }
    }

    /// The microseconds since the epoch of a timestamp.
    pub(super) fn micros(&self, timestamp: &str) -> String {
        match self.engine {
            Engine::Spark => format!("unix_micros({timestamp})"),
            Engine::Duckdb => format!("epoch_us({timestamp})"),
            // Trino counts in milliseconds, and in floats; the digits of its text are exact.
            Engine::Trino => format!(
                "(date_diff('second', TIMESTAMP '1970-01-01 00:00:00 UTC', date_trunc('second', {timestamp})) * 1000000 \
                 + CAST(substr(CAST({timestamp} AS varchar), 21, 6) AS bigint))"
            ),
        }
    }

    /// The timestamp of microseconds since the epoch.
    pub(super) fn timestamp(&self, micros: &str) -> String {
        match self.engine {
            Engine::Spark => format!("timestamp_micros({micros})"),
            Engine::Duckdb => format!("make_timestamptz({micros})"),
            Engine::Trino => format!(
                "CAST(from_unixtime_nanos(CAST({micros} AS decimal(38,0)) * 1000) AS timestamp(6) with time zone)"
            ),
        }
    }

    pub(super) fn text_type(&self) -> &'static str {
        if self.engine == Engine::Spark { "STRING" } else { "VARCHAR" }
    }

    pub(super) fn timestamp_type(&self) -> &'static str {
        match self.engine {
            Engine::Spark => "TIMESTAMP",
            Engine::Trino => "timestamp(6) with time zone",
            Engine::Duckdb => "TIMESTAMPTZ",
        }
    }

    /// The engine's name of a scalar type.
    pub(super) fn type_name(&self, ty: &Type) -> String {
        let spark = self.engine == Engine::Spark;
        match ty {
            Type::Boolean => "BOOLEAN".to_owned(),
            Type::Int => "INTEGER".to_owned(),
            Type::Long => "BIGINT".to_owned(),
            Type::Float => if spark { "FLOAT" } else { "REAL" }.to_owned(),
            Type::Double => "DOUBLE".to_owned(),
            Type::Decimal { precision, scale } => format!("DECIMAL({precision},{scale})"),
            Type::Bytes => match self.engine {
                Engine::Spark => "BINARY",
                Engine::Trino => "VARBINARY",
                Engine::Duckdb => "BLOB",
            }
            .to_owned(),
            Type::Date => "DATE".to_owned(),
            Type::Timestamp => self.timestamp_type().to_owned(),
            // Labels are no lists.
            Type::String | Type::Uuid | Type::List(_) => self.text_type().to_owned(),
        }
    }

    /// The literal of a text.
    pub(super) fn quoted(&self, text: &str) -> String {
        match self.engine {
            Engine::Spark => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
            Engine::Trino | Engine::Duckdb => format!("'{}'", text.replace('\'', "''")),
        }
    }

    /// The literal of a value of a type.
    pub(super) fn literal(&self, value: &Scalar, ty: &Type) -> String {
        let cast = |text: String| format!("CAST('{text}' AS {})", self.type_name(ty));
        match value {
            Scalar::Boolean(value) => value.to_string().to_uppercase(),
            Scalar::Int(value) => cast(value.to_string()),
            Scalar::Long(value) => cast(value.to_string()),
            Scalar::Float(value) => cast(float(f64::from(*value), value.to_string())),
            Scalar::Double(value) => cast(float(*value, value.to_string())),
            Scalar::Decimal(value) => cast(decimal(*value, ty)),
            Scalar::String(value) | Scalar::Uuid(value) => self.quoted(value),
            Scalar::Bytes(value) => {
                let digits: String = value.iter().map(|byte| format!("{byte:02X}")).collect();
                if self.engine == Engine::Duckdb { format!("unhex('{digits}')") } else { format!("X'{digits}'") }
            }
            Scalar::Date(days) => {
                format!("DATE '{}'", DateTime::UNIX_EPOCH.date_naive() + chrono::TimeDelta::days(i64::from(*days)))
            }
            Scalar::Timestamp(micros) => self.timestamp(&micros.to_string()),
        }
    }

    /// Whether a list of texts holds one; null where there is no list.
    pub(super) fn contains(&self, list: &str, text: &str) -> String {
        match self.engine {
            Engine::Spark => format!("array_contains({list}, {text})"),
            Engine::Trino => format!("contains({list}, {text})"),
            Engine::Duckdb => format!("list_contains({list}, {text})"),
        }
    }

    /// Whether there is no list, or nothing in it.
    pub(super) fn is_empty(&self, list: &str) -> String {
        let length = if self.engine == Engine::Duckdb { "len" } else { "cardinality" };
        format!("({list} IS NULL OR {length}({list}) = 0)")
    }

    /// Texts behind those of a list that may be null. `texts`: an expression each, null for none.
    pub(super) fn appended(&self, list: &str, texts: &[String]) -> String {
        let more = texts.join(", ");
        let (joined, more) = match self.engine {
            Engine::Spark => {
                let more = format!("filter(array({more}), x -> x IS NOT NULL)");
                (format!("concat(coalesce({list}, CAST(array() AS ARRAY<STRING>)), {more})"), more)
            }
            Engine::Trino => {
                let more = format!("filter(ARRAY[{more}], x -> x IS NOT NULL)");
                (format!("coalesce({list}, CAST(ARRAY[] AS array(varchar))) || {more}"), more)
            }
            Engine::Duckdb => {
                let more = format!("list_filter([{more}], lambda x: x IS NOT NULL)");
                (format!("list_concat(coalesce({list}, CAST([] AS VARCHAR[])), {more})"), more)
            }
        };
        let length = if self.engine == Engine::Duckdb { "len" } else { "cardinality" };
        format!("CASE WHEN {length}({more}) > 0 THEN {joined} ELSE {list} END")
    }

    /// A list of texts, one at least, any of which may be null.
    pub(super) fn list(&self, texts: &[String]) -> String {
        let items = texts.join(", ");
        match self.engine {
            Engine::Spark => format!("array({items})"),
            Engine::Trino => format!("ARRAY[{items}]"),
            Engine::Duckdb => format!("[{items}]"),
        }
    }

    /// Whether a text is as a regular expression says.
    pub(super) fn matches(&self, text: &str, expression: &str) -> String {
        let function = if self.engine == Engine::Duckdb { "regexp_matches" } else { "regexp_like" };
        format!("{function}({text}, '{expression}')")
    }

    /// The number that hexadecimal digits say.
    pub(super) fn hexadecimal(&self, digits: &str) -> String {
        match self.engine {
            Engine::Spark => format!("CAST(conv({digits}, 16, 10) AS BIGINT)"),
            Engine::Trino => format!("from_base({digits}, 16)"),
            Engine::Duckdb => format!("CAST('0x' || {digits} AS BIGINT)"),
        }
    }

    /// The MD5 of a text (RFC 1321), as 32 hexadecimal digits in lower case.
    pub(super) fn md5(&self, text: &str) -> String {
        match self.engine {
            Engine::Trino => format!("lower(to_hex(md5(to_utf8({text}))))"),
            Engine::Spark | Engine::Duckdb => format!("md5({text})"),
        }
    }

    /// A value as a text that no other value of its type has: `-0.0` and `0.0` differ, NaN is one, instants are their
    /// microseconds.
    pub(super) fn told(&self, value: &str, ty: &DataType) -> String {
        let cast = |value: &str| format!("CAST({value} AS {})", self.text_type());
        match ty {
            DataType::Utf8 => value.to_owned(),
            DataType::LargeBinary => self.hex(value),
            DataType::Timestamp(..) => cast(&self.micros(value)),
            DataType::Float32 if self.engine == Engine::Trino => {
                format!("CASE WHEN is_nan({value}) THEN 'NaN' ELSE to_hex(to_ieee754_32({value})) END")
            }
            DataType::Float64 if self.engine == Engine::Trino => {
                format!("CASE WHEN is_nan({value}) THEN 'NaN' ELSE to_hex(to_ieee754_64({value})) END")
            }
            // The shortest digits that say the number, in Spark and DuckDB.
            DataType::Float32 | DataType::Float64 => {
                format!("CASE WHEN isnan({value}) THEN 'NaN' ELSE {} END", cast(value))
            }
            DataType::List(item) => match self.engine {
                // Trino makes no JSON of instants and bytes, but of lists of texts.
                Engine::Trino => format!(
                    "json_format(CAST(transform({value}, item -> {}) AS json))",
                    self.told("item", item.data_type())
                ),
                Engine::Spark => format!("to_json({value})"),
                Engine::Duckdb => cast(&format!("to_json({value})")),
            },
            DataType::Struct(fields) => {
                let texts =
                    fields.iter().map(|field| self.told(&format!("{value}.{}", field.name()), field.data_type()));
                format!("ARRAY[{}]", texts.collect::<Vec<_>>().join(", "))
            }
            _ => cast(value),
        }
    }

    fn hex(&self, bytes: &str) -> String {
        let function = if self.engine == Engine::Trino { "to_hex" } else { "hex" };
        format!("{function}({bytes})")
    }
}

/// The Arrow type of a label's column.
pub(super) fn arrow_of(ty: &Type) -> DataType {
    match ty {
        Type::Boolean => DataType::Boolean,
        Type::Int => DataType::Int32,
        Type::Long => DataType::Int64,
        Type::Float => DataType::Float32,
        Type::Double => DataType::Float64,
        Type::Decimal { precision, scale } => DataType::Decimal128(*precision, (*scale).cast_signed()),
        Type::Bytes => DataType::LargeBinary,
        Type::Date => DataType::Date32,
        Type::Timestamp => DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None),
        Type::String | Type::Uuid | Type::List(_) => DataType::Utf8,
    }
}

/// A float in words that all engines read.
fn float(value: f64, digits: String) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else {
        digits
    }
}

/// The digits of an unscaled number of a decimal type.
fn decimal(unscaled: i128, ty: &Type) -> String {
    let scale = if let Type::Decimal { scale, .. } = ty { usize::from(*scale) } else { 0 };
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let sign = if unscaled < 0 { "-" } else { "" };
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(engine: Engine) -> Names<'static> {
        Names { engine, namespace: "flywheel", model: "m" }
    }

    #[test]
    fn instants_are_written_as_the_engine_reads_them() {
        let at = "2013-02-01T00:00:00Z".parse().unwrap();
        let text = |engine| names(engine).instant(at);
        assert_eq!(text(Engine::Trino), "TIMESTAMP '2013-02-01 00:00:00.000000 UTC'");
        assert_eq!(text(Engine::Spark), "TIMESTAMP '2013-02-01 00:00:00.000000+00:00'");
        assert_eq!(text(Engine::Duckdb), "TIMESTAMPTZ '2013-02-01 00:00:00.000000+00:00'");
    }

    #[test]
    fn literals_are_exact() {
        let trino = names(Engine::Trino);
        let decimal = |value| trino.literal(&Scalar::Decimal(value), &Type::Decimal { precision: 10, scale: 2 });
        assert_eq!(decimal(-5), "CAST('-0.05' AS DECIMAL(10,2))");
        assert_eq!(decimal(1234), "CAST('12.34' AS DECIMAL(10,2))");
        assert_eq!(trino.literal(&Scalar::Double(-0.0), &Type::Double), "CAST('-0' AS DOUBLE)");
        assert_eq!(trino.literal(&Scalar::Double(f64::NEG_INFINITY), &Type::Double), "CAST('-Infinity' AS DOUBLE)");
        assert_eq!(trino.literal(&Scalar::String("a'\\".to_owned()), &Type::String), "'a''\\'");
        assert_eq!(names(Engine::Spark).literal(&Scalar::String("a'\\".to_owned()), &Type::String), "'a\\'\\\\'");
        assert_eq!(trino.literal(&Scalar::Date(-1), &Type::Date), "DATE '1969-12-31'");
        assert_eq!(names(Engine::Duckdb).literal(&Scalar::Bytes(vec![0, 171]), &Type::Bytes), "unhex('00AB')");
    }
}
