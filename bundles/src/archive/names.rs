//! The names an archive has used.

use std::collections::HashMap;

use super::Rejection;
use crate::path::BundlePath;

/// Refuses a name that is there already, and a file that would have to be a folder too.
pub(super) struct Names {
    seen: HashMap<String, Seen>,
    limit: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    File,
    Folder,
    /// A folder that so far only other names speak of.
    Implied,
}

impl Names {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            seen: HashMap::new(),
            limit,
        }
    }

    pub(super) fn add(&mut self, path: &BundlePath, is_folder: bool) -> Result<(), Rejection> {
        for ancestor in path.ancestors() {
            match self.seen.get(ancestor) {
                Some(Seen::File) => return Err(Rejection::InsideFile(ancestor.to_owned())),
                Some(Seen::Folder | Seen::Implied) => {}
                // Counted too: one deep name may otherwise stand for hundreds of folders.
                None => self.insert(ancestor, Seen::Implied)?,
            }
        }
        match self.seen.get(path.as_str()) {
            None => self.insert(
                path.as_str(),
                if is_folder { Seen::Folder } else { Seen::File },
            ),
            Some(Seen::Implied) if is_folder => self.insert(path.as_str(), Seen::Folder),
            Some(_) => Err(Rejection::Duplicate),
        }
    }

    fn insert(&mut self, name: &str, seen: Seen) -> Result<(), Rejection> {
        self.seen.insert(name.to_owned(), seen);
        if self.seen.len() > self.limit {
            return Err(Rejection::TooManyEntries { limit: self.limit });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(names: &mut Names, path: &str, is_folder: bool) -> Result<(), Rejection> {
        names.add(&path.parse().unwrap(), is_folder)
    }

    #[test]
    fn a_folder_may_be_named_once_before_or_after_its_files() {
        let mut names = Names::new(100);
        assert_eq!(add(&mut names, "a", true), Ok(()));
        assert_eq!(add(&mut names, "a/b/c", false), Ok(()));
        assert_eq!(add(&mut names, "a/b", true), Ok(()));
        assert_eq!(add(&mut names, "a/b", true), Err(Rejection::Duplicate));
    }

    #[test]
    fn a_name_is_a_file_or_a_folder_but_not_both() {
        let mut names = Names::new(100);
        assert_eq!(add(&mut names, "a/b", false), Ok(()));
        assert_eq!(add(&mut names, "a", false), Err(Rejection::Duplicate));
        assert_eq!(add(&mut names, "a/b", true), Err(Rejection::Duplicate));
        assert_eq!(
            add(&mut names, "a/b/c/d", false),
            Err(Rejection::InsideFile("a/b".to_owned()))
        );
    }

    #[test]
    fn implied_folders_count_as_entries() {
        let mut names = Names::new(3);
        assert_eq!(add(&mut names, "a/b/c", false), Ok(()));
        assert_eq!(add(&mut names, "a/b", true), Ok(()));
        assert_eq!(
            add(&mut names, "d", false),
            Err(Rejection::TooManyEntries { limit: 3 })
        );
    }
}
