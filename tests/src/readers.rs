//! The engines that read the tables: Spark, Trino, DuckDB and PyIceberg. Each answers SQL with [`Rows`].
//!
//! Values come as JSON has them; what JSON has no form for (times, decimals) comes as the engine's own text, so a
//! comparison between engines casts in SQL.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::servers::{RestCatalog, S3, S3_ACCESS_KEY, S3_SECRET_KEY, ServerError, Trino, scripts};

pub type Rows = Vec<Vec<Value>>;

/// A process that answers each line with a line of JSON.
struct Session {
    name: &'static str,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    fn start(name: &'static str, script: &str, arguments: &[&str]) -> Result<Session, ServerError> {
        let run = |source| ServerError::Run { script: script.to_owned(), source };
        // Spark greets and warns at length on standard error. It goes to a file of its own, and is shown where the
        // session does not come up.
        let log = tempfile::NamedTempFile::new().map_err(ServerError::Folder)?;
        let mut child = Command::new(scripts().join(script))
            .args(arguments)
            .env("S3_ACCESS_KEY", S3_ACCESS_KEY)
            .env("S3_SECRET_KEY", S3_SECRET_KEY)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.reopen().map_err(ServerError::Folder)?)
            .spawn()
            .map_err(run)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(ServerError::Start(format!("{script}: no pipes")));
        };
        let mut session = Session { name, child, input, output: BufReader::new(output) };
        match session.line() {
            Ok(answer) if answer["ready"] == true => Ok(session),
            _ => {
                let said = std::fs::read_to_string(log.path()).unwrap_or_default();
                let last: Vec<&str> = said.lines().rev().take(20).collect();
                let said: Vec<&str> = last.into_iter().rev().collect();
                Err(ServerError::Start(said.join("\n")))
            }
        }
    }

    fn line(&mut self) -> Result<Value, ServerError> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        read.ok()
            .filter(|bytes| *bytes > 0)
            .and_then(|_| serde_json::from_str(&line).ok())
            .ok_or_else(|| ServerError::Start(format!("{}: the session ended", self.name)))
    }

    fn ask(&mut self, sql: &str) -> Result<Rows, ServerError> {
        self.table(sql).map(|(_, rows)| rows)
    }

    /// The names of the columns, and the rows.
    fn table(&mut self, sql: &str) -> Result<(Vec<String>, Rows), ServerError> {
        let statement = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        let run = |source| ServerError::Run { script: self.name.to_owned(), source };
        writeln!(self.input, "{statement}").and_then(|()| self.input.flush()).map_err(run)?;
        rows(self.name, sql, self.line()?)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The end of its input ends it, but a session in the middle of a query would not notice.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rows(name: &str, sql: &str, mut answer: Value) -> Result<(Vec<String>, Rows), ServerError> {
    let fault = |text: &str| ServerError::Start(format!("{name}: {text}\nin: {sql}"));
    if let Some(error) = answer["error"].as_str() {
        return Err(fault(error));
    }
    let columns = serde_json::from_value(answer["columns"].take()).map_err(|error| fault(&error.to_string()))?;
    let rows = serde_json::from_value(answer["rows"].take()).map_err(|error| fault(&error.to_string()))?;
    Ok((columns, rows))
}

/// A local Spark session; the catalog `ice` is the default one.
pub struct Spark(Mutex<Session>);

impl Spark {
    pub fn start(catalog: &RestCatalog, s3: &S3) -> Result<Spark, ServerError> {
        let arguments = ["sql", "--catalog", catalog.address(), "--s3", s3.address()];
        Session::start("Spark", "spark.sh", &arguments).map(|session| Spark(Mutex::new(session)))
    }
}

/// Where the Python readers find the tables.
pub struct Python {
    arguments: Vec<String>,
}

impl Python {
    /// The tables of `namespace` in a REST catalog over S3.
    pub fn rest(catalog: &str, s3: &str, namespace: &str) -> Python {
        let arguments = ["--catalog", catalog, "--s3", s3, "--namespace", namespace];
        Python { arguments: arguments.map(str::to_owned).to_vec() }
    }

    /// The tables that the demonstration leaves in `data_dir`.
    pub fn local(data_dir: &Path) -> Python {
        let catalog = format!("sqlite:{}", data_dir.join("catalog.db").display());
        let warehouse = data_dir.join("warehouse").display().to_string();
        let arguments = ["--catalog", &catalog, "--warehouse", &warehouse, "--namespace", "flywheel"];
        Python { arguments: arguments.map(str::to_owned).to_vec() }
    }

    /// Files alone, read by their paths: no table is looked up before a statement, which takes its time.
    pub fn files(data_dir: &Path) -> Python {
        let mut reader = Python::local(data_dir);
        reader.arguments.extend(["--namespace", "none"].map(str::to_owned));
        reader
    }

    pub fn duckdb(&self) -> Result<Duckdb, ServerError> {
        self.session("DuckDB", "duckdb").map(|session| Duckdb(Mutex::new(session)))
    }

    pub fn pyiceberg(&self) -> Result<Pyiceberg, ServerError> {
        self.session("PyIceberg", "pyiceberg").map(|session| Pyiceberg(Mutex::new(session)))
    }

    pub fn bits(&self) -> Result<Bits, ServerError> {
        self.session("bits", "bits").map(|session| Bits(Mutex::new(session)))
    }

    fn session(&self, name: &'static str, reader: &str) -> Result<Session, ServerError> {
        let mut arguments = vec![reader];
        arguments.extend(self.arguments.iter().map(String::as_str));
        Session::start(name, "python.sh", &arguments)
    }
}

pub struct Duckdb(Mutex<Session>);
pub struct Pyiceberg(Mutex<Session>);
/// Reads whole tables by the bits of their cells; see `bits.py`.
pub struct Bits(Mutex<Session>);

pub fn spark_sql(spark: &Spark, sql: &str) -> Result<Rows, ServerError> {
    spark.0.lock().unwrap_or_else(PoisonError::into_inner).ask(sql)
}

pub fn duckdb_sql(duckdb: &Duckdb, sql: &str) -> Result<Rows, ServerError> {
    duckdb.0.lock().unwrap_or_else(PoisonError::into_inner).ask(sql)
}

/// Scans the whole of `table` with PyIceberg; `sql` is DuckDB's over what came, under the name `scanned`.
pub fn pyiceberg(reader: &Pyiceberg, table: &str, sql: &str) -> Result<Rows, ServerError> {
    reader.0.lock().unwrap_or_else(PoisonError::into_inner).ask(&format!("{table}: {sql}"))
}

/// Every row of `table` as `engine` (`pyiceberg`, `duckdb`) reads it: by the names of the columns, the bits as text.
pub fn bits(reader: &Bits, engine: &str, table: &str) -> Result<Vec<serde_json::Map<String, Value>>, ServerError> {
    let statement = format!("{engine} {table}");
    let mut session = reader.0.lock().unwrap_or_else(PoisonError::into_inner);
    let (columns, rows) = session.table(&statement)?;
    Ok(rows.into_iter().map(|row| columns.iter().cloned().zip(row).collect()).collect())
}

/// Trino's own protocol: a POST, then the next page until there is none.
///
/// A server that has just started may refuse the first query for want of a node: one repeat, after its bound.
pub fn trino_sql(trino: &Trino, sql: &str) -> Result<Rows, ServerError> {
    // A busy machine makes the one node lose sight of itself for some seconds.
    const TRIES: usize = 60;
    for _ in 1..TRIES {
        match trino_pages(trino, sql) {
            Err(error) if error.to_string().contains("NO_NODES_AVAILABLE") => {
                std::thread::sleep(Duration::from_millis(500));
            }
            answer => return answer,
        }
    }
    trino_pages(trino, sql)
}

fn trino_pages(trino: &Trino, sql: &str) -> Result<Rows, ServerError> {
    let fault = |text: String| ServerError::Start(format!("Trino: {text}\nin: {sql}"));
    // A runtime on a thread of its own: the caller may be within one or not.
    let answer = std::thread::scope(|scope| {
        let ask = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| error.to_string())?.block_on(pages(trino.address(), sql))
        };
        scope.spawn(ask).join()
    });
    answer.map_err(|_| fault("the query panicked".to_owned()))?.map_err(fault)
}

