//! Bundles in the cache, and on their ways into it and into the store.

mod bucket;
mod fetch;
mod pipeline;
mod sample;
mod upload;

use crate::session::Session;

/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

/// Measures every line of the bundles that is wanted.
pub(crate) async fn run(session: &mut Session) -> anyhow::Result<()> {
    session
        .line("bundles/warm-lookup", fetch::warm_lookup)
        .await?;
    session
        .line("bundles/cold-fetch", fetch::cold_fetch)
        .await?;
    session
        .line("bundles/cold-fetch-s3", pipeline::cold_fetch)
        .await?;
    session.line("bundles/upload", upload::upload).await
}

/// So many bytes in MiB.
fn mebibytes(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / MIB
}
