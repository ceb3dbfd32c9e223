//! Whether the process lives, whether it should get requests, and what is said where nothing is.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alga_bundles::ObjectKey;
use alga_model::ErrorChain;
use alga_schema::Database;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::error::Elapsed;
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
    let [store, cache] = [store, cache].map(|found| found.map(|found| found.is_ok()));
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
#[derive(Debug, Clone, Default)]
pub(crate) struct BundlesReady {
    /// Their store answers.
    store: Option<Found>,
    /// What comes from there can be kept.
    cache: Option<Found>,
}

/// Whether something works, and why not.
type Found = Result<(), Arc<str>>;

impl BundlesProbe {
    /// Looks, unless somebody did a moment ago.
    pub(crate) async fn look(&self, app: &App) -> BundlesReady {
        let mut last = self.0.lock().await;
        let now = Instant::now();
        match &*last {
            Some((at, ready)) if now.saturating_duration_since(*at) < BUNDLES_KNOWN => {
                ready.clone()
            }
            _ => {
                let ready = BundlesReady::of(app).await;
                let before = last.replace((now, ready.clone()));
                ready.tell(&before.map(|(_, ready)| ready).unwrap_or_default());
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
            Some(found(looked.map(|looked| looked.map(drop))))
        };
        let cache = timeout(PATIENCE, extensions.executor.bundles().check());
        let (store, cache) = tokio::join!(store, cache);
        Self {
            store,
            cache: Some(found(cache)),
        }
    }

    /// Measures how it is, and logs what has changed. Before anybody looked, all was well.
    fn tell(&self, before: &Self) {
        let changed = |now: &Option<Found>, before: &Option<Found>| {
            let was_up = !matches!(before, Some(Err(_)));
            now.clone().filter(|now| now.is_ok() != was_up)
        };
        let measure = |gauge: &'static str, now: &Option<Found>| {
            if let Some(now) = now {
                metrics::gauge!(gauge).set(f64::from(u8::from(now.is_ok())));
            }
        };
        measure("alga_bundles_store_up", &self.store);
        measure("alga_bundles_cache_up", &self.cache);
        match changed(&self.store, &before.store) {
            Some(Err(error)) => tracing::warn!(
                %error,
                "the bundle store cannot be used; what is in the cache runs on"
            ),
            Some(Ok(())) => tracing::info!("the bundle store can be used again"),
            None => {}
        }
        match changed(&self.cache, &before.cache) {
            Some(Err(error)) => tracing::warn!(
                %error,
                "the cache of bundles cannot be written; what is in it runs on"
            ),
            Some(Ok(())) => tracing::info!("the cache of bundles can be written again"),
            None => {}
        }
    }
}

/// What came of a look that had its time.
fn found<E: Error + 'static>(looked: Result<Result<(), E>, Elapsed>) -> Found {
    match looked {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(ErrorChain(&error).to_string().into()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs()).into()),
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
