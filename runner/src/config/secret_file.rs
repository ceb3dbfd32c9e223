//! Files that hold a secret: read only if nobody else can, and made so that nobody else can.

use std::fs::{File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use alga_model::Secret;

/// Far more than any key or token needs; a log file named by mistake is not read into memory.
const MAX_BYTES: u64 = 4 << 10;

/// Who may be able to read a secret file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Its owner alone: files that the runner makes.
    Owner,
    /// Its owner and its group: files that a platform hands out to a process of another user.
    Group,
}

impl Readers {
    const fn forbidden_bits(self) -> u32 {
        match self {
            Self::Owner => 0o077,
            Self::Group => 0o007,
        }
    }
}

/// Why a secret file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It can't be opened or read.
    #[error("cannot read the secret file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It can't be made.
    #[error("cannot make the secret file {}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read it, so it is no secret.
    #[error(
        "cannot use the secret file {}: its mode {mode:04o} lets others read it (try: chmod {advice} {})",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// The permissions it should have.
        advice: &'static str,
    },
    /// It is longer than any secret.
    #[error("cannot use the secret file {}: it has more than {MAX_BYTES} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

impl SecretFileError {
    /// What is wrong, without the path: what users put where a path belongs may be the secret.
    pub(super) fn without_path(&self) -> String {
        match self {
            Self::Read { source, .. } | Self::Create { source, .. } => {
                format!("names a file that cannot be read: {source}")
            }
            Self::Exposed { mode, advice, .. } => {
                format!(
                    "names a file whose mode {mode:04o} lets others read it ({advice} is enough)"
                )
            }
            Self::TooLong { .. } => format!("names a file of more than {MAX_BYTES} bytes"),
        }
    }
}

/// The text in the file at `path`.
pub(crate) fn read(path: &Path, readers: Readers) -> Result<Secret<String>, SecretFileError> {
    let failed = |source| SecretFileError::Read {
        path: path.into(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    ensure_private(path, &file.metadata().map_err(failed)?, readers)?;
    let mut text = String::new();
    let length = file
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    let text = Secret::new(text);
    if length as u64 > MAX_BYTES {
        return Err(SecretFileError::TooLong { path: path.into() });
    }
    Ok(text)
}

/// The text in the file at `path`, which is made with the text `new` if it is missing.
///
/// Of several processes that start at once, one makes the file and all read the same.
pub(crate) fn read_or_create(
    path: &Path,
    new: impl FnOnce() -> io::Result<Secret<String>>,
) -> Result<Secret<String>, SecretFileError> {
    match read(path, Readers::Owner) {
        Err(SecretFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        answer => return answer,
    }
    let made = new().and_then(|text| create(path, text.expose()));
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(SecretFileError::Create {
                path: path.into(),
                source: error,
            })
        }
        Ok(()) | Err(_) => read(path, Readers::Owner),
    }
}

/// 32 bytes from the generator of the operating system.
pub(crate) fn random() -> io::Result<Secret<[u8; 32]>> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Secret::new(bytes))
}

/// Makes the file at `path`, whole or not at all, and only if there is none.
pub(crate) fn create(path: &Path, text: &str) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    // A temporary file is for its owner only from the moment it exists.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(unix)]
fn ensure_private(
    path: &Path,
    metadata: &Metadata,
    readers: Readers,
) -> Result<(), SecretFileError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & readers.forbidden_bits() == 0 {
        return Ok(());
    }
    Err(SecretFileError::Exposed {
        path: path.into(),
        mode,
        advice: match readers {
            Readers::Owner => "600",
            Readers::Group => "640",
        },
    })
}

#[cfg(not(unix))]
fn ensure_private(_: &Path, _: &Metadata, _: Readers) -> Result<(), SecretFileError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_missing_file_is_made_for_its_owner_only_and_then_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let made = read_or_create(&path, || Ok(secret("first"))).unwrap();
        assert_eq!(made.expose(), "first");
        assert_eq!(mode(&path), 0o600);
        let kept = read_or_create(&path, || Ok(secret("second"))).unwrap();
        assert_eq!(kept.expose(), "first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn processes_that_start_at_once_agree_on_one_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let start = Barrier::new(8);
        let secrets: Vec<String> = thread::scope(|scope| {
            let starters: Vec<_> = (0..8)
                .map(|index| {
                    let (path, start) = (&path, &start);
                    scope.spawn(move || {
                        start.wait();
                        let mine = format!("secret {index}");
                        let secret = read_or_create(path, || Ok(secret(&mine))).unwrap();
                        secret.expose().clone()
                    })
                })
                .collect();
            starters.into_iter().map(|it| it.join().unwrap()).collect()
        });
        assert!(
            secrets.iter().all(|secret| *secret == secrets[0]),
            "{secrets:?}"
        );
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "text").unwrap();
        for (bits, owner_only, with_group) in [
            (0o600, true, true),
            (0o400, true, true),
            (0o640, false, true),
            (0o604, false, false),
            (0o602, false, false),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(bits)).unwrap();
            assert_eq!(read(&path, Readers::Owner).is_ok(), owner_only, "{bits:o}");
            assert_eq!(read(&path, Readers::Group).is_ok(), with_group, "{bits:o}");
        }
        let error = read(&path, Readers::Owner).unwrap_err().to_string();
        assert!(error.contains("mode 0602 lets others read it"), "{error}");
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_file_longer_than_any_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for (length, fine) in [(4096, true), (4097, false)] {
            fs::write(&path, "x".repeat(length)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert_eq!(read(&path, Readers::Owner).is_ok(), fine, "{length}");
        }
    }

    #[test]
    fn a_secret_in_a_missing_folder_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/key");
        let error = read_or_create(&path, || Ok(secret("text"))).unwrap_err();
        assert!(matches!(error, SecretFileError::Create { .. }), "{error}");
    }
}
