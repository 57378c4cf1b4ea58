//! The tables of a contract as Iceberg schemas.
//!
//! Format: Iceberg table specification, appendix C, "Schemas" and "Partition Specs". The field ids are only those of
//! a fresh table; a catalog gives its own.

use serde_json::{Value, json};

use crate::contract::Contract;
use crate::table::{self, ColumnType, Table};
use crate::types::Type;

/// The model's tables, each with its schema and its partitioning.
pub fn iceberg(contract: &Contract) -> Value {
    let tables = [table::predictions(contract), table::outcomes(contract), table::training(contract)];
    Value::Array(tables.iter().map(spec).collect())
}

fn spec(table: &Table) -> Value {
    // Top-level ids first, those of nested fields after them, as catalogs number them.
    let mut next = table.columns.len();
    let fields: Vec<Value> = table
        .columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let ty = match &column.ty {
                ColumnType::Plain(ty) => iceberg_type(ty, &mut next),
                ColumnType::Provenance => provenance(&mut next),
            };
            json!({
                "id": index + 1, "name": column.name, "required": column.required, "type": ty, "doc": column.doc,
            })
        })
        .collect();
    let source = table.columns.iter().position(|column| column.name == table.day_of).map_or(0, |index| index + 1);
    json!({
        "name": table.name,
        "doc": table.doc,
        "schema": {"type": "struct", "schema-id": 0, "fields": fields},
        "partition-spec": [
            {"name": format!("{}_day", table.day_of), "transform": "day", "source-id": source, "field-id": 1000},
        ],
    })
}

fn take(next: &mut usize) -> usize {
    *next += 1;
    *next
}

fn iceberg_type(ty: &Type, next: &mut usize) -> Value {
    match ty {
        Type::List(item) => {
            let id = take(next);
            json!({"type": "list", "element-id": id, "element-required": true, "element": iceberg_type(item, next)})
        }
        other => json!(other.iceberg()),
    }
}

fn provenance(next: &mut usize) -> Value {
    let element = take(next);
    let columns =
        [("view", Type::String), ("status", Type::String), ("feature_time", Type::Timestamp), ("age_ms", Type::Long)];
    let fields: Vec<Value> = columns
        .into_iter()
        .map(|(name, ty)| json!({"id": take(next), "name": name, "required": false, "type": ty.iceberg()}))
        .collect();
    json!({
        "type": "list", "element-id": element, "element-required": true,
        "element": {"type": "struct", "fields": fields},
    })
}
