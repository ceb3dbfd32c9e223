//! The examples in TypeScript and Python: built from their sources, packed and compiled once for all
//! tests, however many processes these run in.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use alga_e2e::guest;
use alga_model::{ContentHash, ContentHasher};
use rusqlite::Connection;
use serde_json::Value;

use crate::deployment::{Answer, Deployment, Installed, path};

/// An example whose component is not committed.
pub(crate) struct Example {
    /// Its folder in `guest-examples`.
    pub(crate) folder: &'static str,
    /// What its manifest calls it.
    pub(crate) extension: &'static str,
}

pub(crate) const TICKETS: Example = Example {
    folder: "tickets-ts",
    extension: "com.example.tickets",
};

pub(crate) const ASSETS: Example = Example {
    folder: "assets-py",
    extension: "com.example.assets",
};

/// The master key of deployments that share compiled code, which is authenticated with it.
const MASTER_KEY: &str = "e2e0e2e0e2e0e2e0e2e0e2e0e2e0e2e0e2e0e2e0e2e0e2e0e2e0e2e0e2e0e2e0";

impl Example {
    /// A deployment with the example installed, and no server yet.
    pub(crate) fn installed(&self) -> (Deployment, Installed) {
        self.installed_with(&[])
    }

    /// The same with more arguments to the command that installs it.
    ///
    /// The first to ask builds, packs and compiles; the others wait, and find everything done.
    pub(crate) fn installed_with(&self, arguments: &[&str]) -> (Deployment, Installed) {
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples");
        let code = shared.join("code");
        fs::create_dir_all(&code).unwrap();
        let mut deployment = Deployment::new();
        deployment.set("ALGA_KEYS_MASTER_KEY", MASTER_KEY);
        let cache = deployment.data().join("cache");
        fs::create_dir_all(&cache).unwrap();
        std::os::unix::fs::symlink(code, cache.join("code")).unwrap();

        let lock = File::create(shared.join(format!("{}.lock", self.folder))).unwrap();
        lock.lock().unwrap();
        let bundle = self.packed(&deployment, &shared.join(self.folder));
        let installed = deployment.publish_with(self.extension, &bundle, arguments);
        lock.unlock().unwrap();
        (deployment, installed)
    }

    /// The bundle of the example as its sources are now, in a folder that is kept.
    fn packed(&self, deployment: &Deployment, kept: &Path) -> PathBuf {
        let folder = kept.join("bundle");
        drop(fs::remove_dir_all(&folder));
        copy(&guest::example_dir(self.folder).join("bundle"), &folder).unwrap();
        guest::build(&guest::example_dir(self.folder), &folder.join("dist")).unwrap();

        // Packing takes an unoptimised runner ten seconds.
        let contents = digest(&folder).unwrap().to_hex();
        let (bundle, of) = (kept.join("bundle.tar.zst"), kept.join("bundle.digest"));
        if fs::read_to_string(&of).is_ok_and(|packed| packed == contents) {
            return bundle;
        }
        drop(fs::remove_file(&of));
        deployment.ok(&["bundle", "pack", path(&folder), "--output", path(&bundle)]);
        fs::write(of, contents).unwrap();
        bundle
    }
}

/// The status and the code of an answer of an example that is an error.
pub(crate) fn refused(answer: &Answer) -> (u64, String) {
    let code = &answer.json()["error"]["code"];
    (answer.status, code.as_str().unwrap_or_default().to_owned())
}

/// A record as the command line lists it.
pub(crate) fn record(
    deployment: &Deployment,
    installed: &Installed,
    namespace: &str,
    key: &str,
) -> Value {
    let list = ["storage", "list", "--values", &installed.install, namespace];
    deployment
        .ok(&list)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|record| record["key"] == key)
        .unwrap_or_else(|| panic!("there is no {key} in {namespace}"))
}

/// Moves the end of all records that have one into the past. No server may be running.
pub(crate) fn expire_records(deployment: &Deployment) {
    let database = Connection::open(deployment.data().join("storage.sqlite3")).unwrap();
    let past = "UPDATE ext_storage_records SET expires_at = 1 WHERE expires_at IS NOT NULL;
                UPDATE ext_storage_usage SET next_expiry = 1 WHERE next_expiry IS NOT NULL;";
    database.execute_batch(past).unwrap();
}

/// Copies a folder, except what an author's own build has put into `dist`.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if !entry.path().is_dir() {
            fs::copy(entry.path(), target)?;
        } else if entry.file_name() != "dist" {
            copy(&entry.path(), &target)?;
        }
    }
    Ok(())
}

/// A digest of the names and contents of all files in a folder.
fn digest(folder: &Path) -> io::Result<ContentHash> {
    let mut entries: Vec<_> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    entries.sort();
    let mut hasher = ContentHasher::new();
    for entry in entries {
        let contents = if entry.is_dir() {
            digest(&entry)?
        } else {
            ContentHash::of(&fs::read(&entry)?)
        };
        hasher.update(entry.file_name().unwrap().as_encoded_bytes());
        hasher.update(contents.as_bytes());
    }
    Ok(hasher.finish())
}
