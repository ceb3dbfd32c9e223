//! `GET /v1/installs/{install_id}/logs`: what an install does, as server-sent events.

use std::time::Duration;

use alga_model::InstallId;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::admin::{invalid, query, refused, target};
use crate::admin::{AdminError, LogTail, LogsQuery, Members, Missing};
use crate::http::AppState;
use crate::http::auth::Administrator;
use crate::http::error::ApiError;

/// How long nothing is said: shorter than the idle times of common proxies.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
pub(super) const COMMENT: &str = ": keep-alive\n\n";

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// Has nginx pass on what comes when it comes.
const UNBUFFERED: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);
/// What every answer of events has.
pub(super) const EVENT_STREAM_HEADERS: [(HeaderName, HeaderValue); 3] = [
    (CONTENT_TYPE, EVENT_STREAM),
    (CACHE_CONTROL, NO_STORE),
    UNBUFFERED,
];
/// Which event the client has seen last.
const LAST_EVENT_ID: &str = "last-event-id";

pub(crate) async fn follow(
    State(state): State<AppState>,
    Administrator(author): Administrator,
    path: Result<RawPathParams, RawPathParamsRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let install = target::<InstallId>(path).ok_or(refused(AdminError::NotFound(Missing::Path)))?;
    let query: LogsQuery = Members::parse(query(&uri)?).map_err(refused)?;
    let after = last_event_id(&headers)?;
    let admin = &state.app.admin;
    let tail = admin.logs(&author, install, &query, after).await;
    let events = stream::unfold(tail.map_err(refused)?, next);
    Ok((EVENT_STREAM_HEADERS, Body::from_stream(events)).into_response())
}

/// What is sent next. The client sets the pace: what it doesn't take is not asked for.
async fn next(mut tail: LogTail) -> Option<(Result<String, std::convert::Infallible>, LogTail)> {
    let text = match tokio::time::timeout(KEEP_ALIVE, tail.next()).await {
        Ok(entries) => entries?.iter().map(ToString::to_string).collect(),
        Err(_) => COMMENT.to_owned(),
    };
    Some((Ok(text), tail))
}

pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut ids = headers.get_all(LAST_EVENT_ID).iter();
    match (ids.next(), ids.next()) {
        (None, _) => Ok(None),
        (Some(id), None) if id.is_empty() => Ok(None),
        (Some(id), None) => id
            .to_str()
            .map(Some)
            .map_err(|_| invalid("Last-Event-ID: it must be the id of an event")),
        (Some(_), Some(_)) => Err(invalid("Last-Event-ID: it is there twice")),
    }
}
