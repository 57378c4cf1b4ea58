//! What the code may not do, as far as its text shows it.

use std::fs;
use std::path::{Path, PathBuf};

/// A word (as a path or a `use` line has it) and the files that alone may have it, by the beginning of their path.
const RULES: [(&str, &[&str]); 6] = [
    ("rdkafka", &["sidecar/src/forward/kafka", "joiner/src/source/kafka", "schemas/src/topics", "tests/"]),
    ("apache_avro", &["schemas/", "tests/"]),
    // `show` has a module of that name.
    ("iceberg", &["joiner/src/decode", "joiner/src/table", "schemas/src/show/", "tests/"]),
    ("parquet", &["joiner/src/decode", "joiner/src/table", "tests/"]),
    // Record batches are what `decode` and `table` hand on.
    ("arrow", &["joiner/src/", "examples/flights/training.rs", "tests/"]),
    ("std::env::var", &["sidecar/src/config", "joiner/src/config", "schemas/src/config", "tests/"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every Rust file of the repository with its path from the root.
fn sources() -> Vec<(String, String)> {
    let mut folders = ["schemas", "sidecar", "joiner", "examples", "tests"].map(|name| root().join(name)).to_vec();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
                sources.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(sources.len() > 50, "the walk found only {} files", sources.len());
    let tests = test_files(&sources);
    let is_test = |name: &str| {
        tests
            .iter()
            .any(|file| name.strip_prefix(file.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/')))
    };
    sources.retain(|(name, _)| !is_test(name));
    sources
}

/// The text with what is `#[cfg(test)]` left blank; what tests use is their affair.
fn without_tests(name: &str, text: &str) -> String {
    if name.ends_with("/tests.rs") || name.contains("/tests/") {
        return String::new();
    }
    let mut kept = String::new();
    let mut end: Option<String> = None;
    for line in text.lines() {
        let indent = &line[..line.len() - line.trim_start().len()];
        match &end {
            // An item without a body ends with its semicolon, one with a body at the brace below its attribute.
            Some(brace)
                if line == brace
                    || line.starts_with(indent) && line.ends_with(';') && brace.len() == indent.len() + 1 =>
            {
                end = None;
            }
            Some(_) => {}
            None if line.trim_start() == "#[cfg(test)]" => end = Some(format!("{indent}}}")),
            None => kept.push_str(line),
        }
        kept.push('\n');
    }
    kept
}

/// The files that are compiled for tests alone: declared `#[cfg(test)] mod name;` by their parent.
fn test_files(sources: &[(String, String)]) -> Vec<String> {
    let mut files = Vec::new();
    for (name, text) in sources {
        let stem = name.trim_end_matches(".rs");
        let folder = ["/mod", "/lib", "/main"].iter().find_map(|end| stem.strip_suffix(end)).unwrap_or(stem);
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2) {
            if pair[0].starts_with("#[cfg(") && pair[0].contains("test") {
                let module = pair[1].trim_start_matches("pub ").trim_start_matches("pub(crate) ");
                if let Some(module) = module.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                    files.push(format!("{folder}/{module}"));
                }
            }
        }
    }
    files
}

/// A line of code that names the crate or path `word`.
fn names(line: &str, word: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + word.len()..];
        let begins = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':' && c != '"');
        begins
            && (word.contains("::")
                || after.starts_with("::")
                || code.trim_start().starts_with("use ") && after.starts_with([';', ',', '}']))
    })
}

#[test]
fn each_library_stays_where_it_belongs() {
    let mut faults = Vec::new();
    for (name, text) in sources() {
        for (word, places) in RULES {
            if places.iter().any(|place| name.starts_with(place)) {
                continue;
            }
            for (number, line) in without_tests(&name, &text).lines().enumerate() {
                if names(line, word) {
                    faults.push(format!("{name}:{}: {word} belongs into {}", number + 1, places.join(", ")));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_label_function_has_no_clock_and_the_services_do_not_know_each_other() {
    let forbidden: [(&str, &[&str]); 4] = [
        ("joiner/src/label", &["SystemTime", "Instant", "Utc::now", "tokio", "async ", "std::fs"]),
        ("joiner/", &["flywheel_sidecar"]),
        ("sidecar/", &["flywheel_joiner"]),
        ("schemas/", &["flywheel_sidecar", "flywheel_joiner", "flywheel_spool"]),
    ];
    let mut faults = Vec::new();
    for (name, text) in sources() {
        for (place, words) in forbidden {
            if !name.starts_with(place) {
                continue;
            }
            for (number, line) in without_tests(&name, &text).lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                faults.extend(
                    words
                        .iter()
                        .filter(|word| code.contains(**word))
                        .map(|word| format!("{name}:{}: {word}", number + 1)),
                );
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn no_panics_outside_tests_and_no_unsafe() {
    // Spelt apart, so that this file does not find itself.
    let words = [
        concat!(".unw", "rap()"),
        concat!(".exp", "ect("),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("uns", "afe {"),
        concat!("static ", "mut "),
    ];
    let mut faults = Vec::new();
    for (name, text) in sources() {
        if name.starts_with("tests/") || name.contains("/benches/") || name.contains("/examples/") {
            continue;
        }
        for (number, line) in without_tests(&name, &text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            faults.extend(
                words.iter().filter(|word| code.contains(**word)).map(|word| format!("{name}:{}: {word}", number + 1)),
            );
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_crate_forbids_unsafe_code() {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(workspace.contains("unsafe_code = \"forbid\""));
    for member in ["schemas", "sidecar", "sidecar/spool", "joiner", "examples", "tests"] {
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{member}");
    }
}

#[test]
fn the_tidy_rules_see_what_they_are_to_see() {
    assert!(names("use rdkafka::producer::FutureProducer;", "rdkafka"));
    assert!(names("    let x = iceberg::spec::Datum::int(1);", "iceberg"));
    assert!(names("use arrow;", "arrow"));
    assert!(names("let home = std::env::var(\"HOME\");", "std::env::var"));
    assert!(!names("// iceberg::spec", "iceberg"));
    assert!(!names("use crate::forward::librdkafka::X;", "rdkafka"));
    assert!(!names("let arrow = 1;", "arrow"));
    let text = "x\n#[cfg(test)]\nmod a;\ny\nimpl A {\n    #[cfg(test)]\n    fn f() {\n        z;\n    }\n    w\n}\n#[cfg(test)]\nmod tests {\n    v\n}";
    let kept: Vec<String> = without_tests("a.rs", text).split_whitespace().map(str::to_owned).collect();
    assert_eq!(kept.join(" "), "x y impl A { w }");
}
