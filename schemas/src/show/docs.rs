//! A contract as Markdown: its fields, its labels, its tables.

use std::fmt::Write;

use crate::contract::{Block, Contract, Field, Label, LabelOwner, Privacy, SealWhen, format_duration};
use crate::table::{self, ColumnType, Table};

pub fn docs(contract: &Contract) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, contract);
    out
}

fn write(out: &mut String, contract: &Contract) -> std::fmt::Result {
    writeln!(out, "# {} (version {})\n", contract.model, contract.version)?;
    if let Some(description) = &contract.description {
        writeln!(out, "{description}\n")?;
    }
    if let Some(owner) = &contract.owner {
        writeln!(out, "Owner: {owner}\n")?;
    }
    if let Some(model) = &contract.successor_of {
        writeln!(out, "Takes the place of `{model}`.\n")?;
    }
    for block in Block::ALL.into_iter().filter(|block| !contract.block(*block).is_empty()) {
        let name = block.name();
        writeln!(out, "## {}{}\n", name[..1].to_uppercase(), &name[1..])?;
        writeln!(out, "| field | column | type | | meaning |\n|---|---|---|---|---|")?;
        for field in contract.block(block) {
            let column = block.column(&field.name);
            let (notes, meaning) = (notes(field), meaning(field.description.as_deref(), field.unit.as_deref()));
            writeln!(out, "| `{}` | `{column}` | {} | {notes} | {meaning} |", field.name, cell(&field.ty.to_string()))?;
        }
        writeln!(out)?;
    }
    labels(out, contract)?;
    if let Some(sampling) = super::sampling(contract) {
        writeln!(out, "## Sampling\n\n{sampling}\n")?;
    }
    writeln!(out, "## Tables\n")?;
    for table in [table::predictions(contract), table::outcomes(contract), table::training(contract)] {
        columns(out, &table)?;
    }
    Ok(())
}

fn labels(out: &mut String, contract: &Contract) -> std::fmt::Result {
    if contract.labels.is_empty() {
        return Ok(());
    }
    writeln!(out, "## Labels\n")?;
    writeln!(out, "| label | column | type | rule | meaning |\n|---|---|---|---|---|")?;
    for label in &contract.labels {
        let meaning = meaning(label.description.as_deref(), label.unit.as_deref());
        let ty = cell(&label.ty.to_string());
        writeln!(out, "| `{0}` | `label_{0}` | {ty} | {1} | {meaning} |", label.name, rule(label))?;
    }
    let when = match &contract.seal.when {
        SealWhen::AllClosed => "all streaming labels are".to_owned(),
        SealWhen::Label(name) => format!("`{name}` is"),
    };
    writeln!(
        out,
        "\nA row is sealed once {when} closed, {} after the prediction at the earliest; later changes are recorded for \
         another {}.\n",
        format_duration(contract.seal_ms()),
        format_duration(contract.seal.horizon_ms)
    )
}

fn rule(label: &Label) -> String {
    let mut rule = format!(
        "{} within {}, closed {} later",
        label.aggregate.name(),
        format_duration(label.window_ms),
        format_duration(label.lateness_ms)
    );
    let json = label.to_json();
    match json.get("default") {
        Some(default) => rule.push_str(&format!(", else `{default}`")),
        None => rule.push_str(", else missing"),
    }
    if let Some(requires) = &label.requires {
        rule.push_str(&format!(", only where `{requires}` is true"));
    }
    if label.owner == LabelOwner::Batch {
        rule.push_str(", by a batch job");
    }
    cell(&rule)
}

fn notes(field: &Field) -> String {
    let mut notes = Vec::new();
    if field.required {
        notes.push("required".to_owned());
    }
    match field.privacy {
        Privacy::None => {}
        Privacy::Drop => notes.push("private: dropped".to_owned()),
        Privacy::Mask => notes.push("private: masked".to_owned()),
        Privacy::Hmac => notes.push("private: hashed with a key".to_owned()),
    }
    if let Some(expect) = &field.expect {
        let end = |end: Option<f64>| end.map_or("…".to_owned(), |end| end.to_string());
        notes.push(format!("{} to {}", end(expect.min), end(expect.max)));
    }
    notes.extend(field.kind.clone());
    notes.extend(field.view.as_ref().map(|view| format!("view {view}")));
    cell(&notes.join(", "))
}

fn meaning(description: Option<&str>, unit: Option<&str>) -> String {
    let mut meaning = description.unwrap_or_default().to_owned();
    if let Some(unit) = unit {
        meaning.push_str(&format!(" [{unit}]"));
    }
    cell(meaning.trim_start())
}

fn columns(out: &mut String, table: &Table) -> std::fmt::Result {
    writeln!(out, "### {}\n\n{}; by day of `{}`.\n", table.name, table.doc, table.day_of)?;
    writeln!(out, "| column | type | meaning |\n|---|---|---|")?;
    for column in &table.columns {
        let ty = match &column.ty {
            ColumnType::Plain(ty) => ty.iceberg(),
            ColumnType::Provenance => "list<struct<view, status, feature_time, age_ms>>".to_owned(),
        };
        let ty = if column.required { format!("{ty}, required") } else { ty };
        writeln!(out, "| `{}` | {} | {} |", column.name, cell(&ty), cell(&column.doc))?;
    }
    writeln!(out)
}

/// Text that stays within its cell.
fn cell(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;").replace(['\n', '\r'], " ")
}
