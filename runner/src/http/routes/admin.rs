//! Administration: every operation that `admin` declares, on the path it declares.

use std::fmt::Display;

use alga_model::{ErrorChain, parse_json};
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{Query, RawPathParams, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use axum::{Json, Router};
use futures_util::stream;
use serde_json::{Map, Value};

use super::install::read_body;
use super::{logs, uploads};
use crate::admin::{
    AdminError, Answer as _, Ask, AuditExport, AuditQuery, Guard, LogsQuery, Members, Method,
    Missing, Mistakes, Operation, Target, UploadEvents, Visitor, every_operation,
};
use crate::http::AppState;
use crate::http::auth::Administrator;
use crate::http::error::ApiError;

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// The routes of all operations.
pub(crate) fn router() -> Router<AppState> {
    struct Routes(Router<AppState>);
    impl Visitor for Routes {
        fn visit<O: Operation>(&mut self) {
            let routes = std::mem::take(&mut self.0);
            self.0 = routes.route(O::PATH, on(filter(O::METHOD), operate::<O>));
        }
    }
    let others = Router::new()
        .route(AuditQuery::PATH, get(audit))
        .route(LogsQuery::PATH, get(logs::follow))
        .route(UploadEvents::PATH, uploads::events());
    let mut routes = Routes(others);
    every_operation(&mut routes);
    routes.0
}

const fn filter(method: Method) -> MethodFilter {
    match method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
    }
}

