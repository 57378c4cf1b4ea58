//! From the plain tables of the contract to Iceberg schemas, partitions and properties.
//!
//! A table is created once and then only gains columns, all of them optional: one that a later contract drops stays,
//! and one that comes back must have its old type. The types are those of the table in `flywheel_schemas::types`.

use std::collections::HashMap;

use flywheel_schemas::table::{self, ColumnType};
use flywheel_schemas::types;
use iceberg::spec::{
    ListType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, TableMetadata, Transform, Type,
    UnboundPartitionSpec,
};
use iceberg::transaction::AddColumn;

/// Files of a table that is compacted by others have this size too.
pub(super) const TARGET_FILE_BYTES: usize = 128 * 1024 * 1024;
/// Snapshots that are kept: two hours of a commit a minute, which a reader that goes from snapshot to snapshot may be away.
/// With three partitions of a topic a list of so many is some 70 KB long, with 64 some 250 KB.
pub(super) const SNAPSHOTS_KEPT: usize = if cfg!(test) { 12 } else { 120 };
/// Earlier metadata files that are kept; each is as long as the list of snapshots.
const METADATA_VERSIONS: usize = 100;

/// The schema of a new table. Columns are numbered as they stand, nested fields after them.
pub(super) fn schema(spec: &table::Table) -> iceberg::Result<Schema> {
    let mut ids = i32::try_from(spec.columns.len()).unwrap_or(i32::MAX);
    let fields = spec.columns.iter().zip(1..).map(|(column, id)| -> NestedFieldRef {
        let ty = column_type(&column.ty, &mut ids);
        with_doc(NestedField::new(id, &column.name, ty, column.required), &column.doc).into()
    });
    Schema::builder().with_fields(fields.collect::<Vec<_>>()).build()
}

/// By day of the column that the table says; the field has the name that Spark would give it.
pub(super) fn partition(spec: &table::Table, schema: &Schema) -> iceberg::Result<UnboundPartitionSpec> {
    let source = schema.field_id_by_name(spec.day_of).ok_or_else(|| {
        iceberg::Error::new(iceberg::ErrorKind::DataInvalid, format!("there is no column `{}`", spec.day_of))
    })?;
    // Iceberg's own REST server does not read a partition without a number.
    Ok(UnboundPartitionSpec::builder()
        .with_spec_id(0)
        .add_partition_field(source, format!("{}_day", spec.day_of), Transform::Day)?
        .build())
}

