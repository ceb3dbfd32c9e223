//! Commands that ask a server behind something that terminates TLS.

use std::path::PathBuf;
use std::process::Output;

use crate::deployment::{Deployment, path};
use crate::tls::{Authority, in_front_of};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_asks_only_a_server_that_it_can_trust() {
    let deployment = Deployment::started();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let port = in_front_of(&deployment, ours.acceptor("http/1.1")).await;
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
