//! Rows that should be in a table against those that are.

use super::super::Names;

/// A column of the rows that are compared: its name, what should be in it and what is, as texts of the two sides.
pub(super) struct Column {
    pub name: String,
    pub right: String,
    pub found: String,
}

/// What is compared.
pub(super) struct Sides<'a> {
    /// The word in the column `table`.
    pub table: &'a str,
    /// The queries that come first.
    pub queries: Vec<String>,
    /// Behind `FROM`: the rows as they should be.
    pub right: String,
    /// The same of the table.
    pub found: String,
    /// All columns; `prediction_id` and `as_of`, in microseconds, are among them.
    pub columns: Vec<Column>,
    /// Of these, beside `prediction_id`, those by which a row is the same row, only different.
    pub key: &'a [&'a str],
}

/// Arguments of one function at most: Trino takes 127.
const ARGUMENTS_MAX: usize = 50;

pub(super) fn text(names: &Names, sides: Sides) -> String {
    // By number, since a contract may call its columns what it likes.
    let number = |name: &str| sides.columns.iter().position(|column| column.name == name).unwrap_or(0);
    let columns: Vec<String> = (0..sides.columns.len()).map(|number| format!("c{number}")).collect();
    let side = |of: fn(&Column) -> &String| {
        let texts = sides.columns.iter().enumerate();
        texts.map(|(number, column)| format!("{} AS c{number}", of(column))).collect::<Vec<_>>().join(",\n    ")
    };
    let key: Vec<String> = std::iter::once("prediction_id")
        .chain(sides.key.iter().copied())
        .map(|name| format!("c{}", number(name)))
        .collect();
    let over = format!("OVER (PARTITION BY {})", key.join(", "));
    let what: Vec<String> = sides
        .columns
        .iter()
        .enumerate()
        .map(|(number, column)| {
            let of = |compared: &str| format!("max(CASE WHEN net {compared} 0 THEN c{number} END) {over}");
            let (right, found) = (of(">"), of("<"));
            let shown = |text: &str| format!("coalesce({text}, 'null')");
            format!(
                "CASE WHEN {right} IS DISTINCT FROM {found} THEN concat('{} is ', {}, ', not ', {}) END",
                column.name,
                shown(&found),
                shown(&right)
            )
        })
        .collect();
    let what = joined(&what);
    let queries: String = sides.queries.iter().map(|query| format!("{query},\n")).collect();
    let (prediction_id, as_of) = (number("prediction_id"), number("as_of"));
    format!(
        "WITH {queries}compared AS (
  SELECT 1 AS side_count,
    {}
  FROM {}
  UNION ALL
  SELECT -1 AS side_count,
    {}
  FROM {}),
differences AS (
  SELECT {columns}, sum(side_count) AS net
  FROM compared GROUP BY {columns} HAVING sum(side_count) <> 0)
SELECT CASE WHEN net > 0 THEN 'missing' ELSE 'foreign' END AS side, '{}' AS {}, c{prediction_id} AS prediction_id,
  {} AS as_of,
  CASE WHEN max(net) {over} > 0 AND min(net) {over} < 0 THEN {what} ELSE 'the whole row' END AS what
FROM differences",
        side(|column| &column.right),
        sides.right,
        side(|column| &column.found),
        sides.found,
        sides.table,
        names.column("table"),
        names.timestamp(&format!("CAST(c{as_of} AS BIGINT)")),
        columns = columns.join(", "),
    )
}

/// Texts that may be null, with `; ` between those that are not.
fn joined(texts: &[String]) -> String {
    let parts =
        texts.chunks(ARGUMENTS_MAX).map(|texts| format!("nullif(concat_ws('; ', {}), '')", texts.join(",\n    ")));
    let parts: Vec<String> = parts.collect();
    match parts.as_slice() {
        [only] => only.clone(),
        _ => format!("concat_ws('; ', {})", parts.join(", ")),
    }
}
