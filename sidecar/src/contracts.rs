//! The contract directory: every `*.yaml` in it is one contract.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use flywheel_schemas::contract::Contract;

/// Files of one directory; a sidecar serves the models of one pod, a gateway those of a company.
const FILES_MAX: usize = 1000;
/// Bytes of one file; the contract rides along in each schema, which a registry takes up to about 1 MiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a directory holds.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// By the name of the file.
    pub(crate) contracts: Vec<(PathBuf, Contract)>,
    /// Files that give no contract, with all that is wrong with each.
    pub(crate) faulty: Vec<(PathBuf, String)>,
}

/// Reads the whole directory. A faulty file takes nothing from the others; two files for one model are both faulty, as
/// nothing says which is meant.
///
/// # Errors
/// Where the directory itself cannot be read.
pub(crate) fn read(dir: &Path) -> io::Result<Found> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    let mut found = Found::default();
    for path in files.split_off(files.len().min(FILES_MAX)) {
        found.faulty.push((path, format!("a directory has at most {FILES_MAX} contracts")));
    }
    let mut by_model: BTreeMap<String, Vec<(PathBuf, Contract)>> = BTreeMap::new();
    for path in files {
        match parse(&path) {
            Ok(contract) => by_model.entry(contract.model.clone()).or_default().push((path, contract)),
            Err(fault) => found.faulty.push((path, fault)),
        }
    }
    for (model, mut of_model) in by_model {
        if of_model.len() == 1 {
            found.contracts.append(&mut of_model);
            continue;
        }
        for (path, _) in of_model {
            found.faulty.push((path, format!("another file is for the model `{model}` too; keep one of them")));
        }
    }
    Ok(found)
}

fn parse(path: &Path) -> Result<Contract, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("the file has {length} bytes, a contract at most {FILE_BYTES_MAX}"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    Contract::parse(&text).map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTRACT: &str =
        "apiVersion: flywheel/v1\nkind: ModelContract\nmodel: NAME\nversion: 1\nprediction: {p: {type: double}}\n";

    #[test]
    fn faulty_files_and_doubles_take_nothing_from_the_others() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("a.yaml", CONTRACT.replace("NAME", "alpha")),
            ("b.yaml", CONTRACT.replace("NAME", "beta")),
            ("b2.yaml", CONTRACT.replace("NAME", "beta")),
            ("c.yaml", "model: [".to_owned()),
            ("notes.txt", "not a contract".to_owned()),
        ] {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let found = read(dir.path()).unwrap();
        let names = |files: Vec<&PathBuf>| {
            files.iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(found.contracts.iter().map(|(file, _)| file).collect()), ["a.yaml"], "{found:?}");
        assert_eq!(names(found.faulty.iter().map(|(file, _)| file).collect()), ["c.yaml", "b.yaml", "b2.yaml"]);
    }
}
