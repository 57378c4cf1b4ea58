//! The set of servers that the tests of one run share, each started when it is first asked for.
//!
//! Tests keep apart by their topic prefix and namespace. A test that stops or kills a server starts its own.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::{Kafka, Registry, RestCatalog, S3, Server, ServerError, Trino};
use crate::readers::{Python, Spark};

/// Whether `FLYWHEEL_SKIP_SERVERS=1` asks to leave out the tests on real servers; says so where it does. Nothing else
/// skips them: a missing Java is an error.
pub fn skipped(test: &str) -> bool {
    let skip = std::env::var("FLYWHEEL_SKIP_SERVERS").is_ok_and(|value| value == "1");
    if skip {
        // Past the test harness, which keeps the output of tests that pass to itself.
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "{test}: SKIPPED, because FLYWHEEL_SKIP_SERVERS=1");
    }
    skip
}

/// Kafka, registry, S3 and REST catalog, and the engines that read from them.
pub struct Set {
    dir: PathBuf,
    pub kafka: Kafka,
    pub registry: Registry,
    pub s3: S3,
    pub catalog: RestCatalog,
    spark: OnceLock<Spark>,
    trino: OnceLock<Trino>,
}

impl Set {
    /// Starts the four servers; the data goes with the folder `dir`.
    pub fn start(dir: PathBuf) -> Result<Set, ServerError> {
        let kafka = Kafka::start(&dir)?;
        Set::start_with(dir, kafka)
    }

    /// The same with a broker that runs already.
    pub fn start_with(dir: PathBuf, kafka: Kafka) -> Result<Set, ServerError> {
        // In a row: each takes some seconds of every core that there is.
        let s3 = S3::start(&dir)?;
        let catalog = RestCatalog::start(&dir, &s3)?;
        let registry = Registry::start(&dir)?;
        Ok(Set { dir, kafka, registry, s3, catalog, spark: OnceLock::new(), trino: OnceLock::new() })
    }

    /// The Spark session of the set; one statement at a time.
    pub fn spark(&self) -> &Spark {
        self.spark.get_or_init(|| Spark::start(&self.catalog, &self.s3).unwrap_or_else(|error| panic!("{error}")))
    }

    pub fn trino(&self) -> &Trino {
        self.trino
            .get_or_init(|| Trino::start(&self.dir, &self.catalog, &self.s3).unwrap_or_else(|error| panic!("{error}")))
    }

    pub fn python(&self, namespace: &str) -> Python {
        Python::rest(self.catalog.address(), self.s3.address(), namespace)
    }
}

/// The set of this process. Panics with what to install where a server does not start: the test that asks then fails
/// with that line. Where a server died meanwhile, the panic of a test is followed by the end of that server's log.
pub fn shared() -> &'static Set {
    static SET: OnceLock<Set> = OnceLock::new();
    SET.get_or_init(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            report(panic);
            let Some(set) = SET.get() else { return };
            let servers: [&Server; 4] = [&set.kafka, &set.registry, &set.s3, &set.catalog];
            for obituary in servers.into_iter().filter_map(Server::obituary) {
                eprintln!("{obituary}");
            }
        }));
        // Not removed at the end, since nothing runs at the end of a test process; the next run removes it.
        let dir = std::env::temp_dir().join("flywheel-tests");
        sweep(&dir);
        Set::start(dir.join(std::process::id().to_string())).unwrap_or_else(|error| panic!("{error}"))
    })
}

/// Removes what earlier test processes left: the folders whose process is gone.
fn sweep(dir: &std::path::Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if !std::path::Path::new("/proc").join(entry.file_name()).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
