//! The schema of the registry in PostgreSQL goes up, down and up again, whoever does it.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::sync::Arc;

use alga_model::Secret;
use alga_postgres::{Database, DriverError, Options};
use alga_registry::{PostgresRegistry, Registry as _, Switches};
use alga_test_postgres::TestDatabase;
use sqlx::PgConnection;

async fn options() -> Options {
    Options::at(Secret::new(TestDatabase::create().await.url))
}

/// All columns, constraints, indexes, triggers and functions of the schema.
async fn schema(database: &Database) -> Vec<String> {
    const SCHEMA: &str = "
        SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable
            || ' ' || coalesce(collation_name, '')
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc
            WHERE pronamespace = 'public'::regnamespace
        ORDER BY 1";
    let reading = database.read(async |connection: &mut PgConnection| {
        let statements = sqlx::query_scalar(SCHEMA).fetch_all(connection).await;
        Ok::<_, DriverError>(statements?)
    });
    reading.await.unwrap()
}

#[tokio::test]
async fn going_down_and_up_again_leaves_the_same_schema() {
    let registry = PostgresRegistry::open(&options().await).await.unwrap();
    let database = registry.database();
    let before = schema(database).await;
    database.migrate_down_to(0).await.unwrap();
    let left = schema(database).await;
    assert!(
        left.iter()
            .all(|text| text.contains("_registry_migrations")),
        "{left:#?}"
    );
    database.migrate_up().await.unwrap();
    assert_eq!(schema(database).await, before);
    assert_eq!(registry.switches().await.unwrap(), Switches::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_migrate_one_database_at_once() {
    let options = options().await;
    let opened = (0..8).map(|_| {
        let options = options.clone();
        tokio::spawn(async move { PostgresRegistry::open(&options).await.unwrap() })
    });
    let opened: Vec<_> = opened.collect();
    let mut registries = Vec::new();
    for registry in opened {
        registries.push(Arc::new(registry.await.unwrap()));
    }
    let expected = schema(registries[0].database()).await;
    let moving = registries.iter().enumerate().map(|(nth, registry)| {
        let registry = Arc::clone(registry);
        tokio::spawn(async move {
            let database = registry.database();
            match nth % 2 {
                0 => database.migrate_down_to(0).await.unwrap(),
                _ => database.migrate_up().await.unwrap(),
            }
        })
    });
    let moving: Vec<_> = moving.collect();
    for moved in moving {
        moved.await.unwrap();
    }
    registries[0].database().migrate_up().await.unwrap();
    assert_eq!(schema(registries[0].database()).await, expected);
    for registry in &registries {
        assert_eq!(registry.switches().await.unwrap(), Switches::default());
    }
}
