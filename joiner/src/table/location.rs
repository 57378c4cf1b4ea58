//! Where data files go: `<data>/<partition>/<name>`, every part of the partition percent-encoded.
//!
//! The generators of the iceberg crate write partition values into the path as they are, so that a value `../..`
//! leaves the table and a `/`, `?` or `#` makes a path that other readers cannot open. Here whatever is not a
//! letter, a digit, `-`, `_` or an inner `.` is percent-encoded (RFC 3986, section 2.1), in names and values alike.

use std::fmt::Write as _;

use iceberg::spec::{PartitionKey, TableMetadata};
use iceberg::writer::file_writer::location_generator::{FileNameGenerator, LocationGenerator};
use uuid::Uuid;

/// Encoded data locations of one table.
#[derive(Debug, Clone)]
pub(super) struct Location {
    /// Without a slash at its end.
    data: String,
}

impl Location {
    /// `write.data.path` where the table says so, else `data` in the table's own location.
    pub(super) fn of(metadata: &TableMetadata) -> Location {
        let data = match metadata.properties().get("write.data.path") {
            Some(path) => path.trim_end_matches('/').to_owned(),
            None => format!("{}/data", metadata.location().trim_end_matches('/')),
        };
        Location { data }
    }
}

impl LocationGenerator for Location {
    fn generate_location(&self, partition: Option<&PartitionKey>, file_name: &str) -> String {
        let mut path = self.data.clone();
        if let Some(key) = partition.filter(|key| !key.spec().is_unpartitioned()) {
            // The spec was bound to this schema; were it not, the files would only lie less tidily.
            let kinds = key.spec().partition_type(key.schema()).ok();
            for (place, field) in key.spec().fields().iter().enumerate() {
                let kind = kinds.as_ref().and_then(|kinds| kinds.fields().get(place));
                let value = kind.map_or_else(String::new, |kind| {
                    field.transform.to_human_string(&kind.field_type, key.data()[place].as_ref())
                });
                path.push('/');
                encode(&field.name, &mut path);
                path.push('=');
                encode(&value, &mut path);
            }
        }
        path.push('/');
        path.push_str(file_name);
        path
    }
}

/// Appends `text`, percent-encoded. Only a dot after a letter, a digit, `-` or `_` stays: no part is ever `.` or `..`.
fn encode(text: &str, out: &mut String) {
    let mut inner = false;
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => out.push(char::from(byte)),
            b'.' if inner => out.push('.'),
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
        inner = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    }
}

/// Names that never occur twice, whoever writes: one random part per writer, one number per file.
#[derive(Debug, Clone)]
pub(super) struct Names;

impl FileNameGenerator for Names {
    fn generate_file_name(&self) -> String {
        format!("{}.parquet", Uuid::now_v7())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use iceberg::spec::{Literal, NestedField, PartitionSpec, PrimitiveType, Schema, Struct, Transform, Type};

    use super::*;

    fn place(value: &str) -> String {
        let schema = Arc::new(
            Schema::builder()
                .with_fields([NestedField::required(1, "v", Type::Primitive(PrimitiveType::String)).into()])
                .build()
                .unwrap(),
        );
        let spec = PartitionSpec::builder(schema.clone())
            .add_partition_field("v", "model v", Transform::Identity)
            .unwrap()
            .build()
            .unwrap();
        let key = PartitionKey::new(spec, schema, Struct::from_iter([Some(Literal::string(value))]));
        Location { data: "/w/t/data".to_owned() }.generate_location(Some(&key), "f.parquet")
    }

    #[test]
    fn a_value_cannot_leave_its_folder() {
        assert_eq!(place("../../escaped"), "/w/t/data/model%20v=%2E%2E%2F%2E%2E%2Fescaped/f.parquet");
        assert_eq!(place(".."), "/w/t/data/model%20v=%2E%2E/f.parquet");
    }

    #[test]
    fn a_value_that_urls_treat_specially_is_encoded() {
        assert_eq!(place("a/b c=e?#%ü"), "/w/t/data/model%20v=a%2Fb%20c%3De%3F%23%25%C3%BC/f.parquet");
        assert_eq!(place("v1.2-3_x"), "/w/t/data/model%20v=v1.2-3_x/f.parquet");
    }

    #[test]
    fn names_differ() {
        let names: std::collections::BTreeSet<String> = (0..1000).map(|_| Names.generate_file_name()).collect();
        assert_eq!(names.len(), 1000);
    }
}
