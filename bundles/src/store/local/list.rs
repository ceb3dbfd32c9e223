//! What is in the folder.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::super::{Cursor, Listed, Listing, ObjectKey, Page, Unfinished};
use super::upload::LocalUpload;
use super::{UNFINISHED, existing, stat};

/// What is listed beside that, in a folder of its own.
const fn beside(listing: Listing) -> Option<&'static str> {
    match listing {
        Listing::Staging => Some("sha256/_check"),
        Listing::Canonical | Listing::Compiled => None,
    }
}

/// The folder, below that of the store, with one folder for each thing that is listed.
const fn parent(listing: Listing) -> &'static str {
    match listing {
        Listing::Staging => "sha256/_staging",
        Listing::Canonical => "sha256",
        Listing::Compiled => "compiled",
    }
}

pub(super) fn objects(
    root: &Path,
    listing: Listing,
    after: Option<Cursor>,
    limit: usize,
) -> io::Result<Page> {
    let after = after.map(|Cursor(after)| after).unwrap_or_default();
    let parent = parent(listing);
    let mut objects = Vec::new();
    let mut folders: Vec<_> = beside(listing).map(str::to_owned).into_iter().collect();
    let within = names(&root.join(parent))?.into_iter();
    folders.extend(within.map(|folder| format!("{parent}/{folder}")));
    for folder in folders {
        // Everything in it has its name in front.
        if !after.starts_with(&folder) && folder < after {
            continue;
        }
        for file in names(&root.join(&folder))? {
            let name = format!("{folder}/{file}");
            let key = name.parse().ok().filter(|key| listing.contains(key));
            let Some(key) = key.filter(|_: &ObjectKey| name > after) else {
                continue;
            };
            if objects.len() == limit {
                let last = objects.last().map(|Listed { key, .. }| key.to_string());
                let next = Some(Cursor(last.unwrap_or(after)));
                return Ok(Page { objects, next });
            }
            if let Some(meta) = existing(&root.join(&name))? {
                let stat = stat(&meta)?;
                objects.push(Listed { key, stat });
            }
        }
    }
    Ok(Page {
        objects,
        next: None,
    })
}

/// Files that were never made objects, last written before `before`.
pub(super) fn unfinished(
    root: &Path,
    before: SystemTime,
    limit: usize,
) -> io::Result<Vec<Unfinished>> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    for parent in ["sha256", "compiled"] {
        let within = names(&root.join(parent))?.into_iter();
        folders.extend(within.map(|folder| format!("{parent}/{folder}")));
    }
    for folder in folders {
        for file in names(&root.join(&folder))? {
            if found.len() == limit {
                return Ok(found);
            }
            let path = Path::new(&folder).join(&file);
            let meta = match existing(&root.join(&path))? {
                Some(meta) if meta.is_file() && file.starts_with(UNFINISHED) => meta,
                _ => continue,
            };
            let started = meta.modified()?;
            if let Some(name) = path.to_str().filter(|_| started < before) {
                found.push(Unfinished {
                    key: LocalUpload::key_of(&file).map(ObjectKey::from),
                    started,
                    name: name.to_owned(),
                    id: String::new(),
                });
            }
        }
    }
    Ok(found)
}

/// What a folder contains, sorted; nothing if it isn't there or no folder. Names of ours are all text.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}
