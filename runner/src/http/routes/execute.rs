//! `POST /v1/execute`: a call in an envelope, as the product's gateway sends it.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alga_host_api::{Header, Request, Response as GuestResponse};
use alga_model::{ContentHash, ErrorChain, ExtensionName, InstallId, TenantId};
use alga_registry::{ExtensionKey, IdempotencyKey, RegistryError};
use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tracing::Instrument as _;
use uuid::Uuid;

use super::install::{NO_INSTALL, known_install, read_body};
use crate::app::Extensions;
use crate::engine::RunLimits;
use crate::execute::Call;
use crate::headers::checked;
use crate::http::AppState;
use crate::http::auth::Principal;
use crate::http::error::ApiError;
use crate::http::request_id::RequestId;
use crate::idempotency::{Answer, OnceError, Turn};
use crate::installs::{Ambiguous, KnownInstall};

/// The envelope. What it doesn't know is ignored and counted. None of it can be printed, as it holds
/// secrets.
#[derive(Deserialize)]
struct ExecuteParams {
    context: ContextParams,
    http: HttpParams,
    limits: Option<LimitsParams>,
    providers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct ContextParams {
    request_id: Option<String>,
    tenant_id: String,
    extension_id: String,
    install_id: Option<String>,
    version_id: Option<String>,
    content_hash: Option<String>,
    config: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct HttpParams {
    method: String,
    path: String,
    #[serde(default)]
    query: QueryParams,
    headers: Option<BTreeMap<String, OneOrMany>>,
    body_b64: Option<String>,
}

/// A query as text, or as names and values that still have to be encoded.
#[derive(Deserialize)]
#[serde(untagged)]
enum QueryParams {
    Text(String),
    Pairs(BTreeMap<String, OneOrMany>),
    Null(()),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
struct LimitsParams {
    timeout_ms: Option<u64>,
    memory_mb: Option<u64>,
    fuel: Option<u64>,
}

/// The extension's answer. Values of a header that occurs more than once are joined by commas.
#[derive(Debug, Serialize)]
pub(crate) struct ExecuteBody {
    status: u16,
    headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_b64: Option<String>,
}

/// What a caller knows a request by, so that it is answered once.
const IDEMPOTENCY_KEY: &str = "x-idempotency-key";
/// Says that the answer is that to an earlier request.
const REPLAY: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-idempotent-replay"),
    HeaderValue::from_static("true"),
);

pub(in crate::http) async fn execute(
    state: &AppState,
    request: axum::extract::Request,
    request_id: RequestId,
) -> Result<Response, ApiError> {
    let principal = Principal::of(request.headers(), state)?;
    let key = idempotency_key(request.headers())?;
    let body = read_body(request.into_body(), state).await?;
    let envelope = ExecuteParams::parse(&body)?;
    let install = find_install(state, principal, &envelope.context).await?;
    let call = envelope.into_call(install, request_id)?;
    if let Some(key) = key {
        return Box::pin(execute_once(state, call, key)).await;
    }
    let answered = state.extensions()?.executor.execute(call).await;
    Ok(written(answered.map_err(ApiError::Execute)?))
}

fn written(answer: GuestResponse) -> Response {
    Json(ExecuteBody::from(answer)).into_response()
}

async fn execute_once(
    state: &AppState,
    call: Call,
    key: IdempotencyKey,
) -> Result<Response, ApiError> {
    let extensions = state.extensions()?;
    let answered = answer_once(state, extensions, call, key).await;
    let answered = answered.map_err(|error| not_once(state, error))?;
    let answer = answered.ok_or(ApiError::Internal)?;
    let is_replay = answer.is_replay;
    let mut response = answer.written(written);
    if is_replay {
        response.headers_mut().insert(REPLAY.0, REPLAY.1);
    }
    Ok(response)
}

/// The answer; nothing where the task that answers is gone.
async fn answer_once(
    state: &AppState,
    extensions: &Arc<Extensions>,
    call: Call,
    key: IdempotencyKey,
) -> Result<Option<Answer>, OnceError> {
    let now = Instant::now();
    let Extensions {
        executor,
        idempotency,
    } = &**extensions;
    let deadline = executor.engine().deadline(now, call.timeout);
    let front = match idempotency.turn(&call, key, deadline).await? {
        Turn::Replay(answer) => return Ok(Some(answer)),
        Turn::Run(front) => front,
    };
    let admitted = executor.admit(call, now, deadline).await?;
    // In a task of its own, as it goes on when the caller hangs up: who repeats the request then gets
    // the answer, instead of having it done twice. None begins without a permit; an answer that is
    // being kept has none any more, but waits in the same line for the database as the claims of those
    // who have, so that they can't pile up. The process waits for it before it stops.
    let going_on = state.begin_apart();
    let extensions = Arc::clone(extensions);
    let answering = async move {
        let _going_on = going_on;
        let run = extensions.executor.run(admitted);
        Box::pin(extensions.idempotency.answer(front, run)).await
    };
    // Gone by a panic, which the hook has logged, or by the end of the process.
    let answered = tokio::spawn(answering.in_current_span()).await.ok();
    answered.transpose()
}

fn not_once(state: &AppState, error: OnceError) -> ApiError {
    match error {
        OnceError::OtherRequest => ApiError::IdempotencyConflict,
        OnceError::InProgress => ApiError::IdempotencyInProgress,
        OnceError::NotKept { status, bytes } => ApiError::IdempotencyAnswerNotKept(status, bytes),
        OnceError::Uninstalled => ApiError::NotFound(NO_INSTALL),
        OnceError::Registry(error) => look_up_failed(state, &error),
        OnceError::Crowded(crowd, refusal) => ApiError::Crowded(crowd, refusal),
        OnceError::Execute(error) => ApiError::Execute(error),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, ApiError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (Some(value), more) = (values.next(), values.next()) else {
        return Ok(None);
    };
    let key = value.to_str().ok().and_then(|text| text.parse().ok());
    key.filter(|_| more.is_none()).map(Some).ok_or_else(|| {
        bad("x-idempotency-key must be there once, with 1 to 255 visible ASCII characters")
    })
}

impl From<GuestResponse> for ExecuteBody {
    fn from(response: GuestResponse) -> Self {
        Self {
            status: response.status,
            headers: joined(response.headers),
            body_b64: response.body.map(|body| STANDARD.encode(body)),
        }
    }
}

impl ExecuteParams {
    /// Members for host interfaces that this release does not offer: known, and left alone.
    const LEFT_ALONE: [&str; 2] = ["secret_envelope", "user"];

    /// Reads an envelope and counts what it holds besides, without keeping that.
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut unknown = 0_u64;
        let mut json = serde_json::Deserializer::from_slice(body);
        let envelope = serde_ignored::deserialize(&mut json, |path| {
            unknown += u64::from(!Self::LEFT_ALONE.contains(&path.to_string().as_str()));
        })
        .and_then(|envelope| json.end().map(|()| envelope))
        .map_err(|error| bad(format!("the envelope is not valid: {}", told(&error))))?;
        metrics::counter!("alga_http_unknown_envelope_fields_total").increment(unknown);
        Ok(envelope)
    }

    fn into_call(
        self,
        install: Arc<KnownInstall>,
        request_id: RequestId,
    ) -> Result<Call, ApiError> {
        let request_id = match self.context.request_id {
            None => request_id,
            Some(id) => RequestId::given(&id).ok_or_else(|| {
                bad("context.request_id must be 1 to 128 visible ASCII characters")
            })?,
        };
        let limits = self.limits.unwrap_or_default();
        Ok(Call {
            install,
            request: self.http.into_request()?,
            timeout: limits.timeout_ms.map(Duration::from_millis),
            limits: RunLimits {
                memory_bytes: limits.memory_mb.map(|mb| {
                    usize::try_from(mb)
                        .unwrap_or(usize::MAX)
                        .saturating_mul(1 << 20)
                }),
                fuel: limits.fuel,
            },
            providers: self.providers,
            config: self.context.config,
            request_id: request_id.0,
        })
    }
}

impl HttpParams {
    fn into_request(self) -> Result<Request, ApiError> {
        axum::http::Method::from_str(&self.method).map_err(|_| bad("http.method is no method"))?;
        if !self.path.starts_with('/') {
            return Err(bad("http.path must start with '/'"));
        }
        let body = self
            .body_b64
            .map(|text| {
                STANDARD
                    .decode(text)
                    .map_err(|_| bad("http.body_b64 is not base64"))
            })
            .transpose()?;
        let mut headers = Vec::new();
        for (name, values) in self.headers.unwrap_or_default() {
            for value in values.into_vec() {
                let name = checked(&name, &value)
                    .map_err(|error| bad(format!("http.headers: {error}")))?;
                headers.push(Header {
                    name: name.as_str().to_owned(),
                    value,
                });
            }
        }
        Ok(Request {
            method: self.method,
            path: self.path,
            query: self.query.into_text(),
            headers,
            body,
        })
    }
}

impl Default for QueryParams {
    fn default() -> Self {
        Self::Null(())
    }
}

impl QueryParams {
    fn into_text(self) -> Option<String> {
        match self {
            Self::Null(()) => None,
            Self::Text(text) => Some(text.strip_prefix('?').unwrap_or(&text).to_owned()),
            Self::Pairs(pairs) => {
                let pairs: Vec<_> = pairs
                    .into_iter()
                    .flat_map(|(name, values)| {
                        values
                            .into_vec()
                            .into_iter()
                            .map(move |value| (name.clone(), value))
                    })
                    .map(|(name, value)| format!("{}={}", encoded(&name), encoded(&value)))
                    .collect();
                (!pairs.is_empty()).then(|| pairs.join("&"))
            }
        }
        .filter(|query| !query.is_empty())
    }
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(value) => vec![value],
            Self::Many(values) => values,
        }
    }
}

