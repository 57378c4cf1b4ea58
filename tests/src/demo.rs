//! The demonstration as a process, for tests that look at what it leaves and that kill what it starts.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use crate::oracle;
use crate::servers::{S3_ACCESS_KEY, S3_REGION, S3_SECRET_KEY, ServerError, Set, signal};

/// The longest that the demonstration may take, kills and outages included, on a busy machine.
const LONGEST: Duration = Duration::from_secs(900);

pub struct Demo {
    child: Child,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
    said: String,
    end: Instant,
}

impl Demo {
    /// `program` is the binary (`env!("CARGO_BIN_EXE_demonstration")`).
    pub fn start(program: &str, arguments: &[String]) -> Result<Demo, ServerError> {
        let run = |source| ServerError::Run { script: program.to_owned(), source };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(run)?;
        let (sender, lines) = mpsc::channel();
        let (Some(output), Some(mut errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(ServerError::Start(format!("{program}: no pipes")));
        };
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut said = String::new();
            let _ = errors.read_to_string(&mut said);
            said
        });
        Ok(Demo { child, lines, errors: Some(errors), said: String::new(), end: Instant::now() + LONGEST })
    }

    /// Lets it take so much longer.
    pub fn allow(&mut self, more: Duration) {
        self.end += more;
    }

    /// The next line that it says; none when it has said its last. An error where it says nothing for too long.
    pub fn line(&mut self) -> Result<Option<String>, ServerError> {
        match self.lines.recv_timeout(self.end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                let _ = writeln!(self.said, "{line}");
                Ok(Some(line))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                Err(ServerError::Start(format!("no end after {} s; it said:\n{}", LONGEST.as_secs(), self.said)))
            }
        }
    }

    /// A line that is there already, without waiting.
    pub fn line_now(&mut self) -> Option<String> {
        let line = self.lines.try_recv().ok()?;
        let _ = writeln!(self.said, "{line}");
        Some(line)
    }

    /// Waits for a line that begins so.
    pub fn until(&mut self, beginning: &str) -> Result<String, ServerError> {
        while let Some(line) = self.line()? {
            if line.starts_with(beginning) {
                return Ok(line);
            }
        }
        let errors = self.errors();
        Err(ServerError::Start(format!("it never said `{beginning}`, but:\n{}{errors}", self.said)))
    }

    /// Waits for its end: what it said, if it ended well.
    pub fn finish(mut self) -> Result<String, ServerError> {
        while self.line()?.is_some() {}
        let status = self.wait()?;
        let errors = self.errors();
        match status.success() {
            true => Ok(std::mem::take(&mut self.said)),
            false => Err(ServerError::Start(format!("{status}; it said:\n{}{errors}", self.said))),
        }
    }

    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A Ctrl-C.
    pub fn interrupt(&self) -> Result<(), ServerError> {
        signal("INT", &self.pid().to_string())
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Result<(), ServerError> {
        signal("KILL", &self.pid().to_string())?;
        self.wait().map(|_| ())
    }

    fn wait(&mut self) -> Result<ExitStatus, ServerError> {
        self.child.wait().map_err(|source| ServerError::Run { script: "wait".to_owned(), source })
    }

    fn errors(&mut self) -> String {
        self.errors.take().and_then(|errors| errors.join().ok()).unwrap_or_default()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Only where a test failed in its middle; the children of the demonstration end with it.
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The options that bring the demonstration to the servers of a set.
pub fn on_servers(set: &Set, prefix: &str) -> Vec<String> {
    by_way_of(set, set.kafka.address(), set.catalog.address(), set.s3.address(), prefix)
}

/// The same, where broker, catalog and store are reached at other addresses than their own.
pub fn by_way_of(set: &Set, kafka: &str, catalog: &str, s3: &str, prefix: &str) -> Vec<String> {
    let mut options: Vec<String> = [
        ("--kafka", format!("kafka://{kafka}")),
        ("--registry", set.registry.address().to_owned()),
        ("--catalog", catalog.to_owned()),
        ("--warehouse", "s3://warehouse/".to_owned()),
        ("--prefix", prefix.to_owned()),
    ]
    .into_iter()
    .flat_map(|(option, value)| [option.to_owned(), value])
    .collect();
    for (key, value) in [
        ("s3.endpoint", s3),
        ("s3.access-key-id", S3_ACCESS_KEY),
        ("s3.secret-access-key", S3_SECRET_KEY),
        ("s3.region", S3_REGION),
        ("s3.path-style-access", "true"),
    ] {
        options.extend(["-X".to_owned(), format!("{key}={value}")]);
    }
    options
}

/// How many days of the quarter a test replays: `days`, or as many as `FLYWHEEL_TEST_DAYS` says (90 for all).
pub fn days(days: u32) -> u32 {
    std::env::var("FLYWHEEL_TEST_DAYS").ok().and_then(|text| text.parse().ok()).unwrap_or(days)
}

/// The flights that a test replays: those of the first [`days`].
pub fn flights(dir: &Path, of_days: u32) -> Result<PathBuf, ServerError> {
    let days = days(of_days);
    if days >= 90 {
        return Ok(oracle::first_quarter());
    }
    let mut text = String::new();
    let failed = ServerError::Folder;
    let file = std::fs::File::open(oracle::first_quarter()).map_err(failed)?;
    GzDecoder::new(file).read_to_string(&mut text).map_err(failed)?;
    // The key of a flight begins with its day.
    let all: BTreeSet<&str> = text.lines().skip(1).filter_map(|line| line.get(..8)).collect();
    let kept: BTreeSet<&str> = all.into_iter().take(days as usize).collect();
    let path = dir.join(format!("flights-{days}-days.csv.gz"));
    let mut out = GzEncoder::new(std::fs::File::create(&path).map_err(failed)?, Compression::fast());
    for (number, line) in text.lines().enumerate() {
        if number == 0 || line.get(..8).is_some_and(|day| kept.contains(day)) {
            writeln!(out, "{line}").map_err(failed)?;
        }
    }
    out.finish().map_err(failed)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_days_are_whole_days() {
        let dir = tempfile::tempdir().unwrap();
        let count = |days: u32| {
            let mut text = String::new();
            let path = flights(dir.path(), days).unwrap();
            GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
            (text.lines().count() - 1, text.lines().last().unwrap()[..8].to_owned())
        };
        let (one, last) = count(1);
        assert!((600..800).contains(&one) && last == "20130101", "{one} {last}");
        assert_eq!(count(33).1, "20130202");
        assert_eq!(count(90).0, 78_035);
    }
}
