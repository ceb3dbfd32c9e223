//! The HTTP API. Routes convert and call; what they call decides.

mod auth;
mod error;
mod front;
mod metrics;
mod openapi;
mod request_id;
mod routes;
mod server;
mod signs;
mod storage_api;

use std::borrow::Borrow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use alga_model::Outages;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use crossbeam_utils::CachePadded;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Notify;
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::{App, Extensions};
use crate::tokens::Tokens;

use self::error::ApiError;
use self::metrics::RequestMetrics;

pub use server::Server;
pub use storage_api::StorageApi;

/// What the routes share.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Shared>);

/// What goes into an [`AppState`].
#[derive(Debug)]
pub struct Shared {
    /// Everything that serves.
    pub app: App,
    /// Who may call; nobody is asked where this is absent.
    pub tokens: Option<Tokens>,
    /// What the process measured.
    pub metrics: Option<PrometheusHandle>,
    /// The most bytes of a request's body.
    pub max_body_bytes: usize,
    bundles: routes::health::BundlesProbe,
    requests: RequestMetrics,
    /// What was said of a registry that is away.
    outages: Outages,
    draining: AtomicBool,
    /// Apart from what is only read: every request changes it, on every core.
    in_progress: CachePadded<AtomicUsize>,
    /// Told when nothing is in progress.
    idle: Notify,
}

impl AppState {
    /// Shares everything that serves.
    pub fn new(
        app: App,
        tokens: Option<Tokens>,
        metrics: Option<PrometheusHandle>,
        max_body_bytes: usize,
    ) -> Self {
        Self(Arc::new(Shared {
            app,
            tokens,
            metrics,
            max_body_bytes,
            bundles: routes::health::BundlesProbe::default(),
            requests: RequestMetrics::default(),
            outages: Outages::default(),
            draining: AtomicBool::new(false),
            in_progress: CachePadded::new(AtomicUsize::new(0)),
            idle: Notify::new(),
        }))
    }

    /// From now on calls are refused, and the process says that it is not ready. It still answers.
    fn start_draining(&self) {
        // First: a request that is not counted any more must not be let in.
        if let Some(extensions) = &self.app.extensions {
            extensions.executor.close();
            extensions.idempotency.close();
        }
        if let Some(uploads) = &self.app.admin.uploads {
            uploads.intake.close();
            uploads.followers.close();
        }
        self.0.draining.store(true, Ordering::Relaxed);
        if let Some(activity) = &self.app.admin.activity {
            activity.close();
        }
    }

    /// Ends the uploads that are under way, which have had their time, and sees that nothing of them stays.
    async fn cut_uploads(&self, patience: Duration) {
        if let Some(uploads) = &self.app.admin.uploads {
            uploads.intake.cut(patience).await;
        }
    }

    /// Waits until it is noted what became of the last uploads.
    async fn settle_uploads(&self, patience: Duration) {
        if let Some(uploads) = &self.app.admin.uploads {
            uploads.recorder.settle(patience).await;
        }
    }

    /// Counts something that the process waits for before it stops, as long as the guard lives.
    fn begin(&self) -> InProgress<&Self> {
        InProgress::of(self)
    }

    /// The same for what outlives the request.
    fn begin_apart(&self) -> InProgress<Self> {
        InProgress::of(self.clone())
    }

    fn requests_in_progress(&self) -> usize {
        self.in_progress.load(Ordering::SeqCst)
    }

    /// Resolves when no request is in progress that came before the process began to stop.
    async fn all_answered(&self) {
        loop {
            // Before it looks: what ends afterwards is told.
            let idle = self.idle.notified();
            if self.requests_in_progress() == 0 {
                break;
            }
            idle.await;
        }
    }

    /// What has extensions answer.
    fn extensions(&self) -> Result<&Arc<Extensions>, ApiError> {
        self.app.extensions.as_ref().ok_or(ApiError::Misdirected(
            "this process runs no extensions; it has the role `storage`",
        ))
    }

    fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }
}

impl std::ops::Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Something that is counted until it is dropped.
struct InProgress<S: Borrow<AppState>>(S);

impl<S: Borrow<AppState>> InProgress<S> {
    fn of(state: S) -> Self {
        state.borrow().in_progress.fetch_add(1, Ordering::SeqCst);
        Self(state)
    }
}

impl<S: Borrow<AppState>> Drop for InProgress<S> {
    fn drop(&mut self) {
        let state = self.0.borrow();
        if state.in_progress.fetch_sub(1, Ordering::SeqCst) == 1 {
            state.idle.notify_waiters();
        }
    }
}

/// All routes but those of calls.
fn router(state: AppState) -> Router {
    let max_body_bytes = state.max_body_bytes;
    Router::new()
        .route("/healthz", get(routes::health::healthz))
        .route("/readyz", get(routes::health::readyz))
        .route("/metrics", get(routes::metrics::metrics))
        .route("/openapi.json", get(routes::openapi::openapi))
        // Calls go past the router. This is here for what is said to other methods.
        .route("/v1/execute", post(routes::health::not_found))
        .merge(routes::admin::router())
        .merge(routes::bundles::router())
        .merge(routes::tus::router())
        .merge(routes::storage::router())
        .fallback(routes::health::not_found)
        .method_not_allowed_fallback(routes::health::method_not_allowed)
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(axum::middleware::from_fn_with_state(
            state.clone(),
            request_id::trace,
        ))
        .with_state(state)
}
