//! The store of bundles that a configuration names.

use std::sync::Arc;
use std::time::Duration;

use alga_bundles::{BundleStore, LocalStore, S3Settings, S3Store};
use alga_model::ErrorChain;
use alga_registry::Registry;
use anyhow::Context as _;
use tokio::time::timeout;

use crate::bundle_care::{ANOTHERS, Owner};
use crate::config::Config;
use crate::credentials;
use crate::databases::cannot_use;

/// How long the store is waited for at the start. A bucket that accepts connections and answers nothing would hold
/// it for minutes, which a supervisor takes for a process that hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// The bucket of bundles, or their folder.
pub(crate) fn open(config: &Config) -> anyhow::Result<Arc<dyn BundleStore>> {
    let s3 = &config.s3;
    let Some(bucket) = s3.bundles() else {
        let folder = config.data.bundles();
        let store = LocalStore::open(&folder).with_context(|| cannot_use(&folder))?;
        return Ok(Arc::new(store));
    };
    let (Some(access_key), Some(secret_key)) = (
        s3.access_key.clone(),
        credentials::token(s3.secret_key.as_ref(), s3.secret_key_file.as_deref())?,
    ) else {
        anyhow::bail!("`storage.s3.access_key` and `storage.s3.secret_key` must be set");
    };
    Ok(Arc::new(S3Store::new(S3Settings {
        endpoint: s3.endpoint.clone(),
        force_path_style: s3.force_path_style,
        checksums: s3.checksums,
        connect_timeout: s3.connect_timeout,
        request_timeout: s3.request_timeout,
        stall: config.bundles.stall,
        ..S3Settings::new(&s3.region, bucket, access_key, secret_key)
    })))
}

/// Where it is, for people.
pub(crate) fn place(config: &Config) -> String {
    let s3 = &config.s3;
    match (s3.bundles(), &s3.endpoint) {
        (None, _) => format!("the folder {}", config.data.bundles().display()),
        (Some(bucket), None) => format!("the bucket `{bucket}` of AWS in {}", s3.region),
        (Some(bucket), Some(endpoint)) => format!("the bucket `{bucket}` at {endpoint}"),
    }
}

/// Says now what the first upload would run into, and marks a store that is nobody's as that of the registry. A
/// store that is only out of reach for the moment stops nobody who has bundles in the cache.
///
/// # Errors
/// Where it answers and can't be used.
pub(crate) async fn try_out(
    store: &dyn BundleStore,
    registry: &dyn Registry,
    config: &Config,
) -> anyhow::Result<()> {
    let place = place(config);
    let out_of_reach = match timeout(PATIENCE, store.check()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) if error.is_transient() => Some(ErrorChain(&error).to_string()),
        Ok(Err(error)) => {
            return Err(error).with_context(|| format!("cannot use the bundle store, {place}"));
        }
        Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    if let Some(error) = out_of_reach {
        tracing::warn!(
            error,
            store = place,
            "the bundle store cannot be reached; only what is in the cache can run"
        );
        return Ok(());
    }
    match timeout(PATIENCE, Owner::claim(store, registry)).await {
        Ok(Ok(Owner::Ours)) => {}
        Ok(Ok(Owner::Another(mark))) => {
            let mark = mark.map(tracing::field::display);
            tracing::warn!(store = place, mark, "{ANOTHERS}");
        }
        Ok(Ok(Owner::Nobody)) => tracing::warn!(
            store = place,
            "the bundle store has bundles of which the registry knows none, and nobody has marked it; it isn't swept"
        ),
        Ok(Err(error)) => tracing::warn!(
            error = %ErrorChain(&error),
            store = place,
            "cannot tell whose the bundle store is"
        ),
        Err(_) => tracing::warn!(store = place, "the bundle store stopped answering"),
    }
    Ok(())
}
