//! The command line: configuration, telemetry, the app, and the signals that end it.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::config::{Args, Config, LogFormat, Telemetry, Tool};
use crate::files::Files;
use crate::privacy::KeyRing;
use crate::transcode::BODY_BYTES_MAX;
use crate::{App, salvage, shutdown};

/// The command for another binary that runs the sidecar as its child; see [`run_from_args`].
pub fn command() -> clap::Command {
    <Args as clap::CommandFactory>::command()
}

/// Runs the sidecar until SIGTERM or Ctrl-C. `args` are those after the name of the program. SIGHUP, or a change of their
/// files, has the contracts, the key ring and `[sampling]` read again. Exits with 0 after an orderly stop, with 1 where a
/// task failed or it could not start, with 2 for a fault of the command line or the configuration. `spool inspect` and
/// `spool export` have codes of their own, see their help.
pub async fn run_from_args(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // --help and --version come this way too.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match &args.tool {
        Some(Tool::Pseudonym { key_file }) => return pseudonyms(key_file),
        Some(Tool::Spool(look)) => {
            return salvage::run(look, &mut std::io::stdout().lock(), &mut std::io::stderr().lock());
        }
        None => {}
    }
    let config = match Config::from_args(&args) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if args.print_config {
        print!("{}", config.to_toml());
        return ExitCode::SUCCESS;
    }
    if let Err(error) = start_telemetry(&config.telemetry) {
        eprintln!("telemetry.filter: {error}");
        return ExitCode::from(2);
    }
    match serve(&args, config).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(%error, "the sidecar cannot start");
            ExitCode::FAILURE
        }
    }
}

/// Says what the text on standard input is called in rows. One line break at its end, as `echo` makes it, is no part of it.
fn pseudonyms(key_file: &Path) -> ExitCode {
    let said = KeyRing::read(key_file).map_err(|error| format!("{}: {error}", key_file.display())).and_then(|keys| {
        let mut text = Vec::new();
        std::io::stdin().take(BODY_BYTES_MAX as u64).read_to_end(&mut text).map_err(|error| error.to_string())?;
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let lines: Vec<String> = keys.pseudonyms(text).collect();
        writeln!(std::io::stdout(), "{}", lines.join("\n")).map_err(|error| error.to_string())
    });
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: &Args, config: Config) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let requested = shutdown::requested()?;
    let mut hangups = signal(SignalKind::hangup())?;
    let named = [args.config.clone(), config.privacy.key_file.clone()];
    let mut files = Files::new(named.into_iter().flatten().collect(), &config.contracts.dir);
    let app = App::build(config).await?;
    tracing::info!(api = %app.address(), admin = %app.admin_address(), "listening");
    let (handle, args) = (app.handle(), args.clone());
    let reloads = tokio::spawn(async move {
        loop {
            let why = tokio::select! {
                Some(()) = hangups.recv() => "SIGHUP",
                () = files.changed() => "a file has changed",
            };
            tracing::info!(why, "reading configuration and contracts again");
            handle.reload_with(Config::from_args(&args)).await;
        }
    });
    let stopped = app.run(requested).await;
    reloads.abort();
    Ok(if stopped.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Logs go to standard error. Within a process that logs already this changes nothing.
fn start_telemetry(telemetry: &Telemetry) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::try_new(&telemetry.filter)?;
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A line that cannot be written, since the disk is full, is lost: to say so on standard error would be a panic.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(is_terminal)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let _ = match telemetry.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    };
    Ok(())
}
