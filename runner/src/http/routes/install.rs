//! `ANY /v1/installs/{install_id}/http/{path}`: a call as plain HTTP.

use std::sync::Arc;

use alga_host_api::{Header, Request as GuestRequest, Response as GuestResponse};
use alga_model::InstallId;
use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::execute::look_up_failed;
use crate::engine::{RunError, RunLimits};
use crate::execute::{Call, ExecuteError};
use crate::http::AppState;
use crate::http::auth::Principal;
use crate::http::error::ApiError;
use crate::http::request_id::RequestId;
use crate::installs::KnownInstall;

/// The answer is third-party content on the product's origin: it gets none of its rights.
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox");
const NOSNIFF: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-content-type-options"),
    HeaderValue::from_static("nosniff"),
);

pub(in crate::http) async fn call(
    state: &AppState,
    request: Request<Body>,
    request_id: RequestId,
) -> Result<Response, ApiError> {
    let principal = Principal::of(request.headers(), state)?;
    let install = request.uri().path().split('/').nth(3).unwrap_or_default();
    let install: InstallId = install
        .parse()
        .map_err(|_| ApiError::NotFound(NO_INSTALL))?;
    let install = known_install(state, principal, install).await?;
    let call = Call {
        install,
        request: to_guest(request, state).await?,
        timeout: None,
        limits: RunLimits::default(),
        providers: None,
        config: None,
        request_id: request_id.0,
    };
    let response = state.extensions()?.executor.execute(call).await;
    answer(response.map_err(ApiError::Execute)?)
}

pub(super) const NO_INSTALL: &str = "there is no such install";

/// The install with this id, if there is one and the caller may know of it.
pub(super) async fn known_install(
    state: &AppState,
    principal: Principal<'_>,
    id: InstallId,
) -> Result<Arc<KnownInstall>, ApiError> {
    let install = state
        .app
        .installs
        .find(id)
        .await
        .map_err(|error| look_up_failed(state, &error))?;
    install
        .filter(|install| principal.may_call(install.install.tenant, id))
        .ok_or(ApiError::NotFound(NO_INSTALL))
}

/// A body within the limit.
pub(super) async fn read_body(body: Body, state: &AppState) -> Result<Bytes, ApiError> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    // On the heap, as most calls have none.
    let read = Box::pin(Limited::new(body, state.max_body_bytes).collect()).await;
    let read = read.map_err(|error| {
        if error.is::<LengthLimitError>() {
            ApiError::TooLarge(state.max_body_bytes)
        } else {
            ApiError::BadRequest("the body ended early".to_owned())
        }
    });
    Ok(read?.to_bytes())
}

/// The request as the guest gets it, but for the headers that the executor removes.
async fn to_guest(request: Request<Body>, state: &AppState) -> Result<GuestRequest, ApiError> {
    let (parts, body) = request.into_parts();
    let body = read_body(body, state).await?;
    let headers = parts.headers.iter().filter_map(|(name, value)| {
        // WIT has text; a value that is none would have to be changed to get through.
        Some(Header {
            name: name.as_str().to_owned(),
            value: value.to_str().ok()?.to_owned(),
        })
    });
    Ok(GuestRequest {
        method: parts.method.to_string(),
        path: path_of_guest(parts.uri.path()),
        query: parts.uri.query().map(ToOwned::to_owned),
        headers: headers.collect(),
        body: (!body.is_empty()).then(|| body.to_vec()),
    })
}

/// What follows `/v1/installs/{install_id}/http`, as it came.
fn path_of_guest(path: &str) -> String {
    let mut slashes = path.match_indices('/').map(|(at, _)| at);
    let rest = slashes.nth(4).and_then(|slash| path.get(slash..));
    rest.unwrap_or("/").to_owned()
}

fn answer(response: GuestResponse) -> Result<Response, ApiError> {
    let nonsense =
        |what: &str| ApiError::Execute(ExecuteError::Run(RunError::Nonsense(what.to_owned())));
    let status =
        StatusCode::from_u16(response.status).map_err(|_| nonsense("the status is none"))?;
    let mut answer = (status, Body::from(response.body.unwrap_or_default())).into_response();
    let headers = answer.headers_mut();
    for Header { name, value } in response.headers {
        let name =
            HeaderName::try_from(name).map_err(|_| nonsense("a header has no valid name"))?;
        let value =
            HeaderValue::try_from(value).map_err(|_| nonsense("a header has no valid value"))?;
        headers
            .try_append(name, value)
            .map_err(|_| nonsense("it has too many headers"))?;
    }
    // Policies add up: a guest can only narrow this one.
    headers.append(CONTENT_SECURITY_POLICY, SANDBOX);
    headers.insert(NOSNIFF.0, NOSNIFF.1);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_reaches_the_guest_as_it_came() {
        for (path, expected) in [
            ("/v1/installs/x/http", "/"),
            ("/v1/installs/x/http/", "/"),
            ("/v1/installs/x/http/a/b%2Fc//d", "/a/b%2Fc//d"),
            ("/v1/installs/x/http//etc", "//etc"),
        ] {
            assert_eq!(path_of_guest(path), expected);
        }
    }
}
