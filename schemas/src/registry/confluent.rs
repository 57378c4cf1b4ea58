//! A registry with Confluent's REST interface.
//!
//! Source: Confluent Schema Registry API reference, `/schemas/ids`, `/subjects`, `/config`. Ids are resolved by
//! schema_registry_converter's uncached call; its caching encoder and decoder are not used, since they keep errors
//! and "latest" for ever and register what they should only look up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Method, Url};
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_id};
use schema_registry_converter::error::SRCError;
use serde_json::{Value, json};

use super::{Registered, RegistryConfig, RegistryError, RegistryErrorKind};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For the whole call. A registration that checks against many versions takes a second or two.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest answer read: a schema with the greatest contract in it, with room for escaping.
const ANSWER_BYTES_MAX: usize = 8 << 20;
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
const COMPATIBILITY: &str = "FULL_TRANSITIVE";

pub(super) struct Confluent {
    base: Url,
    client: Client,
    ca: Option<Vec<Certificate>>,
    login: Login,
}

enum Login {
    None,
    Basic { username: String, password_file: PathBuf },
    Bearer { token_file: PathBuf },
}

/// Credentials as they stand in their file at the time of a call.
enum Credentials {
    None,
    Basic { username: String, password: String },
    Bearer(String),
}

impl Confluent {
    pub fn open(config: &RegistryConfig) -> Result<Confluent, RegistryError> {
        let setup = |message: String| RegistryError::new(RegistryErrorKind::Setup, message);
        let base = Url::parse(&config.url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                setup(format!("`{}` is no URL; write http://…, https://… or file:DIR", shown(&config.url)))
            })?;
        if !base.username().is_empty() || base.password().is_some() {
            return Err(setup("the URL holds credentials; put them into username and password_file".to_owned()));
        }
        let login = match (&config.username, &config.password_file, &config.token_file) {
            (None, None, None) => Login::None,
            (Some(username), Some(password_file), None) => {
                Login::Basic { username: username.clone(), password_file: password_file.clone() }
            }
            (None, None, Some(token_file)) => Login::Bearer { token_file: token_file.clone() },
            _ => {
                return Err(setup("give either username and password_file, or token_file".to_owned()));
            }
        };
        let ca = config.ca_file.as_deref().map(certificates).transpose()?;
        let client =
            builder(ca.as_deref()).build().map_err(|error| setup(format!("no HTTP client could be made: {error}")))?;
        Ok(Confluent { base, client, ca, login })
    }

    pub async fn schema(&self, id: u32) -> Result<String, RegistryError> {
        let base = self.base.as_str().trim_end_matches('/').to_owned();
        let mut settings = SrSettings::new_builder(base);
        match self.credentials().await? {
            Credentials::None => {}
            Credentials::Basic { username, password } => {
                settings.set_basic_authorization(&username, Some(&password));
            }
            Credentials::Bearer(token) => {
                settings.set_token_authorization(&token);
            }
        }
        // A client of its own per id: it carries the credentials of the moment, and each id is asked for once.
        let settings = settings.set_timeout(CALL_TIMEOUT).build_with(builder(self.ca.as_deref()));
        let settings = settings.map_err(|error| RegistryError::new(RegistryErrorKind::Setup, error.error))?;
        let registered = get_schema_by_id(id, &settings).await.map_err(|error| resolution(id, &error))?;
        Ok(registered.schema)
    }

    pub async fn latest(&self, subject: &str) -> Result<Option<Registered>, RegistryError> {
        self.version(subject, "latest").await
    }

    pub async fn versions(&self, subject: &str) -> Result<Vec<Registered>, RegistryError> {
        let Some(answer) = absent(self.call(Method::GET, &["subjects", subject, "versions"], None).await)? else {
            return Ok(Vec::new());
        };
        let mut numbers: Vec<i64> = answer.as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
        numbers.sort_unstable();
        let mut versions = Vec::with_capacity(numbers.len());
        for number in numbers {
            // One that was deleted in between is no version any more.
            versions.extend(self.version(subject, &number.to_string()).await?);
        }
        Ok(versions)
    }

    async fn version(&self, subject: &str, version: &str) -> Result<Option<Registered>, RegistryError> {
        let path = ["subjects", subject, "versions", version];
        let Some(answer) = absent(self.call(Method::GET, &path, None).await)? else { return Ok(None) };
        let number = answer.get("version").and_then(Value::as_i64).and_then(|version| i32::try_from(version).ok());
        match (id(&answer), number, answer.get("schema").and_then(Value::as_str)) {
            (Some(id), Some(version), Some(text)) => Ok(Some(Registered { id, version, text: text.to_owned() })),
            _ => Err(unexpected(&path)),
        }
    }

    pub async fn look_up(&self, subject: &str, text: &str) -> Result<Option<u32>, RegistryError> {
        let path = ["subjects", subject];
        match absent(self.call(Method::POST, &path, Some(json!({"schema": text}))).await)? {
            Some(answer) => id(&answer).map(Some).ok_or_else(|| unexpected(&path)),
            None => Ok(None),
        }
    }

    pub async fn register(&self, subject: &str, text: &str) -> Result<u32, RegistryError> {
        self.demand_compatibility(subject).await?;
        let path = ["subjects", subject, "versions"];
        let answer = self.call(Method::POST, &path, Some(json!({"schema": text}))).await?;
        id(&answer).ok_or_else(|| unexpected(&path))
    }

    /// Sets the level unless it is set, so that who may register but not configure can do so after the first time.
    async fn demand_compatibility(&self, subject: &str) -> Result<(), RegistryError> {
        let path = ["config", subject];
        let found = absent(self.call(Method::GET, &path, None).await)?;
        if found.and_then(|config| Some(config.get("compatibilityLevel")? == COMPATIBILITY)) != Some(true) {
            self.call(Method::PUT, &path, Some(json!({"compatibility": COMPATIBILITY}))).await?;
        }
        Ok(())
    }

    async fn credentials(&self) -> Result<Credentials, RegistryError> {
        Ok(match &self.login {
            Login::None => Credentials::None,
            Login::Basic { username, password_file } => {
                Credentials::Basic { username: username.clone(), password: secret(password_file).await? }
            }
            Login::Bearer { token_file } => Credentials::Bearer(secret(token_file).await?),
        })
    }

    async fn call(&self, method: Method, path: &[&str], body: Option<Value>) -> Result<Value, RegistryError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.client.request(method.clone(), url.clone()).header("accept", MEDIA_TYPE);
        if let Some(body) = body {
            request = request.header("content-type", MEDIA_TYPE).body(body.to_string());
        }
        request = match self.credentials().await? {
            Credentials::None => request,
            Credentials::Basic { username, password } => request.basic_auth(username, Some(password)),
            Credentials::Bearer(token) => request.bearer_auth(token),
        };
        let call = format!("{method} {url}");
        let unreachable = |error: reqwest::Error| {
            RegistryError::new(RegistryErrorKind::Unreachable, format!("{call}: {}", chain(&error.without_url())))
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            let message = format!("{call}: {status} to {}; write the URL of the registry itself", shown(to));
            return Err(RegistryError::new(RegistryErrorKind::Damaged, message));
        }
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.trim().parse().ok());
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if answer.len() + chunk.len() > ANSWER_BYTES_MAX {
                let message = format!("{call}: the answer is longer than {ANSWER_BYTES_MAX} bytes");
                return Err(RegistryError::new(RegistryErrorKind::Damaged, message));
            }
            answer.extend_from_slice(&chunk);
        }
        let answer: Option<Value> = serde_json::from_slice(&answer).ok();
        if status.is_success() {
            return answer.ok_or_else(|| {
                RegistryError::new(RegistryErrorKind::Damaged, format!("{call}: the answer is no JSON"))
            });
        }
        let said = answer.as_ref().and_then(|answer| answer.get("message")).and_then(Value::as_str).unwrap_or_default();
        let error = RegistryError::new(kind_of(status.as_u16()), format!("{call}: {status} {said}"));
        Err(RegistryError { retry_after: retry_after.map(Duration::from_secs), ..error })
    }
}

