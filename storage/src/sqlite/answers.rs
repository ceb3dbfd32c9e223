//! What was answered to writes that are known by an id, so that a repeat gets the same answer.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use alga_model::{InstallId, TenantId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::SqliteError;
use super::group::Outcome;
use super::rows;
use super::writer::{Job, Write};
use crate::contract::{OperationId, Written};
use crate::error::Error;
use crate::maintenance::Removed;
use crate::service::WriteDigest;
use crate::wire::WrittenBody;

/// The answers that a group of writes may have to give again, and those that it gives.
#[derive(Debug, Default)]
pub(super) struct Answers(BTreeMap<Id, Answer>);

type Id = (TenantId, InstallId, OperationId);

/// An answer to a write that was done.
#[derive(Debug)]
pub(super) struct Answer {
    /// Of what the write asked for.
    digest: WriteDigest,
    /// What was written; empty of a delete.
    result: Vec<WrittenBody>,
    /// How long it is remembered, where this group gives it first.
    new_for: Option<Duration>,
}

impl Answers {
    /// What was answered to the writes of a group.
    pub(super) fn load(connection: &Connection, group: &[Job]) -> Result<Self, SqliteError> {
        const ANSWER: &str = "
            SELECT digest, result FROM ext_storage_idempotency
            WHERE tenant_id = ? AND install_id = ? AND operation_id = ?";
        let mut answers = Self::default();
        for id in group.iter().filter_map(id_of) {
            let (tenant, install, operation) = id;
            let mut select = connection.prepare_cached(ANSWER)?;
            let key = params![
                tenant.as_bytes(),
                install.as_bytes(),
                operation.as_uuid().as_bytes()
            ];
            let found = select.query_row(key, |row| Ok(rows::answer(row)));
            if let Some(found) = found.optional()? {
                answers.0.insert(id, found?);
            }
        }
        Ok(answers)
    }

    /// The answer to a write that is a repeat.
    pub(super) fn repeated(&self, job: &Job) -> Option<Outcome> {
        let answer = self.0.get(&id_of(job)?)?;
        let is_same = answer.digest == digest_of(job);
        Some(match &job.write {
            Write::Put(_) if is_same => Outcome::Put(answer.written().map_err(Error::into)),
            Write::Put(_) => Outcome::Put(Err(OperationId::taken().into())),
            Write::Delete(_) if is_same => Outcome::Delete(Ok(true)),
            Write::Delete(_) => Outcome::Delete(Err(OperationId::taken())),
        })
    }

    /// Remembers what came of a write, if it was done.
    pub(super) fn remember(&mut self, job: &Job, outcome: &Outcome) -> Result<(), SqliteError> {
        let Some(id) = id_of(job) else {
            return Ok(());
        };
        let result = match outcome {
            Outcome::Put(Ok(written)) => {
                let bodies = written.iter().cloned().map(WrittenBody::of);
                bodies.collect::<Result<_, _>>().map_err(|_| {
                    // What was replaced was stored by other hands.
                    SqliteError::Inconsistency {
                        table: "ext_storage_records",
                        column: "value",
                    }
                })?
            }
            Outcome::Delete(Ok(true)) => Vec::new(),
            Outcome::Put(Err(_)) | Outcome::Delete(_) | Outcome::NeedsRoom(_) => return Ok(()),
        };
        if let Entry::Vacant(slot) = self.0.entry(id) {
            let holds_values = result.iter().any(|one| one.previous.is_some());
            slot.insert(Answer {
                digest: digest_of(job),
                result,
                new_for: Some(if holds_values {
                    OperationId::RETENTION_OF_VALUES
                } else {
                    OperationId::RETENTION
                }),
            });
        }
        Ok(())
    }

    /// Stores the answers that are given for the first time.
    pub(super) fn store(&self, connection: &Connection, now: Timestamp) -> Result<(), SqliteError> {
        const INSERT: &str = "
            INSERT INTO ext_storage_idempotency
                (tenant_id, install_id, operation_id, digest, expires_at, result)
            VALUES (?, ?, ?, ?, ?, ?)";
        for ((tenant, install, operation), answer) in &self.0 {
            if let Some(retention) = answer.new_for {
                let mut insert = connection.prepare_cached(INSERT)?;
                insert.execute(params![
                    tenant.as_bytes(),
                    install.as_bytes(),
                    operation.as_uuid().as_bytes(),
                    answer.digest,
                    now.plus(retention).as_millis(),
                    rows::json(answer.result.iter()),
                ])?;
            }
        }
        Ok(())
    }
}

impl Answer {
    pub(super) const fn stored(digest: WriteDigest, result: Vec<WrittenBody>) -> Self {
        Self {
            digest,
            result,
            new_for: None,
        }
    }

    fn written(&self) -> Result<Vec<Written>, Error> {
        let bodies = self.result.iter().cloned();
        bodies.map(WrittenBody::into_written).collect()
    }
}

/// Removes at most `limit` answers whose time is over.
pub(super) fn remove(
    connection: &Connection,
    now: Timestamp,
    limit: u32,
) -> Result<Removed, SqliteError> {
    const DELETE: &str = "
        DELETE FROM ext_storage_idempotency WHERE (tenant_id, install_id, operation_id) IN (
            SELECT tenant_id, install_id, operation_id FROM ext_storage_idempotency
            WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)";
    let mut delete = connection.prepare_cached(DELETE)?;
    let removed = delete.execute(params![now.as_millis(), limit])?;
    Ok(Removed {
        records: removed as u64,
        bytes: 0,
        more: removed == rows::length(limit),
    })
}

fn digest_of(job: &Job) -> WriteDigest {
    match &job.write {
        Write::Put(put) => put.digest(),
        Write::Delete(request) => request.digest(),
    }
}

fn id_of(job: &Job) -> Option<Id> {
    let scope = &job.scope;
    let operation = scope.operation_id?;
    Some((scope.tenant, scope.install, operation))
}
