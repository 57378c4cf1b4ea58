//! The options.

use std::path::PathBuf;

use clap::Parser;

/// The whole loop on real flights: predictions and outcomes over HTTP, joined into Iceberg tables, a model trained from
/// them each simulated week.
#[derive(Debug, Clone, Parser)]
#[command(name = "flights", version)]
pub struct Args {
    /// Flights to replay instead of the first quarter of 2013: CSV with the same columns, gzipped where it ends in .gz
    #[arg(long, value_name = "FILE")]
    pub flights: Option<PathBuf>,
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = "flywheel-data")]
    pub data_dir: PathBuf,
    /// Start again from nothing: removes the data of an earlier run from the data directory
    #[arg(long)]
    pub fresh: bool,
    /// Of a tenth of the flights the landing is stated again, corrected, taken back, or known five days late
    #[arg(long)]
    pub corrections: bool,
    /// Kafka instead of a log on local disk: kafka://host:port,… Sidecar and joiner are then processes of their own
    #[arg(long, value_name = "URL", requires_all = ["registry", "catalog", "warehouse"])]
    pub kafka: Option<String>,
    /// The schema registry: http(s)://…
    #[arg(long, value_name = "URL", requires = "kafka")]
    pub registry: Option<String>,
    /// The Iceberg REST catalog: http(s)://…
    #[arg(long, value_name = "URL", requires = "kafka")]
    pub catalog: Option<String>,
    /// Where the tables lie: s3://bucket/path
    #[arg(long, value_name = "URL", requires = "kafka")]
    pub warehouse: Option<String>,
    /// A property of the catalog or its store, such as s3.endpoint=http://localhost:9000
    #[arg(short = 'X', long, value_name = "KEY=VALUE", requires = "kafka", value_parser = property)]
    pub catalog_property: Vec<(String, String)>,
    /// Names the topics, the namespace and the group
    #[arg(long, value_name = "NAME", default_value = "flywheel", requires = "kafka")]
    pub prefix: String,
    /// What sidecar and joiner log, as a level or levels by module
    #[arg(long, value_name = "FILTER", default_value = "error")]
    pub log: String,
}

fn property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_servers_come_together() {
        let parse = |words: &str| Args::try_parse_from(words.split_whitespace());
        assert!(parse("flights").is_ok());
        assert!(parse("flights --kafka kafka://h:1").unwrap_err().to_string().contains("--registry"));
        assert!(parse("flights --registry http://h").is_err());
        let all = "flights --kafka kafka://h:1 --registry http://h --catalog http://c --warehouse s3://w -X a=b=c";
        assert_eq!(parse(all).unwrap().catalog_property, [("a".to_owned(), "b=c".to_owned())]);
        assert!(parse(&format!("{all} -X a")).is_err());
    }
}
