//! Whether the process lives, whether it should get requests, and what is said where nothing is.

use std::time::{Duration, Instant};

use alga_bundles::ObjectKey;
use alga_schema::Database;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::timeout;
use uuid::Uuid;

use crate::app::App;
use crate::http::AppState;
use crate::http::error::ApiError;
use crate::storage_place::StoragePlace;

/// The process lives. Asks nothing else.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// How long a database, or the store of bundles, may take to answer a probe.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long what is known of bundles counts: a bucket isn't asked for every probe.
const BUNDLES_KNOWN: Duration = Duration::from_secs(10);

/// The process can answer requests: the databases are there and it isn't stopping. Where bundles can't be
/// had it is as ready as any: those in the cache run.
pub(crate) async fn readyz(State(state): State<AppState>) -> Response {
    let stores = &state.app.stores;
    let storage = async {
        match &stores.storage {
            StoragePlace::Here(storage) => Some(answers(storage.database()).await),
            // Its outage is no reason to send nothing here: not every call needs it, and where it is gone
            // for one process it is gone for all.
            StoragePlace::Elsewhere(_) => None,
        }
    };
    let (storage, registry, bundles) = tokio::join!(
        storage,
        answers(stores.registry.database()),
        state.bundles.look(&state.app)
    );
    let draining = state.is_draining();
    let status = if storage.unwrap_or(true) && registry && !draining {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let BundlesReady { store, cache } = bundles;
    let degraded = store == Some(false) || cache == Some(false);
    let body = json!({
        "storage": storage,
        "registry": registry,
        "bundles": store,
        "cache": cache,
        "degraded": degraded,
        "draining": draining,
    });
    (status, Json(body)).into_response()
}

/// Whether bundles can be had, as of the last look.
#[derive(Debug, Default)]
pub(crate) struct BundlesProbe(Mutex<Option<(Instant, BundlesReady)>>);

/// Whether bundles can be had; nothing where the process has no need of them, or may not ask.
#[derive(Debug, Clone, Copy, Default)]
struct BundlesReady {
    /// Their store answers.
    store: Option<bool>,
    /// What comes from there can be kept.
    cache: Option<bool>,
}

impl BundlesProbe {
    /// Looks, unless somebody did a moment ago.
    async fn look(&self, app: &App) -> BundlesReady {
        let mut last = self.0.lock().await;
        let now = Instant::now();
        match *last {
            Some((at, ready)) if now.saturating_duration_since(at) < BUNDLES_KNOWN => ready,
            _ => {
                let ready = BundlesReady::of(app).await;
                *last = Some((now, ready));
                ready
            }
        }
    }
}

impl BundlesReady {
    async fn of(app: &App) -> Self {
        let Some(extensions) = &app.extensions else {
            return Self::default();
        };
        let store = async {
            let uploads = app.admin.uploads.as_ref();
            if uploads.is_some_and(|uploads| uploads.is_offline) {
                return None;
            }
            // Whether it is there doesn't matter; that somebody says so does.
            let any = ObjectKey::Check(Uuid::nil());
            let looked = timeout(PATIENCE, app.stores.bundles.stat(any)).await;
            Some(looked.is_ok_and(|looked| looked.is_ok()))
        };
        let cache = timeout(PATIENCE, extensions.executor.bundles().check());
        let (store, cache) = tokio::join!(store, cache);
        Self {
            store,
            cache: Some(cache.is_ok_and(|checked| checked.is_ok())),
        }
    }
}

/// Whether a database answers in time.
async fn answers(database: &dyn Database) -> bool {
    let answered = timeout(PATIENCE, database.ping()).await;
    answered.is_ok_and(|answered| answered.is_ok())
}

/// No such path.
pub(crate) async fn not_found() -> ApiError {
    ApiError::NoSuchPath
}

/// No such method.
pub(crate) async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}