/// The install that the context means. The row is the authority: what the context says besides must
/// agree with it.
async fn find_install(
    state: &AppState,
    principal: Principal<'_>,
    context: &ContextParams,
) -> Result<Arc<KnownInstall>, ApiError> {
    let tenant: TenantId = parse("context.tenant_id", &context.tenant_id)?;
    let extension = extension(&context.extension_id)?;
    let install = match &context.install_id {
        Some(id) => {
            let id: InstallId = parse("context.install_id", id)?;
            known_install(state, principal, id).await?
        }
        None => only_install(state, principal, tenant, extension.clone()).await?,
    };
    if install.install.tenant != tenant {
        return Err(ApiError::ContextMismatch(
            "the install belongs to another tenant",
        ));
    }
    if !install.is_of(&extension) {
        return Err(ApiError::ContextMismatch(
            "the install is of another extension",
        ));
    }
    if let Some(version) = &context.version_id {
        let version: Uuid = parse("context.version_id", version)?;
        if install.install.version_id != version {
            return Err(ApiError::ContextMismatch("the install has another version"));
        }
    }
    if let Some(hash) = &context.content_hash {
        let hash: ContentHash = parse("context.content_hash", hash)?;
        if install.install.content_hash != hash {
            return Err(ApiError::ContextMismatch("the install has other content"));
        }
    }
    Ok(install)
}

