//! What every request passes first: it is counted, and a call of an extension goes straight to its
//! route.
//!
//! All others go to the router. A router of many layers makes a copy of itself and boxes a future for
//! each of them, which nobody notices beside a database, but is a good part of what the runner adds
//! to a small extension.

use std::panic::AssertUnwindSafe;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_LENGTH};
use axum::http::{HeaderValue, Method, Version};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tower::ServiceExt as _;

use super::error::{self, ApiError};
use super::metrics::RouteMetrics;
use super::request_id::{self, RequestId};
use super::{AppState, router, routes};

/// The routes whose requests are calls of extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallRoute {
    /// An envelope, as the product's gateway sends it.
    Execute,
    /// Plain HTTP.
    Install,
}

/// What every request of a process passes.
#[derive(Debug)]
pub(super) struct Front {
    state: AppState,
    router: Router,
    execute: RouteMetrics,
    install: RouteMetrics,
}

impl Front {
    pub(super) fn new(state: &AppState) -> Self {
        Self {
            state: state.clone(),
            router: router(state.clone()),
            execute: RouteMetrics::new("/v1/execute"),
            install: RouteMetrics::new("/v1/installs/{install_id}/http/{*path}"),
        }
    }

    /// Counts a request from its head to its answer, also where the client goes away before. One that
    /// comes while the process stops is not waited for, and its client is told to connect elsewhere.
    pub(super) async fn answer(&self, request: Request) -> Response {
        let state = &self.state;
        let _in_progress = (!state.is_draining()).then(|| state.begin());
        // With HTTP/2 the connection is told when it is closed.
        let has_header = request.version() <= Version::HTTP_11;
        let mut response = if let Some(route) = CallRoute::of(&request) {
            let is_head = request.method() == Method::HEAD;
            let response = self.call(route, request).await;
            if is_head {
                without_body(response)
            } else {
                response
            }
        } else {
            let answered = Box::pin(self.router.clone().oneshot(request)).await;
            answered.unwrap_or_else(|never| match never {})
        };
        if has_header && state.is_draining() {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn call(&self, route: CallRoute, request: Request) -> Response {
        let answer = async |request: Request, id: RequestId| {
            let answer = AssertUnwindSafe(route.answer(&self.state, request, id));
            answer.catch_unwind().await.unwrap_or_else(error::panicked)
        };
        let metrics = match route {
            CallRoute::Execute => &self.execute,
            CallRoute::Install => &self.install,
        };
        request_id::traced(metrics, request, answer).await
    }
}

impl CallRoute {
    fn of(request: &Request) -> Option<Self> {
        let path = request.uri().path();
        if path == "/v1/execute" && request.method() == Method::POST {
            return Some(Self::Execute);
        }
        let (_, path) = path.strip_prefix("/v1/installs/")?.split_once('/')?;
        let rest = path.strip_prefix("http")?;
        (rest.is_empty() || rest.starts_with('/')).then_some(Self::Install)
    }

    async fn answer(self, state: &AppState, request: Request, id: RequestId) -> Response {
        let answered = match self {
            Self::Execute => Box::pin(routes::execute::execute(state, request, id)).await,
            Self::Install => routes::install::call(state, request, id).await,
        };
        answered.unwrap_or_else(ApiError::into_response)
    }
}

/// The answer to a HEAD: what a GET would be answered, but for the body. hyper sees to that with
/// HTTP/1.1 only.
fn without_body(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        let length = HeaderValue::from(length);
        parts.headers.entry(CONTENT_LENGTH).or_insert(length);
    }
    Response::from_parts(parts, Body::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_head_has_the_length_of_a_body_and_none() {
        let answered = without_body("12345".into_response());
        assert_eq!(answered.headers()[CONTENT_LENGTH], "5");
        assert!(answered.body().is_end_stream());
    }

    #[test]
    fn calls_of_extensions_are_told_from_everything_else() {
        let route = |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path);
            CallRoute::of(&request.body(Body::empty()).unwrap())
        };
        for path in [
            "/v1/installs/x/http",
            "/v1/installs/x/http/",
            "/v1/installs/x/http/a/b?c=/d",
            "/v1/installs//http/",
            "/v1/installs/x/http//v1/execute",
        ] {
            assert_eq!(route("GET", path), Some(CallRoute::Install), "{path}");
            assert_eq!(route("DELETE", path), Some(CallRoute::Install), "{path}");
        }
        assert_eq!(route("POST", "/v1/execute"), Some(CallRoute::Execute));
        assert_eq!(route("POST", "/v1/execute?a=b"), Some(CallRoute::Execute));
        for (method, path) in [
            ("GET", "/v1/execute"),
            ("POST", "/v1/execute/"),
            ("POST", "/v1/executes"),
            ("GET", "/v1/installs/x"),
            ("GET", "/v1/installs/x/https"),
            ("GET", "/v1/installs/x/logs"),
            ("GET", "/v1/installs/x/y/http/"),
            ("GET", "/v1/installs/http"),
            ("GET", "/v1/installs"),
            ("GET", "/V1/installs/x/http/"),
            ("GET", "//v1/installs/x/http/"),
            ("OPTIONS", "*"),
        ] {
            assert_eq!(route(method, path), None, "{method} {path}");
        }
    }
}
