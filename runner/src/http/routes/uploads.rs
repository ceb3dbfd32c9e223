//! `GET /api/ext-bundles/uploads/{upload_id}/events`: how far an upload comes, as server-sent events.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use futures_util::stream;
use uuid::Uuid;

use super::admin::{invalid, refused, target};
use super::logs::{COMMENT, EVENT_STREAM_HEADERS, KEEP_ALIVE, last_event_id};
use crate::admin::{AdminError, Missing};
use crate::http::AppState;
use crate::http::auth::Administrator;
use crate::http::error::ApiError;
use crate::uploads::Following;

/// What answers the path of the events.
pub(super) fn events() -> MethodRouter<AppState> {
    get(follow)
}

async fn follow(
    State(state): State<AppState>,
    Administrator(author): Administrator,
    path: Result<RawPathParams, RawPathParamsRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let upload = target::<Uuid>(path).ok_or(refused(AdminError::NotFound(Missing::Path)))?;
    let after = last_event_id(&headers)?.map(str::parse).transpose();
    let after = after.map_err(|_| invalid("Last-Event-ID: it must be the id of an event"))?;
    let admin = &state.app.admin;
    let following = admin.follow_upload(&author, upload, after).await;
    let events = stream::unfold(following.map_err(refused)?, next);
    Ok((EVENT_STREAM_HEADERS, Body::from_stream(events)).into_response())
}

/// What is sent next.
async fn next(mut following: Following) -> Option<(Result<String, Infallible>, Following)> {
    let text = match tokio::time::timeout(KEEP_ALIVE, following.next()).await {
        Ok(event) => event?.to_string(),
        Err(_) => COMMENT.to_owned(),
    };
    Some((Ok(text), following))
}