/// What every table is created with; `extra` wins.
pub(super) fn properties(spec: &table::Table, extra: &[(&str, String)]) -> HashMap<String, String> {
    let mut properties: HashMap<String, String> = [
        ("comment", spec.doc.clone()),
        // Readers of every engine understand data files alone; not all of them understand delete files.
        ("write.delete.mode", "copy-on-write".to_owned()),
        ("write.update.mode", "copy-on-write".to_owned()),
        ("write.merge.mode", "copy-on-write".to_owned()),
        ("write.parquet.compression-codec", "zstd".to_owned()),
        ("write.target-file-size-bytes", TARGET_FILE_BYTES.to_string()),
        ("write.metadata.previous-versions-max", METADATA_VERSIONS.to_string()),
        ("write.metadata.delete-after-commit.enabled", "true".to_owned()),
        ("history.expire.min-snapshots-to-keep", SNAPSHOTS_KEPT.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    properties.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    properties
}

/// The columns that an existing table lacks, each optional: old rows have no value for them.
///
/// # Errors
/// A sentence per column that has another type in the table, or that it had once: this module drops none, so that a
/// person has dropped or renamed it, and a new one of its name would hide what it held.
pub(super) fn missing(spec: &table::Table, metadata: &TableMetadata) -> Result<Vec<AddColumn>, Vec<String>> {
    let existing = metadata.current_schema();
    let was = |name: &str| metadata.schemas_iter().any(|schema| schema.field_by_name(name).is_some());
    let mut columns = Vec::new();
    let mut faults = Vec::new();
    for column in &spec.columns {
        let ty = column_type(&column.ty, &mut 0);
        match existing.field_by_name(&column.name) {
            None if was(&column.name) => faults.push(format!(
                "column `{}` was dropped or renamed by hand: rename it back, or add it as {ty} (old rows then have null)",
                column.name
            )),
            None if column.doc.is_empty() => columns.push(AddColumn::optional(&column.name, ty)),
            None => columns
                .push(AddColumn::builder().name(column.name.clone()).field_type(ty).doc(column.doc.clone()).build()),
            Some(field) if same(&field.field_type, &ty) => {}
            Some(field) => faults.push(format!("column `{}` is {} and should be {ty}", column.name, field.field_type)),
        }
    }
    if faults.is_empty() { Ok(columns) } else { Err(faults) }
}

/// Whether a table still has every column of an earlier schema of it, under its name and of its type.
///
/// # Errors
/// A sentence per column that it has not.
pub(super) fn outlive(old: &Schema, new: &Schema) -> Result<(), Vec<String>> {
    let faults: Vec<String> = old
        .as_struct()
        .fields()
        .iter()
        .filter(|field| {
            let now = new.field_by_id(field.id);
            now.is_none_or(|now| now.name != field.name || !same(&now.field_type, &field.field_type))
        })
        .map(|field| format!("column `{}` was dropped, renamed or given another type by hand", field.name))
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// Equal but for field ids and docs.
fn same(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Primitive(a), Type::Primitive(b)) => a == b,
        (Type::List(a), Type::List(b)) => same(&a.element_field.field_type, &b.element_field.field_type),
        (Type::Struct(a), Type::Struct(b)) => {
            a.fields().len() == b.fields().len()
                && a.fields()
                    .iter()
                    .zip(b.fields())
                    .all(|(a, b)| a.name == b.name && same(&a.field_type, &b.field_type))
        }
        _ => false,
    }
}

fn column_type(ty: &ColumnType, ids: &mut i32) -> Type {
    match ty {
        ColumnType::Plain(ty) => plain(ty, ids),
        ColumnType::Provenance => {
            let element = next(ids);
            let fields = [
                ("view", PrimitiveType::String),
                ("status", PrimitiveType::String),
                ("feature_time", PrimitiveType::Timestamptz),
                ("age_ms", PrimitiveType::Long),
            ];
            let fields =
                fields.map(|(name, ty)| NestedField::optional(next(ids), name, Type::Primitive(ty)).into()).to_vec();
            list(element, Type::Struct(StructType::new(fields)))
        }
    }
}

fn plain(ty: &types::Type, ids: &mut i32) -> Type {
    Type::Primitive(match ty {
        types::Type::Boolean => PrimitiveType::Boolean,
        types::Type::Int => PrimitiveType::Int,
        types::Type::Long => PrimitiveType::Long,
        types::Type::Float => PrimitiveType::Float,
        types::Type::Double => PrimitiveType::Double,
        types::Type::Decimal { precision, scale } => {
            PrimitiveType::Decimal { precision: u32::from(*precision), scale: u32::from(*scale) }
        }
        types::Type::String | types::Type::Uuid => PrimitiveType::String,
        types::Type::Bytes => PrimitiveType::Binary,
        types::Type::Date => PrimitiveType::Date,
        types::Type::Timestamp => PrimitiveType::Timestamptz,
        types::Type::List(item) => {
            let element = next(ids);
            return list(element, plain(item, ids));
        }
    })
}

fn list(id: i32, element: Type) -> Type {
    Type::List(ListType::new(NestedField::list_element(id, element, true).into()))
}

fn next(ids: &mut i32) -> i32 {
    *ids = ids.saturating_add(1);
    *ids
}

fn with_doc(field: NestedField, doc: &str) -> NestedField {
    if doc.is_empty() { field } else { field.with_doc(doc) }
}
