//! The token by which a Kafka client is let in (SASL OAUTHBEARER): it stands in a file that something else keeps fresh,
//! such as a projected service account token.
//!
//! librdkafka hands the option [`OPTION`] to whoever is to bring the token; here its value is `token_file=PATH`. The file
//! is read again at four fifths of the token's lifetime, and every [`TRUSTED_MS`] at the latest, so that a file that was
//! replaced takes effect. What cannot be used is tried again by librdkafka after ten seconds.
//!
//! Sources: RFC 7628 (the mechanism), RFC 7519 (`exp` and `sub` of a JSON web token). The token's signature is the broker's
//! to check.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// The option of librdkafka that names the file.
pub const OPTION: &str = "sasl.oauthbearer.config";
const PREFIX: &str = "token_file=";
/// A token counts as good for no longer than this, in milliseconds, whatever it says itself.
pub const TRUSTED_MS: i64 = 300_000;
/// Who the bearer is where the token does not say.
const NOBODY: &str = "flywheel";

/// A token as it stands in its file now. No `Debug`: it is a secret.
pub struct Token {
    pub text: String,
    /// Whose token it is (`sub`).
    pub principal: String,
    /// When the file is to have been read again, in milliseconds since the epoch.
    pub until_ms: i64,
}

/// Why there is no token. The message never holds any of it.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("OAUTHBEARER needs the file of its token: set {OPTION} to {PREFIX}PATH")]
    NoFile,
    #[error("token file {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("token file {}: it holds no token; one line of visible ASCII characters is needed", path.display())]
    NoToken { path: PathBuf },
    #[error("token file {}: its token expired {} s ago; whatever renews the file has not done so", path.display(), ago_ms / 1000)]
    Expired { path: PathBuf, ago_ms: i64 },
}

/// Reads the token of the file that the option's value names.
pub fn read(option: Option<&str>) -> Result<Token, TokenError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    read_at(option, i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn read_at(option: Option<&str>, now_ms: i64) -> Result<Token, TokenError> {
    let path = option.and_then(|option| option.trim().strip_prefix(PREFIX)).filter(|path| !path.is_empty());
    let path = Path::new(path.ok_or(TokenError::NoFile)?).to_path_buf();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().to_owned(),
        Err(source) => return Err(TokenError::Read { path, source }),
    };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::NoToken { path });
    }
    let claims = claims(&text);
    let expires_ms = claims.get("exp").and_then(Value::as_f64).map_or(i64::MAX, |seconds| (seconds * 1000.0) as i64);
    if expires_ms <= now_ms {
        return Err(TokenError::Expired { path, ago_ms: now_ms - expires_ms });
    }
    let principal = claims.get("sub").and_then(Value::as_str).filter(|name| !name.contains('\0')).unwrap_or(NOBODY);
    Ok(Token { principal: principal.to_owned(), until_ms: expires_ms.min(now_ms.saturating_add(TRUSTED_MS)), text })
}

/// What the token says of itself; null where it is no JSON web token, which is the broker's affair.
fn claims(text: &str) -> Value {
    let payload = text.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok());
    payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn written(text: &str) -> Result<Token, TokenError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, text).unwrap();
        read_at(Some(&format!("token_file={}", path.display())), NOW_MS)
    }

    fn jwt(claims: &str) -> String {
        format!("eyJhbGciOiJub25lIn0.{}.", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_says_whose_it_is_and_how_long() {
        let text = jwt(r#"{"sub":"ops","exp":1700000060.5}"#);
        let token = written(&format!("{text}\n")).ok().unwrap();
        assert_eq!((token.text, token.principal.as_str(), token.until_ms), (text, "ops", NOW_MS + 60_500));
        // One that lasts longer is read again all the same, and so is one that does not say.
        for text in [jwt(r#"{"sub":"ops","exp":1800000000}"#), "opaque".to_owned(), jwt("{}")] {
            assert_eq!(written(&text).ok().unwrap().until_ms, NOW_MS + TRUSTED_MS, "{text}");
        }
    }

    #[test]
    fn what_is_no_token_is_told_without_it() {
        for (text, expected) in
            [("", "no token"), ("two words", "no token"), (&jwt(r#"{"exp":1699999990}"#), "expired 10 s ago")]
        {
            let error = written(text).err().unwrap().to_string();
            assert!(error.contains(expected) && (text.is_empty() || !error.contains(text)), "{error}");
        }
        for option in [None, Some(""), Some("token_file="), Some("principal=x")] {
            assert!(read(option).err().unwrap().to_string().contains("sasl.oauthbearer.config"));
        }
        assert!(read(Some("token_file=/nowhere/token")).err().unwrap().to_string().contains("/nowhere/token"));
    }
}