async fn operate<O: Operation>(
    State(state): State<AppState>,
    Administrator(author): Administrator,
    path: Result<RawPathParams, RawPathParamsRejection>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Result<Response, ApiError> {
    let ask = Ask::<O> {
        target: target(path).ok_or(refused(AdminError::NotFound(Missing::Path)))?,
        query: Members::parse(query(&uri)?).map_err(refused)?,
        body: Members::parse(object(&read_body(body, &state).await?)?).map_err(refused)?,
        expected: expected(O::GUARD, &headers)?,
    };
    let done = O::run(&state.app.admin, &author, ask).await;
    let answer = done.map_err(refused)?;
    let status = StatusCode::from_u16(O::STATUS).unwrap_or_default();
    let mut response = (status, Json(&answer)).into_response();
    if let Some(generation) = answer.generation()
        && let Ok(tag) = HeaderValue::from_str(&format!("\"{generation}\""))
    {
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(response)
}

async fn audit(
    State(state): State<AppState>,
    Administrator(author): Administrator,
    uri: Uri,
) -> Result<Response, ApiError> {
    let query: AuditQuery = Members::parse(query(&uri)?).map_err(refused)?;
    let export = state.app.admin.audit(&author, query).await;
    // A process that stops waits for the end of what it has begun to tell.
    let told = (export.map_err(refused)?, state.begin_apart());
    let lines = stream::try_unfold(told, async |(mut export, telling)| {
        let line = next_line(&mut export).await?;
        Ok::<_, AdminError>(line.map(|line| (line, (export, telling))))
    });
    Ok(([(CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response())
}

/// The next line of an export. A failure cuts the answer short, which the caller sees: its end is
/// missing.
async fn next_line(export: &mut AuditExport) -> Result<Option<String>, AdminError> {
    let line = export.next_line().await;
    let line = line.inspect_err(|error| {
        tracing::error!(error = %ErrorChain(error), error.blame = "host", "the export of the audit was cut short");
    })?;
    Ok(line.map(|line| line + "\n"))
}

pub(super) fn target<T: Target>(path: Result<RawPathParams, RawPathParamsRejection>) -> Option<T> {
    let path = path.ok()?;
    let texts: Vec<_> = path.iter().map(|(_, text)| text).collect();
    T::parse(&texts)
}

/// The parameters of a query, which are text.
pub(super) fn query(uri: &Uri) -> Result<Map<String, Value>, ApiError> {
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri);
    let Query(pairs) = pairs.map_err(|_| invalid("the query makes no sense"))?;
    let mut parameters = Map::new();
    for (name, text) in pairs {
        if parameters.contains_key(&name) {
            return Err(invalid(format_args!(
                "{}: it is there twice",
                name.escape_debug()
            )));
        }
        parameters.insert(name, text.into());
    }
    Ok(parameters)
}

/// The members of a body; none where it is empty.
fn object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    match parse_json(body) {
        Ok((Value::Object(object), repeated)) => {
            let mut mistakes = Mistakes::default();
            let repeated = repeated.into_iter();
            mistakes.extend(repeated.map(|pointer| format!("{pointer}: it is there twice")));
            mistakes.ensure_none("the request is").map_err(refused)?;
            Ok(object)
        }
        Ok(_) => Err(invalid("the body must be a JSON object")),
        // Its own words hold nothing of the body but where the mistake is.
        Err(error) => Err(invalid(format_args!("the body is no JSON: {error}"))),
    }
}

/// The generation that the caller wants to change.
fn expected(guard: Guard, headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let mut tags = headers.get_all(IF_MATCH).iter();
    let tag = match (guard, tags.next(), tags.next()) {
        (Guard::None, ..) | (Guard::Optional, None, _) => return Ok(None),
        (Guard::Required, None, _) => return Err(refused(AdminError::GuardMissing)),
        (_, Some(tag), None) => tag.to_str().unwrap_or_default().trim(),
        (_, Some(_), Some(_)) => "",
    };
    if tag == "*" {
        return Ok(None);
    }
    let generation = tag
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok());
    generation
        .map(Some)
        .ok_or_else(|| invalid("If-Match: it must be one ETag such as \"3\", or *"))
}

pub(super) fn invalid(mistake: impl Display) -> ApiError {
    refused(AdminError::invalid(
        "the request is",
        Mistakes::one(mistake),
    ))
}

/// A refusal; a failure is logged here, as nobody else will see why.
pub(super) fn refused(error: AdminError) -> ApiError {
    match &error {
        AdminError::Store(_) => {
            let cause = ErrorChain(&error);
            tracing::warn!(error = %cause, error.blame = "host", "the store of bundles failed");
        }
        AdminError::Manifest(_) | AdminError::Registry(_) | AdminError::Storage(_) => {
            let cause = ErrorChain(&error);
            if error.code() == "UNAVAILABLE" {
                tracing::warn!(error = %cause, error.blame = "host", "a database can't be reached");
            } else {
                tracing::error!(error = %cause, error.blame = "host", "an operation failed");
            }
        }
        _ => {}
    }
    ApiError::Admin(error)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admin::Author;
    use crate::app::App;
    use crate::config::Config;

    #[tokio::test]
    async fn an_export_is_in_progress_until_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.data.dir = folder.path().join("data");
        let app = App::build(&config).await.unwrap();
        let state = AppState::new(app, None, None, 1);
        let author = Administrator(Author::operator("admin"));
        let export = audit(State(state.clone()), author, Uri::from_static("/v1/audit"));
        let response = export.await.unwrap();
        assert_eq!(state.requests_in_progress(), 1);
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        assert!(body.is_ok());
        assert_eq!(state.requests_in_progress(), 0);
    }

    fn guarded(guard: Guard, tags: &[&'static str]) -> Result<Option<u64>, u16> {
        let mut headers = HeaderMap::new();
        for tag in tags {
            headers.append(IF_MATCH, HeaderValue::from_static(tag));
        }
        expected(guard, &headers).map_err(|error| error.into_response().status().as_u16())
    }

    #[test]
    fn a_guard_is_one_generation_or_any() {
        for guard in [Guard::Optional, Guard::Required] {
            assert_eq!(guarded(guard, &["\"0\""]), Ok(Some(0)));
            assert_eq!(guarded(guard, &["*"]), Ok(None));
            for wrong in [
                "3",
                "W/\"3\"",
                "\"three\"",
                "\"\"",
                "\"-1\"",
                "\"1\", \"2\"",
                "",
            ] {
                assert_eq!(guarded(guard, &[wrong]), Err(400), "{wrong}");
            }
            assert_eq!(guarded(guard, &["\"1\"", "\"2\""]), Err(400));
        }
        assert_eq!(guarded(Guard::Optional, &[]), Ok(None));
        assert_eq!(guarded(Guard::Required, &[]), Err(428));
    }

    /// The mistakes of a body that is refused.
    fn mistakes(body: &str) -> Value {
        match object(body.as_bytes()) {
            Err(ApiError::Admin(error)) => error.details()["mistakes"].clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_member_that_is_there_twice_is_refused_by_its_place() {
        assert!(object(br#"{"a": {"b": 1}, "b": 1}"#).is_ok());
        let twice =
            mistakes(r#"{"state": 1, "config": {"a/b": "x", "a\u002fb": "y"}, "state": 2}"#);
        let expected = [
            "/config/a~1b: it is there twice",
            "/state: it is there twice",
        ];
        assert_eq!(twice, json!(expected));
    }

    #[test]
    fn what_would_be_read_as_something_else_than_it_says_is_refused() {
        for body in [
            r#"{"$serde_json::private::RawValue": "{\"state\": \"enabled\"}"}"#,
            r#"{"grants": {"alga.storage": {"$serde_json::private::RawValue": "{}"}}}"#,
            r#"{"limits": [{"\u0024serde_json::private::Number": "1"}]}"#,
        ] {
            let said = mistakes(body).to_string();
            assert!(said.contains("must not begin with"), "{said}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused_without_its_words() {
        for body in [r#""hunter2""#, r#"{"token": hunter2}"#, r#"["hunter2"]"#] {
            let said = mistakes(body).to_string();
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