async fn only_install(
    state: &AppState,
    principal: Principal<'_>,
    tenant: TenantId,
    extension: ExtensionKey,
) -> Result<Arc<KnownInstall>, ApiError> {
    match state
        .app
        .installs
        .only(tenant, extension)
        .await
        .map_err(|error| look_up_failed(state, &error))?
    {
        Ok(install) if principal.may_call(tenant, install.install.id) => Ok(install),
        // One answer for all: a token must not learn what there is beyond its scope.
        Ok(_) | Err(Ambiguous::None | Ambiguous::Several) => Err(bad(
            "the tenant has none or several installs of this extension; name one as context.install_id",
        )),
    }
}

fn extension(text: &str) -> Result<ExtensionKey, ApiError> {
    if let Ok(id) = text.parse::<Uuid>() {
        return Ok(ExtensionKey::Id(id));
    }
    let name: ExtensionName = parse("context.extension_id", text)?;
    Ok(ExtensionKey::Name(name))
}

fn parse<T: FromStr<Err: std::fmt::Display>>(member: &str, text: &str) -> Result<T, ApiError> {
    text.parse()
        .map_err(|error| bad(format!("{member}: {error}")))
}

/// A look-up that failed, logged here as nobody else will see why.
pub(super) fn look_up_failed(state: &AppState, error: &RegistryError) -> ApiError {
    let cause = ErrorChain(error);
    if matches!(error, RegistryError::Unavailable { .. }) {
        // While it is away every call fails so.
        if let Some(unsaid) = state.outages.unsaid(error, Instant::now()) {
            tracing::warn!(
                error = %cause,
                error.blame = "host",
                unsaid,
                "the registry can't be reached"
            );
        }
        ApiError::Unavailable
    } else {
        tracing::error!(error = %cause, error.blame = "host", "the registry failed");
        ApiError::Internal
    }
}

/// What is wrong with an envelope and where, without any value of it: some are secrets.
fn told(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if !error.is_data() || text.starts_with("missing field") {
        return text;
    }
    let place = format!("at line {} column {}", error.line(), error.column());
    // What is expected is ours, and comes last.
    match text.rsplit_once(", expected ") {
        Some((_, expected)) if !text.starts_with("data did not match") => {
            let expected = expected.split(" at line ").next().unwrap_or(expected);
            format!("expected {expected} {place}")
        }
        _ => format!("a member is not of its type {place}"),
    }
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::BadRequest(message.into())
}

fn joined(headers: Vec<Header>) -> BTreeMap<String, String> {
    let mut joined: BTreeMap<String, String> = BTreeMap::new();
    for Header { name, value } in headers {
        joined
            .entry(name)
            .and_modify(|values| {
                values.push_str(", ");
                values.push_str(&value);
            })
            .or_insert(value);
    }
    joined
}

