//! The demonstration: a quarter of flights out of New York goes once around the flywheel.
//!
//! Every departure is a prediction, posted to a sidecar at the instant it happened; every landing is an outcome. The
//! clock is the replay's: a week takes seconds. At each week's end the training table is complete through that
//! instant; a model is trained from it and takes over when it has been better on the following week. What is served
//! is logged, what happened is joined to it, and the next week's model learns from the two.
//!
//! ```text
//! flights ─► replay ─► client ═HTTP═► sidecar ─► log ─► joiner ─► tables ─► training ─► model ─┐
//!               ▲                                                                              │ promoted
//!               └──────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! | file | what |
//! |---|---|
//! | `args` | the options |
//! | `flights` | the input file |
//! | `corrections` | what sources state after the fact, where that is asked for |
//! | `client` | HTTP to the sidecar; repeats a call that got no answer |
//! | `replay` | the events in order, the weeks between them, and where a second start goes on |
//! | `model`, `quality` | the model and how good it is |
//! | `training` | reading the tables back |
//! | `journal` | what a second start has to know |
//! | `system` | the settings of sidecar and joiner, and which way they are started |
//! | `services`, `embedded`, `children` | sidecar and joiner, as tasks of this process or as processes that one of its tasks watches |
//! | `report` | what is said at the end |

mod args;
mod children;
mod client;
mod corrections;
mod embedded;
mod flights;
mod journal;
mod model;
mod quality;
mod replay;
mod report;
mod services;
mod system;
mod training;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

/// The model of the demonstration.
const MODEL: &str = "flight_delay";

/// Its contract.
const CONTRACT: &str = include_str!("../contracts/flight_delay.yaml");

/// What ends the demonstration, as a sentence.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// The program: the demonstration, or one of its two services where it was started as a child of itself.
pub fn main() -> ExitCode {
    let rest: Vec<OsString> = std::env::args_os().skip(1).collect();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("flights: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match rest.first().and_then(|word| word.to_str()) {
        Some(service @ (children::SIDECAR | children::JOINER)) => {
            runtime.block_on(children::serve(service, rest[1..].to_vec()))
        }
        _ => runtime.block_on(demonstrate()),
    }
}

async fn demonstrate() -> ExitCode {
    let args = args::Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_new(&args.log).unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false).init();
    match replay::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flights: {error}");
            ExitCode::FAILURE
        }
    }
}
