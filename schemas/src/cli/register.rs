//! `register`: schemas into the registry, topics into Kafka.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Failure, load};
use crate::contract::Contract;
use crate::register::{RegisterError, register};
use crate::registry::{Registry, RegistryConfig};
use crate::topics::{self, TopicsConfig, TopicsError};

#[derive(Args)]
pub struct RegisterArguments {
    /// Contract files (YAML)
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Confluent-compatible URL, or file:DIR
    #[arg(long)]
    pub registry: String,
    #[arg(long, requires = "password_file")]
    pub username: Option<String>,
    #[arg(long, requires = "username", conflicts_with = "token_file")]
    pub password_file: Option<PathBuf>,
    #[arg(long)]
    pub token_file: Option<PathBuf>,
    /// PEM certificates to trust beside the usual ones
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
    /// First part of the topics' names
    #[arg(long, default_value = "flywheel")]
    pub prefix: String,
    /// Brokers, host:port,…; without it, no topics are set up
    #[arg(long)]
    pub kafka: Option<String>,
    /// Partitions of a model's topics [default: as they are, or 4]
    #[arg(long, requires = "kafka", value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: Option<i32>,
    /// Replicas of new topics [default: 3, or as many as there are brokers]
    #[arg(long, requires = "kafka", value_parser = clap::value_parser!(i32).range(1..=32767))]
    pub replication: Option<i32>,
    /// Whose time a record has: the broker's at append, or its own (replays)
    #[arg(long, value_enum, default_value = "broker")]
    pub ingest_time: IngestTime,
    /// Option of librdkafka, such as security.protocol=SSL; may be repeated
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = option)]
    pub librdkafka: Vec<(String, String)>,
    /// File of such options, one KEY=VALUE a line: the place for passwords
    #[arg(long, value_name = "FILE")]
    pub librdkafka_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IngestTime {
    Broker,
    Record,
}

fn option(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The options of the file, then those of the command line, which win.
fn librdkafka(arguments: &RegisterArguments) -> Result<BTreeMap<String, String>, Failure> {
    let mut options = BTreeMap::new();
    if let Some(file) = &arguments.librdkafka_file {
        let trouble = |line: usize, why: &str| Failure::Trouble(format!("{}: line {line}: {why}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| trouble(0, &error.to_string()))?;
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if !line.is_empty() && !line.starts_with('#') {
                let (key, value) = option(line).map_err(|why| trouble(number, &why))?;
                options.insert(key, value);
            }
        }
    }
    options.extend(arguments.librdkafka.iter().cloned());
    Ok(options)
}

pub(super) async fn run(arguments: &RegisterArguments, out: &mut impl Write) -> Result<(), Failure> {
    // All files are read before anything is written.
    let contracts: Vec<Contract> = arguments.files.iter().map(|file| load(file)).collect::<Result<_, _>>()?;
    let config = RegistryConfig {
        url: arguments.registry.clone(),
        username: arguments.username.clone(),
        password_file: arguments.password_file.clone(),
        token_file: arguments.token_file.clone(),
        ca_file: arguments.ca_file.clone(),
    };
    let registry = Registry::open(&config).map_err(|error| Failure::Trouble(error.to_string()))?;
    for contract in &contracts {
        register_one(arguments, &registry, contract, out).await?;
    }
    Ok(())
}

async fn register_one(
    arguments: &RegisterArguments,
    registry: &Registry,
    contract: &Contract,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let name = format!("{} version {}", contract.model, contract.version);
    let done = match register(contract, registry, &arguments.prefix).await {
        Ok(done) => done,
        Err(RegisterError::Refused(changes)) => {
            for change in changes.iter().filter(|change| !change.is_compatible()) {
                eprintln!("{name}: {change}");
            }
            return Err(Failure::Refused);
        }
        Err(error) => return Err(Failure::Trouble(format!("{name}: {error}"))),
    };
    for change in &done.changes {
        writeln!(out, "{name}: {change}")?;
    }
    for subject in &done.subjects {
        writeln!(out, "{name}: {} is schema {}", subject.name, subject.id)?;
    }
    let Some(brokers) = &arguments.kafka else { return Ok(()) };
    let config = TopicsConfig {
        brokers: brokers.clone(),
        prefix: arguments.prefix.clone(),
        partitions: arguments.partitions,
        replication: arguments.replication,
        ingest_time: match arguments.ingest_time {
            IngestTime::Broker => topics::IngestTime::Broker,
            IngestTime::Record => topics::IngestTime::Record,
        },
        librdkafka: librdkafka(arguments)?,
    };
    match topics::ensure(&config, &contract.model).await {
        Ok(topics) => {
            for topic in topics {
                let state = if topic.created { "created" } else { "verified" };
                writeln!(out, "{name}: topic {} with {} partitions {state}", topic.name, topic.partitions)?;
            }
            Ok(())
        }
        Err(TopicsError::Unfit(faults)) => {
            for fault in faults {
                eprintln!("{name}: {fault}");
            }
            Err(Failure::Refused)
        }
        Err(error) => Err(Failure::Trouble(format!("{name}: {error}"))),
    }
}
