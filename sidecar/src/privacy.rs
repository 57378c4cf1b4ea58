//! Pseudonyms: what stands in a row in the place of a text with `privacy: hmac`.
//!
//! A pseudonym is `key_id:mac`, the mac being HMAC-SHA-256 (RFC 2104, FIPS 180-4) of the text's UTF-8 bytes, as base64url
//! without padding. Nothing else goes into it, so the same text under the same key is the same pseudonym in every pod and
//! model, and rows can be joined by it. The text is taken as it came: who wants `A@x` and `a@x` to be one makes them one
//! before.
//!
//! The key file has one `key_id:base64` per line, the newest first; blank lines and lines that begin with `#` are passed
//! over. A key has 32 bytes at least (`openssl rand -base64 32` makes one). The first key makes the pseudonyms. To rotate,
//! put a new line on top and send SIGHUP: rows from then on have the new key id. The older keys stay below, for
//! `flywheel-sidecar pseudonym`, which says what a text was called under each of them.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The least length of a key: that of the hash (RFC 2104, section 3).
const KEY_BYTES_MIN: usize = 32;
/// The greatest length of a key's name, which stands in every pseudonym.
const ID_BYTES_MAX: usize = 32;
/// A key file holds one key per rotation; this has room for hundreds.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// The text of a mac: 32 bytes as base64url.
const MAC_TEXT_BYTES: usize = 43;

/// The keys of a key file, newest first; there is one at least.
#[derive(Clone)]
pub struct KeyRing {
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: String,
    secret: Vec<u8>,
    /// Keyed once: what is left per value are two blocks of the hash.
    keyed: Hmac<Sha256>,
}

/// Why a key file gives no keys. It repeats nothing of the file but its path.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("{0}")]
    Read(#[from] io::Error),
    #[error("the file is longer than {FILE_BYTES_MAX} bytes; a key ring is not")]
    TooLong,
    #[error("the file is not text")]
    NotText,
    #[error("line {line}: {fault}")]
    Line { line: usize, fault: &'static str },
    #[error("the file has no key; write a line `key_id:base64 of {KEY_BYTES_MIN} bytes or more`")]
    Empty,
}

impl KeyRing {
    /// Reads a key file.
    ///
    /// # Errors
    /// Where it cannot be read, or a line is no key.
    pub fn read(path: &Path) -> Result<KeyRing, KeyFileError> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(KeyFileError::TooLong);
        }
        KeyRing::parse(str::from_utf8(&bytes).map_err(|_| KeyFileError::NotText)?)
    }

    fn parse(text: &str) -> Result<KeyRing, KeyFileError> {
        let mut keys: Vec<Key> = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let fault = |fault| KeyFileError::Line { line, fault };
            let (id, secret) = text.split_once(':').ok_or(fault("a key is `key_id:base64`"))?;
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(is_name) {
                return Err(fault("a key id has 1 to 32 letters, digits, dots, hyphens and underscores"));
            }
            if keys.iter().any(|key| key.id == id) {
                return Err(fault("the key id stands twice; a key is never replaced under its id"));
            }
            let secret = STANDARD.decode(secret.trim()).map_err(|_| fault("the key is not padded base64"))?;
            if secret.len() < KEY_BYTES_MIN {
                return Err(fault("a key has 32 bytes at least, as `openssl rand -base64 32` makes them"));
            }
            let keyed =
                Hmac::new_from_slice(&secret).map_err(|_| fault("the key has a length that HMAC cannot take"))?;
            keys.push(Key { id: id.to_owned(), secret, keyed });
        }
        if keys.is_empty() { Err(KeyFileError::Empty) } else { Ok(KeyRing { keys }) }
    }

    /// The pseudonym of `value` under the newest key, over `text`.
    pub(crate) fn write_newest(&self, value: &[u8], text: &mut String) {
        text.clear();
        if let Some(key) = self.keys.first() {
            key.write(value, text);
        }
    }

    /// The pseudonyms of `value` under every key, newest first.
    pub fn pseudonyms(&self, value: &[u8]) -> impl Iterator<Item = String> {
        self.keys.iter().map(|key| {
            let mut text = String::new();
            key.write(value, &mut text);
            text
        })
    }
}

impl Key {
    fn write(&self, value: &[u8], text: &mut String) {
        let mac = self.keyed.clone().chain_update(value).finalize().into_bytes();
        text.reserve(self.id.len() + 1 + MAC_TEXT_BYTES);
        text.push_str(&self.id);
        text.push(':');
        URL_SAFE_NO_PAD.encode_string(mac, text);
    }
}

/// Two rings that make and find the same pseudonyms.
impl PartialEq for KeyRing {
    fn eq(&self, other: &KeyRing) -> bool {
        let parts =
            |ring: &KeyRing| ring.keys.iter().map(|key| (key.id.clone(), key.secret.clone())).collect::<Vec<_>>();
        parts(self) == parts(other)
    }
}

/// Ids alone: a key is never printed.
impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

/// Whether others than owner and group may read the file.
pub(crate) fn is_world_readable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests;
