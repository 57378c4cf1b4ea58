//! Options of a Kafka client whose secrets stand in files, and whether such a file was replaced.
//!
//! | option | its value |
//! |---|---|
//! | `NAME-file` | that of the option `NAME` is the content of this file, without line breaks at its end |
//! | any other | passed on to librdkafka as it is |
//!
//! `sasl.password-file` is a password's, `ssl.key.password-file` that of a key. A client takes its options once, when it is
//! made, and reads the files that options ending in `.location` name (certificates, keys) then as well. So a client of
//! which one of these files has changed is to be made anew: [`Values::stamp`] tells. A token's file (`token`) is none of
//! them: librdkafka asks for a token again by itself.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};

const FILE: &str = "-file";
const LOCATION: &str = ".location";
/// The longest secret read; a bundle of certificates is stamped by as much of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Options as they are configured. No `Debug`: values may be secrets.
#[derive(Clone, Default)]
pub struct ClientOptions {
    given: BTreeMap<String, String>,
}

/// The options that a client is made with now.
pub struct Values {
    pub options: BTreeMap<String, String>,
    /// Another one where a file has another content.
    pub stamp: Stamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(u64);

/// Why the options cannot be used. Holds no content of a file.
#[derive(Debug, thiserror::Error)]
pub enum ClientOptionsError {
    #[error("{option}: {}: {cause}", path.display())]
    Read { option: String, path: PathBuf, cause: String },
    #[error("{0} is given twice, by itself and by {0}{FILE}; keep one")]
    Twice(String),
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.given.keys()).finish()
    }
}

impl ClientOptions {
    pub fn new(given: BTreeMap<String, String>) -> ClientOptions {
        ClientOptions { given }
    }

    /// The names that librdkafka will see.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.given.keys().map(|name| by_file(name).unwrap_or(name))
    }

    /// Reads the files.
    ///
    /// # Errors
    /// A secret's file that cannot be read or holds nothing, and an option given both ways. A missing certificate is
    /// librdkafka's to tell.
    pub fn read(&self) -> Result<Values, ClientOptionsError> {
        let mut options = BTreeMap::new();
        let mut stamp = DefaultHasher::new();
        for (name, value) in &self.given {
            let Some(target) = by_file(name) else {
                options.insert(name.clone(), value.clone());
                if name.ends_with(LOCATION) {
                    content(Path::new(value)).ok().hash(&mut stamp);
                }
                continue;
            };
            if self.given.contains_key(target) {
                return Err(ClientOptionsError::Twice(target.to_owned()));
            }
            let path = PathBuf::from(value);
            let failed = |cause: String| ClientOptionsError::Read { option: name.clone(), path: path.clone(), cause };
            let secret = content(&path).map_err(|error| failed(error.to_string()))?;
            let secret = String::from_utf8(secret).map_err(|_| failed("it is no UTF-8 text".to_owned()))?;
            let secret = secret.trim_end_matches(['\r', '\n']);
            if secret.is_empty() || secret.contains('\0') {
                return Err(failed("it holds no secret; one line of text is needed".to_owned()));
            }
            secret.hash(&mut stamp);
            options.insert(target.to_owned(), secret.to_owned());
        }
        Ok(Values { options, stamp: Stamp(stamp.finish()) })
    }
}

/// The option whose value is in the file that `name` gives; none where `name` is an option itself.
fn by_file(name: &str) -> Option<&str> {
    name.strip_suffix(FILE)
}

fn content(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether an option's value may be a secret, and is not to be shown.
pub fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 7] = ["password", "secret", "key", "token", "credential", "oauthbearer.config", "pem"];
    let is_path = [FILE, LOCATION, ".file"].iter().any(|end| name.ends_with(end));
    !is_path && WORDS.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> ClientOptions {
        ClientOptions::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_secret_is_the_text_of_its_file_and_a_change_of_a_file_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let [password, ca] = ["password", "ca.pem"].map(path);
        let given = options(&[("sasl.password-file", &password), ("ssl.ca.location", &ca), ("linger.ms", "5")]);
        let error = given.read().err().unwrap().to_string();
        assert!(error.contains("sasl.password-file") && error.contains(&password), "{error}");

        write("password", "one two\r\n");
        let first = given.read().unwrap();
        let expected = [("linger.ms", "5"), ("sasl.password", "one two"), ("ssl.ca.location", &ca)];
        let expected: BTreeMap<_, _> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(first.options, expected);
        assert_eq!(given.read().unwrap().stamp, first.stamp);

        write("ca.pem", "a certificate");
        let second = given.read().unwrap().stamp;
        write("password", "three");
        let third = given.read().unwrap().stamp;
        assert!(first.stamp != second && second != third && third != first.stamp);
        write("password", "one two");
        assert_eq!(given.read().unwrap().stamp, second);
        assert!(!format!("{given:?}").contains("one two"));
    }

    #[test]
    fn values_that_may_be_secrets_are_known_by_their_names() {
        let secrets = ["sasl.password", "ssl.key.pem", "ssl.key.password", "sasl.oauthbearer.client.secret", "token"];
        for name in secrets.into_iter().chain(["ssl.keystore.password", "s3.secret-access-key", "credential"]) {
            assert!(is_secret(name), "{name}");
        }
        for name in ["linger.ms", "sasl.username", "sasl.password-file", "ssl.key.location", "ssl.ca.location"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_told_without_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret").display().to_string();
        for content in [&b"\n"[..], b"hush\0hush", b"hush\xff"] {
            std::fs::write(&file, content).unwrap();
            let error = options(&[("sasl.password-file", &file)]).read().err().unwrap().to_string();
            assert!(error.contains(&file) && !error.contains("hush"), "{error}");
        }
        let twice = options(&[("sasl.password", "hush"), ("sasl.password-file", &file)]);
        let error = twice.read().err().unwrap().to_string();
        assert!(error.contains("twice") && !error.contains("hush"), "{error}");
    }
}
