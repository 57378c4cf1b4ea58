//! The resident memory of a sidecar that takes 20,000 requests a second while the broker is away.
//!
//! The sidecar is a process of its own: this binary, started again with [`SERVE`]. Its spool has 1 GiB, which is full
//! about halfway through; after that it answers 503, as fast. The bar is on the most that the system ever says is
//! resident; that it is flat is the ratio of the last third to the second one.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::load::{connect, open_loop};
use super::server::config;
use crate::bench::{Bar, Measure, median};

/// The hidden argument that makes this binary the sidecar; the settings follow as a file.
const SERVE: &str = "serve-sidecar";

const SPOOL_BYTES: u64 = 1 << 30;
const RATE: f64 = 20_000.0;
const CONNECTIONS: usize = 64;
/// At 16 MB a second the spool is full after a minute.
const TIME: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_secs(1);

pub fn measures(one: &[u8]) -> Result<Vec<Measure>, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let mut sidecar = Sidecar::start(dir.path())?;
    let mut connections = connect(sidecar.address, one, CONNECTIONS)?;
    let (mut resident, mut looked, start) = (Vec::new(), Instant::now(), Instant::now());
    let process = sidecar.child.id();
    let (mut accepted, mut refused) = (0_u64, 0_u64);
    open_loop(&mut connections, RATE, TIME, |connection| {
        *if connection.is_accepted() { &mut accepted } else { &mut refused } += 1;
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            resident.push((start.elapsed(), resident_mib(process)?));
        }
        Ok(())
    })?;
    sidecar.stop();
    let of = |from: u32, to: u32| {
        let within = |at: &Duration| TIME * from / 3 <= *at && *at < TIME * to / 3;
        median(&mut resident.iter().filter(|(at, _)| within(at)).map(|(_, mib)| *mib).collect::<Vec<_>>())
    };
    let (first, second, last) = (of(0, 1), of(1, 2), of(2, 3));
    let most = resident.iter().map(|(_, mib)| *mib).fold(0.0, f64::max);
    let note = format!(
        "MiB at the most; thirds {first:.1}, {second:.1}, {last:.1}; {accepted} accepted, {refused} answered 503 in {} s",
        TIME.as_secs()
    );
    Ok(vec![
        Measure { name: "resident memory, MiB", ratios: vec![most], bar: Bar::AtMost(64.0), note },
        Measure {
            name: "resident memory, growth",
            ratios: vec![last / second],
            bar: Bar::AtMost(1.05),
            note: "last third ÷ second third".to_owned(),
        },
    ])
}

struct Sidecar {
    child: Child,
    address: SocketAddr,
}

impl Sidecar {
    fn start(dir: &Path) -> Result<Sidecar, Box<dyn Error>> {
        let port = crate::servers::free_port()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut config = config(dir, SPOOL_BYTES)?;
        config.listen.tcp = Some(address);
        let settings = dir.join("sidecar.toml");
        std::fs::write(&settings, config.to_toml())?;
        let log = std::fs::File::create(dir.join("log"))?;
        let child = Command::new("taskset")
            .args(["-c", "0"])
            .arg(std::env::current_exe()?)
            .args([SERVE, "--config"])
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut sidecar = Sidecar { child, address };
        let start = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            if start.elapsed() > Duration::from_secs(30) || sidecar.child.try_wait()?.is_some() {
                let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
                return Err(format!("the sidecar does not start:\n{log}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(sidecar)
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.stop();
    }
}

fn resident_mib(process: u32) -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// What this binary does when it is started as the sidecar, as the sidecar's own `main`.
pub fn serve() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == SERVE).then(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.map_or(ExitCode::FAILURE, |runtime| runtime.block_on(flywheel_sidecar::run_from_args(arguments)))
    })
}
