//! The data folder, and what is where in it.

use std::io;
use std::path::{Path, PathBuf};

use super::kind;
use super::setting::section;

section! {
    /// Where everything is that outlives the process.
    pub struct DataConfig {
        /// The folder of databases, bundles, caches and generated secrets, relative to the working
        /// directory. It is made if it is missing, for its owner only.
        dir: PathBuf = PathBuf::from("alga-data"), "data_dir": kind::Path;
    }
}

impl DataConfig {
    /// The database of records.
    pub fn storage_database(&self) -> PathBuf {
        self.dir.join("storage.sqlite3")
    }

    /// The database of extensions, installs and grants.
    pub fn registry_database(&self) -> PathBuf {
        self.dir.join("registry.sqlite3")
    }

    /// The folder of published bundles.
    pub fn bundles(&self) -> PathBuf {
        self.dir.join("bundles")
    }

    /// The folder of unpacked bundles; may be deleted while no runner uses it.
    pub fn bundle_cache(&self) -> PathBuf {
        self.dir.join("cache").join("bundles")
    }

    /// The folder of compiled components; may be deleted while no runner uses it.
    pub fn code_cache(&self) -> PathBuf {
        self.dir.join("cache").join("code")
    }

    /// The master key that is made where none is configured.
    pub fn master_key(&self) -> PathBuf {
        self.dir.join("master.key")
    }

    /// The service token that is made where no token is configured.
    pub fn service_token(&self) -> PathBuf {
        self.dir.join("service.token")
    }

    /// The administrator's token that is made where no token is configured.
    pub fn admin_token(&self) -> PathBuf {
        self.dir.join("admin.token")
    }

    /// Makes the folder if it is missing, for its owner only. What belongs in it makes folders of its own. An
    /// error names the folder.
    pub fn create(&self) -> io::Result<()> {
        create_private(&self.dir).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.dir.display()))
        })
    }
}

fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_folder_is_made_for_its_owner_only_and_may_exist_already() {
        let parent = tempfile::tempdir().unwrap();
        let data = DataConfig {
            dir: parent.path().join("a").join("data"),
        };
        data.create().unwrap();
        data.create().unwrap();
        let mode = data.dir.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        // What nobody uses is not there.
        assert_eq!(data.dir.read_dir().unwrap().count(), 0);
    }
}
