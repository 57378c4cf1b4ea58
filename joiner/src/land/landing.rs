//! What waits for its commit.

use std::collections::HashSet;
use std::time::Instant;

use arrow::array::RecordBatch;
use flywheel_schemas::wire::Kind;

use crate::bar::Barred;
use crate::decode::{DecodeError, Decoder, Rows};
use crate::label::Statement;
use crate::letters::DeadLetter;
use crate::pipeline::PipelineError;
use crate::table::{DataFile, Table, TableError};

/// The rows of one raw table that wait for their commit.
pub(crate) struct Landing {
    pub table: Table,
    pub rows: Rows,
    pub batches: Vec<RecordBatch>,
    batch_bytes: usize,
    /// For the index, once they are committed; outcomes only.
    pub statements: Vec<(String, Statement)>,
    /// What they take, for each takes more than its row.
    statement_bytes: usize,
    /// Schemas of which every value has a column in the table, as far as they were met since the last commit.
    fitting: HashSet<u32>,
    /// The files of a commit that was put off, with all the rows.
    files: Option<Vec<DataFile>>,
}

impl Landing {
    pub fn new(table: Table) -> Landing {
        let rows = Rows::new(table.arrow_schema());
        Landing {
            table,
            rows,
            batches: Vec::new(),
            batch_bytes: 0,
            statements: Vec::new(),
            statement_bytes: 0,
            fitting: HashSet::new(),
            files: None,
        }
    }

    pub fn bytes(&self) -> usize {
        self.batch_bytes + self.rows.bytes() + self.statement_bytes
    }

    /// Keeps a statement for the index.
    pub fn keep(&mut self, prediction_id: &str, statement: Statement) {
        let values = statement.values.iter().map(|(name, value)| size_of_val(value) + size_of_val(name) + name.len());
        let texts = prediction_id.len() + statement.event_id.len() + statement.outcome_id.len();
        self.statement_bytes += size_of::<(String, Statement)>() + texts + values.sum::<usize>();
        self.statements.push((prediction_id.to_owned(), statement));
    }

    /// Forgets everything that is not committed.
    pub fn clear(&mut self) {
        self.rows = Rows::new(self.table.arrow_schema());
        self.batches.clear();
        self.batch_bytes = 0;
        self.statements = Vec::new();
        self.statement_bytes = 0;
        self.fitting.clear();
        self.files = None;
    }

    /// Goes on with the table as it is now: it may have gained columns.
    pub fn replace_table(&mut self, table: Table) -> Result<(), PipelineError> {
        self.cut()?;
        self.rows = Rows::new(table.arrow_schema());
        self.fitting.clear();
        self.table = table;
        Ok(())
    }

    /// Whether the table takes every value of such a datum; one that it does not take would be left out of the row.
    pub fn admit(&mut self, schema_id: u32, decoder: &Decoder) -> Result<(), DecodeError> {
        if !self.fitting.contains(&schema_id) {
            self.rows.fits(decoder)?;
            self.fitting.insert(schema_id);
        }
        Ok(())
    }

    pub fn cut(&mut self) -> Result<(), PipelineError> {
        if !self.rows.is_empty() {
            let batch = self.rows.finish().map_err(PipelineError::decode)?;
            self.batch_bytes += batch.get_array_memory_size();
            self.batches.push(batch);
        }
        Ok(())
    }

    /// The files with all the rows, written once however often their commit is tried.
    pub async fn files(&mut self) -> Result<Vec<DataFile>, TableError> {
        if let Some(files) = &self.files {
            return Ok(files.clone());
        }
        let mut writer = self.table.writer()?;
        for batch in &self.batches {
            writer.write(batch).await?;
        }
        let files = writer.close().await?;
        self.files = Some(files.clone());
        Ok(files)
    }
}

/// What waits to be kept before the next raw commit, and how long something has waited.
#[derive(Default)]
pub(crate) struct Aside {
    pub dead_letters: Vec<DeadLetter>,
    pub bars: Vec<Barred>,
    /// When the oldest uncommitted row or letter was read.
    pub since: Option<Instant>,
}

impl Aside {
    pub fn bytes(&self) -> usize {
        self.dead_letters.iter().map(DeadLetter::bytes).sum()
    }

    pub fn touch(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }
}

/// The two raw tables.
pub(crate) struct Landings {
    pub predictions: Landing,
    pub outcomes: Landing,
}

impl Landings {
    pub fn get(&self, kind: Kind) -> &Landing {
        match kind {
            Kind::Predictions => &self.predictions,
            Kind::Outcomes => &self.outcomes,
        }
    }

    pub fn get_mut(&mut self, kind: Kind) -> &mut Landing {
        match kind {
            Kind::Predictions => &mut self.predictions,
            Kind::Outcomes => &mut self.outcomes,
        }
    }
}
