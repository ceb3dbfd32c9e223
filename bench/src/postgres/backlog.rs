//! Puts of a tenant with much that is expired and not removed yet, and how fast it is removed.

use std::sync::Arc;
use std::time::Instant;

use alga_model::{Secret, TenantId};
use alga_postgres::Options;
use alga_storage::{Maintenance as _, Namespace, PostgresBackend};
use anyhow::{Context as _, ensure};
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::{KEYS, Operation, Place, start_server};
use crate::measure::{Latencies, in_turns, median};
use crate::report::{Figure, rounded};
use crate::session::Bench;
use crate::storage::install::Install;
use crate::storage::sample::Numbers;

/// Puts of a round: few enough that the backlog outlives them all, as each removes up to 64 on its way.
const PUTS: u32 = 100;
/// Expired records.
const BACKLOG: i32 = 1_000_000;
/// Removed at once, and how often: as the server does it.
const BATCH: u32 = 1_000;
const BATCHES: u32 = 200;

/// How long a put takes while a million expired records of the tenant wait, by one without.
pub(super) async fn put(bench: Bench) -> anyhow::Result<Figure> {
    let server = start_server().await?;
    let backend = PostgresBackend::open(&Options::at(Secret::new(server.url()))).await?;
    let backend = Arc::new(backend);
    bench.progress("writing the records");
    let (without, with) = (open(&backend).await?, open(&backend).await?);
    expire(&server.url(), &with).await?;
    for place in [&without, &with] {
        // A new record, so that each namespace has room reserved again: counting anew took it back.
        place.do_once(Operation::Put, KEYS).await?;
    }
    let turns = in_turns(
        &bench,
        |round| puts(Arc::clone(&without), round),
        |round| puts(Arc::clone(&with), round),
    )
    .await?;
    let p50_without = median(turns.iter().map(|(without, _)| without.p50()));
    let p50_with = median(turns.iter().map(|(_, with)| with.p50()));
    let p99 = median(turns.iter().map(|(_, with)| with.p99()));
    bench.progress("sweeping");
    let rate = sweep(&backend).await?;
    Ok(Figure::new(p50_with, "µs p50").note(format!(
        "p99 {} µs; without {} µs, ratio {:.1}; a sweep removes {} a second",
        rounded(p99),
        rounded(p50_without),
        p50_with / p50_without,
        rounded(rate)
    )))
}

async fn open(backend: &Arc<PostgresBackend>) -> anyhow::Result<Arc<Place>> {
    let namespace = Namespace::parse("orders-0")?;
    let backend = Arc::clone(backend) as _;
    let install = Install::new(backend, TenantId::generate(), [namespace.clone()])?;
    let place = Place { install, namespace };
    place.fill().await?;
    Ok(Arc::new(place))
}

/// Has the tenant hold records that expired an hour ago, in ten other namespaces.
async fn expire(url: &str, place: &Place) -> anyhow::Result<()> {
    const EXPIRED: &str = r#"
        INSERT INTO ext_storage_records
            (tenant_id, install_id, namespace, key, revision, bytes, expires_at, created_at, updated_at, metadata, value)
        SELECT $1, $2, 'sessions-' || namespace, 'item-' || lpad(key::text, 8, '0'), 1, 9,
               now() - interval '1 hour' + key * interval '1 microsecond',
               now() - interval '2 hours', now() - interval '2 hours', '{}', '{"n":1}'
        FROM generate_series(0, 9) AS namespace, generate_series(1, $3 / 10) AS key"#;
    let mut connection = PgConnection::connect(url).await?;
    let (tenant, install) = (place.install.tenant(), place.install.id());
    let expired = sqlx::query(EXPIRED)
        .bind(tenant.as_uuid())
        .bind(install.as_uuid())
        .bind(BACKLOG);
    expired.execute(&mut connection).await?;
    let count = sqlx::query("SELECT * FROM ext_storage_verify_1($1, true)").bind(tenant.as_uuid());
    count.execute(&mut connection).await?;
    for statement in ["VACUUM ANALYZE", "CHECKPOINT"] {
        connection.execute(statement).await?;
    }
    connection.close().await.context("cannot end the session")
}

async fn puts(place: Arc<Place>, round: u32) -> anyhow::Result<Latencies> {
    let mut numbers = Numbers::seeded(round.into());
    let mut latencies = Latencies::default();
    for _ in 0..PUTS {
        let put = place.do_once(Operation::Put, numbers.below(KEYS));
        latencies.time(put).await?;
    }
    Ok(latencies)
}

/// Records removed a second.
async fn sweep(backend: &PostgresBackend) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut removed = 0;
    for _ in 0..BATCHES {
        removed += backend.remove_expired(BATCH).await?.records;
    }
    ensure!(
        removed == u64::from(BATCH * BATCHES),
        "there was no backlog any more"
    );
    Ok(f64::from(BATCH * BATCHES) / start.elapsed().as_secs_f64())
}
