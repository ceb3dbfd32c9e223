//! `alga-runner bundle keygen`, and the secret keys it makes.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alga_bundles::{PublicKey, Signature};
use alga_model::Secret;
use anyhow::{Context as _, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use minisign::{KeyPair, SecretKey, SecretKeyBox};

use super::ensure_folder_of;
use crate::cli::{input, output};
use crate::config::secret_file::{self, Readers};

#[derive(Debug, Args)]
pub(in crate::cli) struct Keygen {
    /// Where the secret key goes; the public key goes to FILE.pub
    file: PathBuf,
    /// Protect the secret key with the password in this file instead of asking for one
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Leave the secret key without a password; then only the mode of its file protects it
    #[arg(long, conflicts_with = "password_file")]
    no_password: bool,
}

impl Keygen {
    /// Prints the public key.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let public_file = with_suffix(&self.file, ".pub");
        for file in [&self.file, &public_file] {
            let is_there = file.symlink_metadata().is_ok();
            ensure!(!is_there, "{} is there already", file.display());
        }
        ensure_folder_of(&self.file)?;
        let pair = self.generate()?;
        let public: PublicKey = pair.pk.to_base64().parse()?;
        let comment = format!("minisign secret key {}", public.id());
        let secret = Secret::new(pair.sk.to_box(Some(&comment))?.into_string());
        let failed = |file: &Path| format!("cannot write {}", file.display());
        secret_file::create(&self.file, secret.expose()).with_context(|| failed(&self.file))?;
        let text = format!(
            "untrusted comment: minisign public key {}\n{public}\n",
            public.id()
        );
        std::fs::write(&public_file, text).with_context(|| failed(&public_file))?;
        output::note(format_args!(
            "made the secret key {} and the public key {}",
            self.file.display(),
            public_file.display()
        ));
        output::line(public)?;
        Ok(ExitCode::SUCCESS)
    }

    fn generate(&self) -> anyhow::Result<KeyPair> {
        let pair = if self.no_password {
            KeyPair::generate_unencrypted_keypair()
        } else {
            let password = new_password(self.password_file.as_deref())?;
            KeyPair::generate_encrypted_keypair(Some(password.expose().clone()))
        };
        pair.context("cannot make a key")
    }
}

fn new_password(file: Option<&Path>) -> anyhow::Result<Secret<String>> {
    const OTHERWISE: &str =
        "--password-file names a file with it, and --no-password makes a key without one";
    let password = password(file, "Password of the new key: ", OTHERWISE)?;
    ensure!(
        !password.expose().is_empty(),
        "the password is empty; --no-password makes a key without one"
    );
    if file.is_none() {
        let again = ask("The same again: ", OTHERWISE)?;
        ensure!(
            again.expose() == password.expose(),
            "these are two passwords"
        );
    }
    Ok(password)
}

/// The secret key in a file that only its owner can read.
pub(super) fn read(file: &Path, password_file: Option<&Path>) -> anyhow::Result<SecretKey> {
    /// Algorithm of the key, of the password, of the checksum.
    const PLAIN: &[u8] = b"Ed\0\0B2";
    const ENCRYPTED: &[u8] = b"EdScB2";
    const BYTES: usize = 158;

    ensure_not_public(file)?;
    let text = secret_file::read(file, Readers::Owner)?;
    let no_key = || anyhow!("{} holds no secret key of minisign", file.display());
    let line = text.expose().lines().nth(1).unwrap_or_default();
    let bytes = Secret::new(STANDARD.decode(line).map_err(|_| no_key())?);
    ensure!(bytes.expose().len() == BYTES, no_key());
    if bytes.expose().starts_with(PLAIN) {
        // The standard tool writes no checksum here. A key that is damaged makes signatures that its
        // own public half doesn't verify, which signing looks at.
        return SecretKey::from_bytes(bytes.expose()).map_err(|_| no_key());
    }
    ensure!(bytes.expose().starts_with(ENCRYPTED), no_key());
    let otherwise = "--password-file names a file with it";
    let password = password(password_file, "Password of the key: ", otherwise)?;
    let boxed = SecretKeyBox::from_string(text.expose()).map_err(|_| no_key())?;
    let key = boxed.into_secret_key(Some(password.expose().clone()));
    key.map_err(|_| anyhow!("this is not the password of {}", file.display()))
}

/// Whoever names the other half of the pair isn't to make it secret.
fn ensure_not_public(file: &Path) -> anyhow::Result<()> {
    let Ok(text) = input::text(file, Signature::MAX_BYTES as u64) else {
        return Ok(());
    };
    ensure!(
        text.parse::<PublicKey>().is_err(),
        "{} is the public key; --key names the secret one{}",
        file.display(),
        match file.extension() {
            Some(extension) if extension == "pub" =>
                format!(", {}", file.with_extension("").display()),
            _ => String::new(),
        }
    );
    Ok(())
}

/// The password in a file, or else by whoever is there; what to do where nobody is, `otherwise` says.
fn password(file: Option<&Path>, prompt: &str, otherwise: &str) -> anyhow::Result<Secret<String>> {
    let Some(file) = file else {
        return ask(prompt, otherwise);
    };
    let text = secret_file::read(file, Readers::Group)?;
    let line = text.expose().trim_end_matches(['\r', '\n']);
    Ok(Secret::new(line.to_owned()))
}

fn ask(prompt: &str, otherwise: &str) -> anyhow::Result<Secret<String>> {
    if !std::io::stdin().is_terminal() {
        bail!("there is nobody to ask for the password; {otherwise}");
    }
    let password = rpassword::prompt_password(prompt).context("cannot read the password")?;
    Ok(Secret::new(password))
}

/// A file's name with more behind it.
pub(super) fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