fn builder(ca: Option<&[Certificate]>) -> ClientBuilder {
    // No proxy from the environment: configuration comes from one place. A redirection is not followed: a POST would arrive
    // as a GET, and mostly it leads to a page where people sign in.
    let builder =
        Client::builder().no_proxy().redirect(Policy::none()).connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT);
    match ca {
        Some(certificates) => builder.tls_certs_merge(certificates.iter().cloned()),
        None => builder,
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, RegistryError> {
    let setup =
        |why: String| RegistryError::new(RegistryErrorKind::Setup, format!("ca_file {}: {why}", path.display()));
    let pem = std::fs::read(path).map_err(|error| setup(error.to_string()))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(setup("it holds no PEM certificate".to_owned())),
        Err(error) => Err(setup(error.to_string())),
    }
}

/// The content of a secret's file. It is replaced under a running process, so a missing file is a passing state.
async fn secret(path: &Path) -> Result<String, RegistryError> {
    let text = tokio::fs::read_to_string(path).await.map_err(|error| {
        RegistryError::new(RegistryErrorKind::Unauthorized, format!("credentials {}: {error}", path.display()))
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn kind_of(status: u16) -> RegistryErrorKind {
    match status {
        401 => RegistryErrorKind::Unauthorized,
        403 => RegistryErrorKind::Forbidden,
        404 => RegistryErrorKind::NotFound,
        408 | 429 | 500.. => RegistryErrorKind::Unreachable,
        409 => RegistryErrorKind::Incompatible,
        400.. => RegistryErrorKind::Refused,
        _ => RegistryErrorKind::Damaged,
    }
}

/// schema_registry_converter tells the status in its sentence only.
fn resolution(id: u32, error: &SRCError) -> RegistryError {
    let status = error.error.split_once("failed with status ").and_then(|(_, rest)| rest.get(..3)?.parse().ok());
    let kind = match status {
        Some(status) => kind_of(status),
        None if error.retriable => RegistryErrorKind::Unreachable,
        None => RegistryErrorKind::Damaged,
    };
    let cause = error.cause.as_deref().unwrap_or_default();
    RegistryError::new(kind, format!("schema {id}: {} {cause}", error.error))
}

fn absent(answer: Result<Value, RegistryError>) -> Result<Option<Value>, RegistryError> {
    match answer {
        Err(error) if error.kind() == RegistryErrorKind::NotFound => Ok(None),
        answer => answer.map(Some),
    }
}

fn id(answer: &Value) -> Option<u32> {
    answer.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok())
}

fn unexpected(path: &[&str]) -> RegistryError {
    RegistryError::new(
        RegistryErrorKind::Damaged,
        format!("/{}: the answer lacks id, version or schema", path.join("/")),
    )
}

/// A URL that could not be used, without what may be a password in it.
fn shown(url: &str) -> &str {
    url.rsplit_once('@').map_or(url, |(_, rest)| rest)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
