//! A server that speaks TLS only.

use std::path::{Path, PathBuf};

use alga_postgres::{DriverError, PostgresError};
use alga_test_postgres::DurableServer;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sqlx::PgConnection;
use tempfile::TempDir;

use crate::{chain, open, options};

/// Made by `openssl x509 -req -signkey`, which makes no other version without extensions. Nobody uses the key for
/// anything else.
const VERSION_1: (&str, &str) = (
    include_str!("certificates/version-1.crt"),
    include_str!("certificates/version-1.key"),
);

/// Vouches for servers.
type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server whose certificate names `host`.
fn server_named(host: &str, authority: &Authority) -> DurableServer {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([host.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    DurableServer::start_with_tls(&certificate.pem(), &key.serialize_pem())
}

fn file_of(authority: &Authority, folder: &TempDir, name: &str) -> PathBuf {
    let file = folder.path().join(name);
    std::fs::write(&file, authority.pem()).unwrap();
    file
}

/// Whether the server says that a connection is encrypted.
async fn is_encrypted(url: &str) -> Result<bool, PostgresError> {
    const ENCRYPTED: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let database = open(&options(url)).await?;
    let asking = database.read(async |connection: &mut PgConnection| {
        let encrypted = sqlx::query_scalar(ENCRYPTED).fetch_one(connection).await;
        Ok::<_, DriverError>(encrypted?)
    });
    Ok(asking.await.unwrap())
}

async fn is_refused(url: &str) -> bool {
    let PostgresError::Driver { source, .. } = is_encrypted(url).await.unwrap_err() else {
        return false;
    };
    matches!(
        source,
        DriverError::Statement(sqlx::Error::Tls(_) | sqlx::Error::Io(_))
    )
}

#[tokio::test]
async fn a_server_is_trusted_where_its_authority_and_its_name_are_the_right_ones() {
    let (ours, theirs) = (authority(), authority());
    let folder = TempDir::new().unwrap();
    let (our_file, their_file) = (
        file_of(&ours, &folder, "ours"),
        file_of(&theirs, &folder, "theirs"),
    );
    let server = server_named("localhost", &ours);
    let at = |host: &str, mode: &str, file: Option<&Path>| {
        let url = server.url().replacen("127.0.0.1", host, 1);
        let file = file.map(|file| format!("&sslrootcert={}", file.display()));
        format!("{url}?sslmode={mode}{}", file.unwrap_or_default())
    };
    for trusting in [
        at("localhost", "verify-full", Some(&our_file)),
        at("127.0.0.1", "verify-ca", Some(&our_file)),
        at("127.0.0.1", "require", None),
    ] {
        assert!(is_encrypted(&trusting).await.unwrap(), "{trusting}");
    }
    for doubting in [
        at("127.0.0.1", "verify-full", Some(&our_file)),
        at("localhost", "verify-full", Some(&their_file)),
        at("localhost", "verify-ca", Some(&their_file)),
        // Of those that the system trusts, none vouches for it.
        at("localhost", "verify-full", None),
    ] {
        assert!(is_refused(&doubting).await, "{doubting}");
    }
    // Nothing is said in the clear to a server that wants none of it.
    is_encrypted(&at("localhost", "disable", None))
        .await
        .unwrap_err();
}

#[tokio::test]
async fn a_certificate_of_version_1_is_refused_with_what_to_do() {
    let (certificate, key) = VERSION_1;
    let server = DurableServer::start_with_tls(certificate, key);
    for mode in ["prefer", "require", "verify-full"] {
        let url = format!("{}?sslmode={mode}", server.url());
        let refused = is_encrypted(&url).await.unwrap_err();
        let told = chain(&refused);
        for expected in ["X.509 version 1", "one of version 3", "sslmode=disable"] {
            assert!(told.contains(expected), "{told}");
        }
        // Waiting for it to pass would be for nothing.
        let PostgresError::Driver { source, .. } = refused else {
            panic!("{told}");
        };
        assert!(!source.is_passing(), "{told}");
    }
}
