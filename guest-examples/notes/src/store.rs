//! Notes as records: one namespace, the note's id as key, the note as JSON value.

use alloc::string::String;

use crate::bindings::alga::storage::records;
use crate::bindings::alga::storage::types::{
    Conflict, DeleteGuard, Entry, Error, ListOptions, Page, PutGuard, PutOptions, Written,
};

/// The namespace that `bundle/manifest.json` asks for.
const NAMESPACE: &str = "notes";

/// How often an append is tried before it is left to the caller.
const ATTEMPTS: usize = 5;

pub fn get(id: &str) -> Result<Entry, Error> {
    records::get(NAMESPACE, id, None)
}

pub fn list(
    limit: Option<u32>,
    cursor: Option<String>,
    prefix: Option<String>,
) -> Result<Page, Error> {
    records::list(
        NAMESPACE,
        &ListOptions {
            key_prefix: prefix,
            start_key: None,
            end_key: None,
            reverse: false,
            limit,
            cursor,
            // One call for a page with the notes in it, rather than one more for each note.
            include_values: true,
            include_metadata: false,
        },
    )
}

/// Writes a note where the guard allows it. A conflict carries the note that is stored.
pub fn put(id: &str, value: &str, guard: PutGuard) -> Result<Written, Error> {
    let unguarded = matches!(guard, PutGuard::None);
    let options = PutOptions {
        metadata: None,
        ttl_seconds: None,
        schema_version: None,
        guard,
        // What was replaced tells an unguarded write whether it created the note.
        return_previous: unguarded,
        return_current: true,
    };
    records::put(NAMESPACE, id, value, &options)
}

/// Removes a note; false where there was none.
pub fn remove(id: &str) -> Result<bool, Error> {
    records::delete(NAMESPACE, id, DeleteGuard::None)
}

/// Changes a note by `change`, answers what is stored then, and never loses a change that somebody else makes meanwhile.
///
/// There is no lock to take. The write is guarded by the revision that was read; where another
/// write came between, nothing happens and the conflict brings the record as it is now, so that
/// the next attempt needn't read again. After a few attempts the last conflict is the answer.
pub fn update<E: From<Error>>(
    id: &str,
    change: impl Fn(&str) -> Result<String, E>,
) -> Result<(Written, String), E> {
    let mut entry = get(id)?;
    let mut attempt = 1;
    loop {
        let value = change(&entry.value)?;
        match put(id, &value, PutGuard::Revision(entry.revision)) {
            Err(Error::RevisionMismatch(Conflict {
                current: Some(current),
                ..
            })) if attempt < ATTEMPTS => {
                entry = current;
                attempt += 1;
            }
            // The note was removed meanwhile: a guard that finds nothing has no revision to tell.
            Err(Error::RevisionMismatch(Conflict {
                current_revision: None,
                ..
            })) => {
                return Err(Error::NotFound.into());
            }
            outcome => return Ok((outcome?, value)),
        }
    }
}
