//! The id of a request, its span, and the one event that reports it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;

use super::AppState;
use super::error::ErrorBody;
use super::metrics::{self, RouteMetrics};
use super::storage_api;
use crate::admin::UPLOADS;
use crate::execute::{new_id, text};

/// The header that carries the id, in both directions.
pub(super) const HEADER: &str = "x-request-id";
const MAX_BYTES: usize = 128;

/// The id that joins what everybody logs of a request.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) Arc<str>);

impl RequestId {
    /// The id a caller gave, unless it could disturb a log.
    pub(super) fn given(id: &str) -> Option<Self> {
        let fine =
            (1..=MAX_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
        fine.then(|| Self(id.into()))
    }

    fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(HEADER).and_then(|id| id.to_str().ok());
        given
            .and_then(Self::given)
            .unwrap_or_else(|| Self(text(new_id())))
    }
}

/// Gives every request of the router an id and a span, and reports it when it is answered.
pub(super) async fn trace(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let route = state.requests.of(route);
    // Here, where also what no route answers passes, and a panic.
    let is_of_bundles = request.uri().path().starts_with(UPLOADS);
    let answer = async |mut request: Request, id: RequestId| {
        request.extensions_mut().insert(id);
        let mut response = next.run(request).await;
        if is_of_bundles && let Some(body) = response.extensions_mut().get_mut::<ErrorBody>() {
            body.of_bundles();
        }
        response
    };
    traced(&route, request, answer).await
}

/// Gives a request an id and a span, and reports it when it is answered.
pub(super) async fn traced(
    route: &RouteMetrics,
    request: Request,
    answer: impl AsyncFnOnce(Request, RequestId) -> Response,
) -> Response {
    let id = RequestId::of(request.headers());
    let method = request.method().clone();
    let span = tracing::info_span!(
        "http.request",
        request.id = %id.0,
        http.request.method = metrics::name(&method),
        http.route = route.name(),
    );
    async {
        let unanswered = Unanswered {
            route,
            method: &method,
            start: Instant::now(),
        };
        let mut response = answer(request, id.clone()).await;
        if let Some(body) = response.extensions_mut().remove::<ErrorBody>() {
            response = body.write(response, &id.0);
        }
        if let Ok(id) = HeaderValue::from_str(&id.0) {
            response.headers_mut().insert(HEADER, id);
        }
        unanswered.answered(response.status().as_u16());
        response
    }
    .instrument(span)
    .await
}

/// A request until it is answered. Dropped before that, its client has gone away or the process stops.
struct Unanswered<'a> {
    route: &'a RouteMetrics,
    method: &'a Method,
    start: Instant,
}

impl Unanswered<'_> {
    fn answered(self, status: u16) {
        let duration = self.start.elapsed();
        self.route.answered(self.method, status, duration);
        let duration_ms = millis(duration);
        // Probes come every few seconds and say nothing; of storage operations there are thousands.
        if matches!(
            self.route.name(),
            "/healthz" | "/readyz" | "/metrics" | storage_api::PATH
        ) {
            tracing::debug!(
                http.response.status_code = status,
                duration_ms,
                "request answered"
            );
        } else {
            tracing::info!(
                http.response.status_code = status,
                duration_ms,
                "request answered"
            );
        }
        std::mem::forget(self);
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let duration = self.start.elapsed();
        self.route.cancelled(self.method, duration);
        tracing::info!(
            duration_ms = millis(duration),
            "the request was given up before it was answered"
        );
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use serde_json::Value;
    use tower::ServiceExt as _;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;
    use crate::app::App;
    use crate::config::Config;
    use crate::http::error;

    #[tokio::test]
    async fn a_panic_is_told_in_the_shape_of_the_interface_it_happened_in() {
        async fn panicking() {
            panic!("out of cheese");
        }
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.data.dir = folder.path().join("data");
        let app = App::build(&config).await.unwrap();
        let state = AppState::new(app, None, None, 1);
        let router: Router = Router::new()
            .route("/api/ext-bundles/any", get(panicking))
            .route("/v1/any", get(panicking))
            .layer(CatchPanicLayer::custom(error::panicked))
            .layer(axum::middleware::from_fn_with_state(state, trace));
        let body = async |path: &str| {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 500);
            let body = axum::body::to_bytes(response.into_body(), 1 << 20).await;
            serde_json::from_slice::<Value>(&body.unwrap()).unwrap()
        };
        assert_eq!(body("/v1/any").await["error"]["code"], "INTERNAL");
        let flat = body("/api/ext-bundles/any").await;
        assert_eq!(flat["code"], "INTERNAL_ERROR");
        assert_eq!(flat["error"], "the runner failed");
    }

    #[test]
    fn an_id_that_could_disturb_a_log_is_replaced() {
        assert_eq!(&*RequestId::given("a-1").unwrap().0, "a-1");
        assert!(RequestId::given(&"a".repeat(MAX_BYTES)).is_some());
        for id in ["", "a b", "a\tb", "é", &"a".repeat(MAX_BYTES + 1)] {
            assert!(RequestId::given(id).is_none(), "{id:?}");
        }
    }
}
