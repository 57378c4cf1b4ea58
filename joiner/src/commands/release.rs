//! `flywheel-joiner release`: a person lets ticks be open although a label source seems dead. Appended to every partition
//! of the model's outcomes topic, so that whoever reads the log knows it from the same record on.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use flywheel_schemas::contract::{Contract, Gate};
use flywheel_schemas::gate::{Cause, GateRecord};
use flywheel_schemas::registry::Registry;
use flywheel_schemas::wire::{self, Kind};

use crate::config::Config;
use crate::contracts::Contracts;
use crate::source;

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    model: String,
    /// Why ticks are barred, as log, metric and `seal_log` say it: progress:SOURCE or rate:LABEL
    #[arg(long)]
    cause: Cause,
    /// Ticks after now and through this RFC 3339 instant are open; one far ahead for a source that is no more
    #[arg(long, value_name = "INSTANT")]
    through: DateTime<Utc>,
}

pub async fn run(config: Config, arguments: Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let Arguments { model, cause, through } = arguments;
    let contracts = Contracts::load(&model, &config.log.prefix, Registry::open(&config.registry())?).await?;
    let causes: Vec<Cause> = contracts.versions().flat_map(|contract| causes_of(contract)).collect();
    if !causes.contains(&cause) {
        let known: Vec<String> = causes.iter().map(Cause::to_string).collect();
        return Err(format!("no contract of {model} has a gate {cause}; it has {known:?}").into());
    }
    let record = GateRecord::Release { cause: cause.clone(), through_ms: through.timestamp_millis() };
    let topic = wire::topic(&config.log.prefix, &model, Kind::Outcomes);
    let partitions = source::append_everywhere(&config.source(), &topic, (wire::GATE, &record.to_header())).await?;
    println!("{cause} bars no tick through {through} in {partitions} partitions of {topic}");
    Ok(ExitCode::SUCCESS)
}

fn causes_of(contract: &Contract) -> Vec<Cause> {
    let of_label = |name: &str, gate: &Gate| match gate {
        Gate::Progress { source } => Cause::Progress(source.clone()),
        Gate::Rate { .. } => Cause::Rate(name.to_owned()),
    };
    contract.labels.iter().filter_map(|label| Some(of_label(&label.name, label.gate.as_ref()?))).collect()
}