/// Percent-encoding of everything but the unreserved characters of RFC 3986, section 2.3.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            _ => write!(encoded, "%{byte:02X}").expect("writing to a String cannot fail"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn request(http: Value) -> Result<Request, ApiError> {
        serde_json::from_value::<HttpParams>(http)
            .unwrap()
            .into_request()
    }

    #[test]
    fn a_query_is_text_or_pairs() {
        let query = |query: Value| {
            request(json!({"method": "GET", "path": "/", "query": query}))
                .unwrap()
                .query
        };
        assert_eq!(query(json!("a=1&b=2")), Some("a=1&b=2".to_owned()));
        assert_eq!(query(json!("?a=1")), Some("a=1".to_owned()));
        assert_eq!(
            query(json!({"a": "1 & 2", "b": ["x", "ü"]})),
            Some("a=1%20%26%202&b=x&b=%C3%BC".to_owned())
        );
        assert_eq!(query(json!({})), None);
        assert_eq!(query(json!("")), None);
        assert_eq!(query(json!(null)), None);
    }

    #[test]
    fn what_is_wrong_with_an_envelope_is_said_in_few_words_and_none_of_its_own() {
        let secret = "hunter2, expected hunter2 ".repeat(10_000);
        let envelope = |member: &str, value: Value| {
            let mut envelope = json!({
                "context": { "tenant_id": "t", "extension_id": "e" },
                "http": { "method": "GET", "path": "/" },
            });
            *envelope.pointer_mut(member).unwrap() = value;
            envelope.to_string()
        };
        let of_secrets = json!({ "token": [secret] });
        for (body, expected) in [
            (
                "{".to_owned(),
                "EOF while parsing an object at line 1 column 1",
            ),
            (
                "{}".to_owned(),
                "missing field `context` at line 1 column 2",
            ),
            (json!(secret).to_string(), "expected struct ExecuteParams"),
            (
                envelope("/context", json!(secret)),
                "expected struct ContextParams",
            ),
            (
                envelope("/http/path", json!({ "a": secret })),
                "expected a string",
            ),
            (envelope("/http/path", json!(-7)), "expected a string"),
            (
                envelope(
                    "/http",
                    json!({ "method": "GET", "path": "/", "headers": { "a": 1 } }),
                ),
                "a member is not of its type",
            ),
            (
                envelope(
                    "/context",
                    json!({ "tenant_id": "t", "extension_id": "e", "config": of_secrets }),
                ),
                "expected a string",
            ),
            (
                envelope(
                    "/http",
                    json!({ "method": "GET", "path": "/", "query": [secret] }),
                ),
                "a member is not of its type",
            ),
        ] {
            let Err(ApiError::BadRequest(said)) = ExecuteParams::parse(body.as_bytes()) else {
                panic!("{expected}");
            };
            assert!(said.contains(expected), "{said} instead of {expected}");
            assert!(!said.contains("hunter2") && said.len() < 200, "{said}");
        }
    }

    #[test]
    fn headers_may_have_several_values() {
        let headers =
            request(json!({"method": "GET", "path": "/", "headers": {"a": "1", "b": ["2", "3"]}}))
                .unwrap()
                .headers;
        let headers: Vec<_> = headers
            .iter()
            .map(|header| (header.name.as_str(), header.value.as_str()))
            .collect();
        assert_eq!(headers, [("a", "1"), ("b", "2"), ("b", "3")]);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for http in [
            json!({"method": "G T", "path": "/"}),
            json!({"method": "", "path": "/"}),
            json!({"method": "GET", "path": "no-slash"}),
            json!({"method": "GET", "path": "/", "body_b64": "***"}),
            json!({"method": "GET", "path": "/", "headers": {"authorization ": "1"}}),
            json!({"method": "GET", "path": "/", "headers": {"a": "1\r\nb: 2"}}),
        ] {
            assert!(request(http.clone()).is_err(), "{http}");
        }
    }

    #[test]
    fn values_of_one_header_are_joined() {
        let header = |name: &str, value: &str| Header {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let joined = joined(vec![
            header("vary", "accept"),
            header("etag", "1"),
            header("vary", "origin"),
        ]);
        assert_eq!(joined["vary"], "accept, origin");
        assert_eq!(joined["etag"], "1");
    }

    #[test]
    fn an_idempotency_key_is_there_once_or_not_at_all() {
        let key = |values: &[&[u8]]| {
            let mut map = HeaderMap::new();
            for value in values {
                map.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
            }
            idempotency_key(&map).map(|key| key.map(|key| key.to_string()))
        };
        assert_eq!(key(&[]).unwrap(), None);
        assert_eq!(key(&[b"a-1"]).unwrap(), Some("a-1".to_owned()));
        for values in [
            [b"".as_slice()].as_slice(),
            &[b"a b"],
            &[b"\xff"],
            &[b"a", b"a"],
        ] {
            assert!(key(values).is_err(), "{values:?}");
        }
    }
}
