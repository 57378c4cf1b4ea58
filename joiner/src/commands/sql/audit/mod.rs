//! The tables once more from the raw tables, and what differs: whoever distrusts the joiner asks an engine that shares no
//! code with it.
//!
//! Of each table the rows through the last tick that all three have recorded are compared, all columns of all rows, as texts
//! that tell any two values apart ([`Names::told`]): the rows as they should be count 1, those of the table -1, and where
//! equal rows do not come to 0, that is a difference. This is `EXCEPT ALL` both ways, and reads each side once.

mod compare;
mod revisions;
mod training;
mod unmatched;

use clap::ValueEnum;

use super::Names;
use super::model::Model;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Table {
    Training,
    Revisions,
    Unmatched,
}

impl Table {
    const ALL: [Table; 3] = [Table::Training, Table::Revisions, Table::Unmatched];
}

/// The rows in which a table (none: any of the three) differs from what the raw tables say.
///
/// # Errors
/// Where no tick is recorded in all three tables, there is nothing to compare.
pub(super) fn text(names: &Names, model: &Model, table: Option<Table>) -> Result<String, Box<dyn std::error::Error>> {
    let through_us = model.through_us.ok_or_else(|| {
        format!(
            "no tick of `{}` is recorded as done in every partition of its tables yet: there is nothing to compare",
            names.model
        )
    })?;
    let tables = table.map_or(Table::ALL.to_vec(), |table| vec![table]);
    let texts: Vec<String> = tables
        .into_iter()
        .map(|table| match table {
            Table::Training => training::text(names, model, through_us),
            Table::Revisions => revisions::text(names, model, through_us),
            Table::Unmatched => unmatched::text(names, model, through_us),
        })
        .collect();
    Ok(match texts.as_slice() {
        [only] => only.clone(),
        _ => {
            let each =
                texts.iter().zip(Table::ALL).map(|(text, table)| format!("SELECT * FROM (\n{text}) {table:?}_rows"));
            each.collect::<Vec<_>>().join("\nUNION ALL\n")
        }
    })
}