async fn pages(address: &str, sql: &str) -> Result<Rows, String> {
    // Reads of the demonstration's tables take seconds; a query that takes this long has hung.
    const LONGEST: Duration = Duration::from_secs(300);
    let end = Instant::now() + LONGEST;
    let client = reqwest::Client::new();
    let page = async |request: reqwest::RequestBuilder| -> Result<Value, String> {
        let request = request.header("X-Trino-User", "test").header("X-Trino-Time-Zone", "UTC");
        let answer =
            request.timeout(Duration::from_secs(60)).send().await.and_then(reqwest::Response::error_for_status);
        answer.map_err(|error| error.to_string())?.json().await.map_err(|error| error.to_string())
    };
    let mut answer = page(client.post(format!("{address}/v1/statement")).body(sql.to_owned())).await?;
    let mut rows = Rows::new();
    loop {
        if let Some(error) = answer["error"]["message"].as_str() {
            return Err(format!("{}: {error}", answer["error"]["errorName"].as_str().unwrap_or_default()));
        }
        if let Some(data) = answer.get("data") {
            rows.extend(serde_json::from_value::<Rows>(data.clone()).map_err(|error| error.to_string())?);
        }
        let Some(next) = answer["nextUri"].as_str() else { return Ok(rows) };
        if Instant::now() > end {
            return Err(format!("no end after {} s", LONGEST.as_secs()));
        }
        answer = page(client.get(next)).await?;
    }
}
