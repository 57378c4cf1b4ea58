//! `flywheel-joiner run`.

use std::process::ExitCode;

use crate::app::App;
use crate::config::Config;

/// Runs until SIGTERM or Ctrl-C.
pub async fn run(config: Config) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // Where the process already has a subscriber, that one stays. A line that cannot be written, since the disk is full, is
    // lost: to say so on standard error, which is where it was to go, would be a panic.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = log.log_internal_errors(false).try_init();
    let app = App::build(config).await?;
    app.run(stop_signal()).await?;
    Ok(ExitCode::SUCCESS)
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
