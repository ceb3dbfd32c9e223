//! Which migrations a database has, lacks and must not have: what SQLite and PostgreSQL have in common
//! of keeping a schema up to date. How a migration is run is up to each of them.

mod database;

use std::cmp::Reverse;

use sqlx::migrate::{Migration, Migrator};

pub use database::{Database, DatabaseError};

/// The migrations of one database, embedded in the binary.
#[derive(Debug)]
pub struct Schema {
    name: &'static str,
    history: &'static str,
    migrator: Migrator,
}

/// A migration that a database has, as the table of its history says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its version.
    pub version: i64,
    /// The checksum of its text.
    pub checksum: Vec<u8>,
}

/// A migration of this release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its version; migrations are applied in the order of their versions.
    pub version: i64,
    /// What it is called.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// Why a database can't be used by this release, or not be brought to a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A newer release has migrated the database.
    #[error(
        "the {schema} database has schema version {applied}, but this release knows none after {known}; \
         run a newer release, or revert the newer migrations with it"
    )]
    TooNew {
        /// Whose database.
        schema: &'static str,
        /// The newest version the database has.
        applied: i64,
        /// The newest version this release knows.
        known: i64,
    },
    /// A migration the database has is not the one this release has under that version.
    #[error(
        "cannot use a {schema} database whose migration {version} is not the one of this release"
    )]
    Diverged {
        /// Whose database.
        schema: &'static str,
        /// The migration's version.
        version: i64,
    },
    /// There is no migration of this version.
    #[error("the {schema} database has no migration {version}")]
    UnknownVersion {
        /// Whose database.
        schema: &'static str,
        /// The version asked for.
        version: i64,
    },
}

impl Schema {
    /// The schema called `name`, whose history is kept in the table `history`.
    pub const fn new(name: &'static str, history: &'static str, migrator: Migrator) -> Self {
        Self {
            name,
            history,
            migrator,
        }
    }

    /// What the database is called in messages.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The table of the history.
    pub const fn history(&self) -> &'static str {
        self.history
    }

    /// Fails unless every migration that a database has is one of this release, unchanged.
    pub fn check(&self, applied: &[Applied]) -> Result<(), SchemaError> {
        let known = self.migrations().map(|migration| migration.version).max();
        let known = known.unwrap_or_default();
        let newest = applied.iter().map(|applied| applied.version).max();
        if let Some(newest) = newest.filter(|newest| *newest > known) {
            return Err(SchemaError::TooNew {
                schema: self.name,
                applied: newest,
                known,
            });
        }
        match applied.iter().find(|applied| !self.is_ours(applied)) {
            Some(Applied { version, .. }) => Err(SchemaError::Diverged {
                schema: self.name,
                version: *version,
            }),
            None => Ok(()),
        }
    }

    /// The migrations that a database lacks, in the order in which to apply them.
    pub fn missing(&self, applied: &[Applied]) -> Vec<&Migration> {
        let missing = |migration: &&Migration| !has(applied, migration.version);
        self.migrations().filter(missing).collect()
    }

    /// The migrations back to `version`, of those that a database has, in the order in which to revert
    /// them; 0 is before all.
    pub fn back_to(
        &self,
        version: i64,
        applied: &[Applied],
    ) -> Result<Vec<&Migration>, SchemaError> {
        if version != 0 && !self.migrator.version_exists(version) {
            return Err(SchemaError::UnknownVersion {
                schema: self.name,
                version,
            });
        }
        let reverts = |migration: &&Migration| {
            migration.migration_type.is_down_migration()
                && migration.version > version
                && has(applied, migration.version)
        };
        let mut reverts: Vec<_> = self.migrator.iter().filter(reverts).collect();
        reverts.sort_by_key(|migration| Reverse(migration.version));
        Ok(reverts)
    }

    /// The migrations of this release and whether a database has them.
    pub fn status(&self, applied: &[Applied]) -> Vec<MigrationStatus> {
        let status = |migration: &Migration| MigrationStatus {
            version: migration.version,
            name: migration.description.clone().into_owned(),
            applied: has(applied, migration.version),
        };
        self.migrations().map(status).collect()
    }

    fn is_ours(&self, applied: &Applied) -> bool {
        self.migrations().any(|migration| {
            migration.version == applied.version && *migration.checksum == *applied.checksum
        })
    }

    /// The migrations that go up, by version.
    fn migrations(&self) -> impl Iterator<Item = &Migration> {
        self.migrator
            .iter()
            .filter(|migration| migration.migration_type.is_up_migration())
    }
}

fn has(applied: &[Applied], version: i64) -> bool {
    applied.iter().any(|applied| applied.version == version)
}
