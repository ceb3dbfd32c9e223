//! Commands that ask a server behind something that terminates TLS.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::deployment::{Deployment, path};

/// Somebody who vouches for servers.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn pem_file(&self, deployment: &Deployment, name: &str) -> PathBuf {
        let file = deployment.scratch(name);
        std::fs::write(&file, self.0.pem()).unwrap();
        file
    }

    /// What terminates TLS as `localhost`.
    fn acceptor(&self) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Puts TLS in front of a deployment; gives the port.
async fn in_front_of(deployment: &Deployment, acceptor: TlsAcceptor) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = deployment.url().strip_prefix("http://").unwrap();
    let address: SocketAddr = address.parse().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Who doesn't trust the certificate ends it here.
                if let Ok(mut outside) = acceptor.accept(stream).await {
                    let mut inside = TcpStream::connect(address).await.unwrap();
                    let _ = copy_bidirectional(&mut outside, &mut inside).await;
                }
            });
        }
    });
    port
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_asks_only_a_server_that_it_can_trust() {
    let deployment = Deployment::started();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let port = in_front_of(&deployment, ours.acceptor()).await;
    let by_name = format!("https://localhost:{port}");
    let by_address = format!("https://127.0.0.1:{port}");
    let our_file = ours.pem_file(&deployment, "ours.pem");
    let their_file = theirs.pem_file(&deployment, "theirs.pem");
    let no_pem = deployment.scratch("no.pem");
    std::fs::write(&no_pem, "no certificate").unwrap();
    let ask = |server: &str, authorities: Option<&PathBuf>| {
        let token = deployment.data().join("admin.token");
        let list = [
            "extension",
            "list",
            "--server",
            server,
            "--token-file",
            path(&token),
        ];
        let trusting = authorities.map(|file| ["--server-ca", path(file)]);
        deployment.run(&[&list[..], trusting.as_ref().map_or(&[], |it| &it[..])].concat())
    };

    let trusted = ask(&by_name, Some(&our_file));
    assert!(trusted.status.success(), "{}", said(&trusted));
    assert_eq!(
        trusted.stdout,
        deployment.run(&["extension", "list"]).stdout
    );
    for (server, authorities, expected) in [
        (&by_name, Some(&their_file), "cannot reach the server"),
        // Without certificates in the system, there is no client at all.
        (&by_name, None, "cannot"),
        (&by_address, Some(&our_file), "cannot reach the server"),
        (&by_name, Some(&no_pem), "there is none, as PEM"),
        (
            &by_name,
            Some(&deployment.scratch("missing.pem")),
            "cannot read",
        ),
    ] {
        let refused = ask(server, authorities);
        let said = said(&refused);
        assert!(
            !refused.status.success() && said.contains(expected),
            "{said}"
        );
        assert!(!said.contains("is it running there"), "somebody is: {said}");
    }
}
