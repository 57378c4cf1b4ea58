//! `flywheel-joiner rebuild-index`: deletes a model's outcome index. It is a cache: the next start builds it anew from the
//! outcomes table.

use std::process::ExitCode;

use crate::config::Config;
use crate::index::Index;

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    model: String,
}

pub async fn run(config: Config, arguments: Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let dir = config.index.dir.join(&arguments.model);
    if !dir.exists() {
        return Err(format!("there is no index {}; index.dir says where they are", dir.display()).into());
    }
    tokio::task::spawn_blocking(move || Index::delete(&dir)).await??;
    println!("deleted; the next start of the joiner builds it anew");
    Ok(ExitCode::SUCCESS)
}
