//! Who publishes: names that belong to somebody, and what somebody signed.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use alga_e2e::guest;
use serde_json::{Value, json};

use crate::deployment::{Deployment, path};

/// A bundle of `com.example.echo` by this publisher.
fn pack(deployment: &Deployment, publisher: &str, version: &str, more: &str) -> PathBuf {
    let folder = deployment.scratch(&format!("{publisher} {version} {more}"));
    let manifest = json!({
        "name": "com.example.echo",
        "publisher": publisher,
        "version": version,
        "runtime": "wasm-component@1",
    });
    fs::create_dir_all(folder.join("dist")).unwrap();
    fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
    fs::write(folder.join("dist/main.wasm"), guest::echo()).unwrap();
    fs::write(folder.join("more"), more).unwrap();
    let bundle = deployment.scratch(&format!("{publisher} {version} {more}.tar.zst"));
    deployment.ok(&["bundle", "pack", path(&folder), "--output", path(&bundle)]);
    bundle
}

/// A key without a password, and its public half.
fn keygen(deployment: &Deployment, name: &str) -> (PathBuf, String) {
    let key = deployment.scratch(name);
    let public = deployment.ok(&["bundle", "keygen", path(&key), "--no-password"]);
    (key, public)
}

fn sign(deployment: &Deployment, bundle: &Path, key: &Path) -> PathBuf {
    let signature = deployment.ok(&["bundle", "sign", path(bundle), "--key", path(key)]);
    assert_eq!(signature, format!("{}.minisig", path(bundle)));
    signature.into()
}

fn configure(deployment: &mut Deployment, policy: &str, publishers: &[(&str, &[&str])]) {
    let tables: Vec<_> = publishers
        .iter()
        .map(|(name, keys)| format!("'{name}' = {{ keys = {} }}", Value::from(*keys)))
        .collect();
    let table = format!("{{ {} }}", tables.join(", "));
    deployment.set("ALGA_BUNDLES_PUBLISHERS", &table);
    deployment.set("ALGA_BUNDLES_SIGNATURES_POLICY", policy);
}

#[test]
fn where_signatures_are_required_only_the_publisher_publishes() {
    let mut deployment = Deployment::new();
    let (key, public) = keygen(&deployment, "key");
    let (other_key, other_public) = keygen(&deployment, "other");
    let publishers: [(&str, &[&str]); 2] =
        [("Example Ltd", &[&public]), ("Other", &[&other_public])];
    configure(&mut deployment, "require", &publishers);
    let bundle = pack(&deployment, "Example Ltd", "1.0.0", "");
    let next = pack(&deployment, "Example Ltd", "1.1.0", "");

    for command in ["verify", "add"] {
        let error = deployment.fails(&["bundle", command, path(&bundle)]);
        assert!(error.contains("SIGNATURE_REQUIRED"), "{command}: {error}");
    }
    sign(&deployment, &bundle, &other_key);
    for command in ["verify", "add"] {
        let error = deployment.fails(&["bundle", command, path(&bundle)]);
        assert!(error.contains("SIGNATURE_INVALID"), "{command}: {error}");
        assert!(
            error.contains("none of the publisher's"),
            "{command}: {error}"
        );
    }
    let listed = deployment.ok(&["extension", "list"]);
    assert_eq!(listed.lines().count(), 1, "nothing was published: {listed}");

    let signature = sign(&deployment, &bundle, &key);
    let verified = deployment.run(&["bundle", "verify", path(&bundle)]);
    assert!(verified.status.success());
    let said = String::from_utf8(verified.stderr).unwrap();
    assert!(said.contains("signed by Example Ltd"), "{said}");
    assert!(said.contains("extension:com.example.echo 1.0.0"), "{said}");
    let added = deployment.run(&["bundle", "add", path(&bundle)]);
    assert!(added.status.success());
    let said = String::from_utf8(added.stderr).unwrap();
    assert!(!said.contains("warning"), "{said}");

    // A signature is of one content; that of another version is none of this one's.
    let error = deployment.fails(&[
        "bundle",
        "add",
        path(&next),
        "--signature",
        path(&signature),
    ]);
    assert!(error.contains("SIGNATURE_INVALID"), "{error}");
    let missing = deployment.scratch("missing");
    let error = deployment.fails(&["bundle", "add", path(&next), "--signature", path(&missing)]);
    assert!(error.contains("missing"), "{error}");
}

#[test]
fn where_signatures_are_not_required_their_lack_is_said_or_not() {
    let mut deployment = Deployment::new();
    let (key, public) = keygen(&deployment, "key");
    let bundle = pack(&deployment, "Example Ltd", "1.0.0", "");
    let said = |deployment: &Deployment, arguments: &[&str]| {
        let output = deployment.run(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let add = ["bundle", "add", path(&bundle)];
    assert!(!said(&deployment, &add).contains("sign"));
    configure(&mut deployment, "warn", &[("Example Ltd", &[&public])]);
    assert!(
        said(&deployment, &add)
            .contains("warning: manifest.json/publisher: the bundle is not signed")
    );
    assert!(
        said(&deployment, &["bundle", "verify", path(&bundle)])
            .contains("warning: the bundle is not signed")
    );
    sign(&deployment, &bundle, &key);
    assert!(!said(&deployment, &add).contains("warning"));
}

#[test]
fn whoever_has_a_public_key_can_verify_without_any_setting() {
    let deployment = Deployment::new();
    let (key, _) = keygen(&deployment, "key");
    let (_, _) = keygen(&deployment, "other");
    let bundle = pack(&deployment, "Example Ltd", "1.0.0", "");
    let verify = |key: &str| {
        let key = deployment.scratch(key);
        deployment.run(&[
            "bundle",
            "verify",
            path(&bundle),
            "--public-key",
            path(&key),
        ])
    };
    let unsigned = String::from_utf8(verify("key.pub").stderr).unwrap();
    assert!(unsigned.contains("SIGNATURE_REQUIRED"), "{unsigned}");
    let signature = sign(&deployment, &bundle, &key);
    let verified = verify("key.pub");
    let said = String::from_utf8(verified.stderr).unwrap();
    assert!(verified.status.success(), "{said}");
    assert!(
        said.ends_with(" extension:com.example.echo 1.0.0\n"),
        "{said}"
    );
    assert!(!said.contains('\\'), "{said}");
    assert!(!verify("other.pub").status.success());
    // Who names a signature wants it verified, also where no key is configured.
    let error = deployment.fails(&[
        "bundle",
        "verify",
        path(&bundle),
        "--signature",
        path(&signature),
    ]);
    assert!(error.contains("SIGNATURE_INVALID"), "{error}");
}

#[test]
fn a_secret_key_is_for_its_owner_only_and_never_shown() {
    let deployment = Deployment::new();
    let bundle = pack(&deployment, "Example Ltd", "1.0.0", "");
    let (key, public) = keygen(&deployment, "key");
    let secret = fs::read_to_string(&key).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let public_file = fs::read_to_string(deployment.scratch("key.pub")).unwrap();
    assert_eq!(public_file.lines().nth(1), Some(public.as_str()));
    let error = deployment.fails(&["bundle", "keygen", path(&key), "--no-password"]);
    assert!(error.contains("is there already"), "{error}");

    let error = deployment.fails(&["bundle", "keygen", "nodir/x.key", "--no-password"]);
    assert!(error.contains("there is no folder nodir"), "{error}");
    let public_key = deployment.scratch("key.pub");
    let by_public = ["bundle", "sign", path(&bundle), "--key", path(&public_key)];
    let error = deployment.fails(&by_public);
    assert!(
        error.contains("key.pub is the public key") && error.contains(path(&key)),
        "{error}"
    );

    let sign = ["bundle", "sign", path(&bundle), "--key", path(&key)];
    let elsewhere = [&sign[..], &["--output", "nodir/x.minisig"]].concat();
    let error = deployment.fails(&elsewhere);
    assert!(error.contains("there is no folder nodir"), "{error}");
    for mode in [0o604, 0o640] {
        fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        let error = deployment.fails(&sign);
        assert!(error.contains("lets others read it"), "{error}");
        assert!(!error.contains(secret), "{error}");
    }
    fs::write(&key, "untrusted comment: x\nnonsense\n").unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let error = deployment.fails(&sign);
    assert!(error.contains("holds no secret key"), "{error}");
}

#[test]
fn the_password_of_a_key_comes_from_a_file_or_from_a_person() {
    let deployment = Deployment::new();
    let bundle = pack(&deployment, "Example Ltd", "1.0.0", "");
    let password = |name: &str, text: &str| {
        let file = deployment.scratch(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        file
    };
    let (right, wrong) = (
        password("right", "open sesame\n"),
        password("wrong", "open\n"),
    );
    let key = deployment.scratch("key");
    let error = deployment.fails(&["bundle", "keygen", path(&key)]);
    assert!(error.contains("nobody to ask") && !key.exists(), "{error}");
    assert!(
        error.contains("--password-file") && error.contains("--no-password"),
        "{error}"
    );
    let empty = password("empty", "\n");
    let error = deployment.fails(&[
        "bundle",
        "keygen",
        path(&key),
        "--password-file",
        path(&empty),
    ]);
    assert!(error.contains("is empty"), "{error}");
    deployment.ok(&[
        "bundle",
        "keygen",
        path(&key),
        "--password-file",
        path(&right),
    ]);
    let sign = ["bundle", "sign", path(&bundle), "--key", path(&key)];
    let error = deployment.fails(&sign);
    assert!(error.contains("nobody to ask"), "{error}");
    let with = |file: &'static str| {
        let file = deployment.scratch(file);
        deployment.run(&[&sign[..], &["--password-file", path(&file)]].concat())
    };
    let refused = String::from_utf8(with("wrong").stderr).unwrap();
    assert!(refused.contains("not the password"), "{refused}");
    assert!(with("right").status.success());
    fs::set_permissions(&wrong, Permissions::from_mode(0o644)).unwrap();
    let exposed = String::from_utf8(with("wrong").stderr).unwrap();
    assert!(exposed.contains("lets others read it"), "{exposed}");
}

#[test]
fn a_manifest_beside_a_bundle_is_stated_with_it() {
    let deployment = Deployment::new();
    let bundle = pack(&deployment, "Example Ltd", "1.0.0", "");
    let hash = deployment.ok(&["bundle", "verify", path(&bundle)]);
    let statement = deployment.ok(&["bundle", "statement", path(&bundle)]);
    assert_eq!(
        statement,
        format!("alga-bundle-signature-v1\nbundle {hash}\nmanifest inside")
    );
    let manifest = deployment.scratch("manifest.json");
    fs::write(&manifest, "{}").unwrap();
    let beside = [
        "bundle",
        "statement",
        path(&bundle),
        "--manifest",
        path(&manifest),
    ];
    let error = deployment.fails(&beside);
    assert!(error.contains("another one would not be used"), "{error}");
}

/// Runs the standard tool; nothing where it is not installed.
fn minisign(arguments: &[&str], password: &str) -> Option<bool> {
    let mut tool = Command::new("minisign")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdin = tool.stdin.take().unwrap();
    // It need not ask for one.
    let _ = stdin.write_all(password.as_bytes());
    drop(stdin);
    Some(tool.wait().unwrap().success())
}

#[test]
fn the_standard_tool_reads_and_writes_the_same_files() {
    let deployment = Deployment::new();
    if minisign(&["-v"], "").is_none() {
        eprintln!("skipped: minisign is not installed");
        return;
    }
    let bundle = pack(&deployment, "Example Ltd", "1.0.0", "");
    let file = |name: &str| path(&deployment.scratch(name)).to_owned();
    fs::write(
        deployment.scratch("statement"),
        deployment
            .run(&["bundle", "statement", path(&bundle)])
            .stdout,
    )
    .unwrap();
    let (statement, theirs, theirs_pub) = (file("statement"), file("theirs"), file("theirs.pub"));
    let signature = format!("{}.minisig", path(&bundle));

    assert_eq!(
        minisign(&["-G", "-W", "-p", &theirs_pub, "-s", &theirs], ""),
        Some(true)
    );
    sign(&deployment, &bundle, Path::new(&theirs));
    let verify = ["-V", "-p", &theirs_pub, "-m", &statement, "-x", &signature];
    assert_eq!(minisign(&verify, ""), Some(true));

    let password = deployment.scratch("password");
    fs::write(&password, "open sesame").unwrap();
    fs::set_permissions(&password, Permissions::from_mode(0o600)).unwrap();
    let (ours, ours_pub) = (file("ours"), file("ours.pub"));
    deployment.ok(&[
        "bundle",
        "keygen",
        &ours,
        "--password-file",
        path(&password),
    ]);
    let sign = ["-S", "-s", &ours, "-m", &statement, "-x", &signature];
    assert_eq!(minisign(&sign, "open sesame\n"), Some(true));
    deployment.ok(&["bundle", "verify", path(&bundle), "--public-key", &ours_pub]);
}

#[test]
fn a_name_belongs_to_the_publisher_of_its_first_version() {
    let deployment = Deployment::new();
    let first = pack(&deployment, "Example Ltd", "1.0.0", "");
    deployment.ok(&["bundle", "add", path(&first)]);
    for version in ["1.0.0", "2.0.0"] {
        let foreign = pack(&deployment, "Mallory", version, "");
        let error = deployment.fails(&["bundle", "add", path(&foreign)]);
        assert!(error.contains("PUBLISHER_MISMATCH"), "{error}");
    }
    let next = pack(&deployment, "Example Ltd", "2.0.0", "");
    deployment.ok(&["bundle", "add", path(&next)]);
}

#[test]
fn of_publishers_who_race_for_a_name_one_gets_it() {
    let deployment = Deployment::new();
    deployment.ok(&["migrate", "up"]);
    let bundles: Vec<_> = (0..4)
        .map(|number| pack(&deployment, &format!("Publisher {number}"), "1.0.0", ""))
        .collect();
    let racers: Vec<_> = bundles
        .iter()
        .map(|bundle| {
            deployment
                .command(&["bundle", "add", path(bundle)])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let outcomes: Vec<_> = racers
        .into_iter()
        .map(|racer| racer.wait_with_output().unwrap())
        .collect();
    let won = outcomes.iter().filter(|it| it.status.success()).count();
    assert_eq!(won, 1, "{outcomes:?}");
    for lost in outcomes.iter().filter(|it| !it.status.success()) {
        let said = String::from_utf8_lossy(&lost.stderr);
        assert!(said.contains("PUBLISHER_MISMATCH"), "{said}");
    }
    // The one who got it goes on, the others don't.
    let winner = outcomes.iter().position(|it| it.status.success()).unwrap();
    for (number, _) in bundles.iter().enumerate() {
        let next = pack(&deployment, &format!("Publisher {number}"), "1.1.0", "");
        let added = deployment.run(&["bundle", "add", path(&next)]);
        assert_eq!(added.status.success(), number == winner);
    }
}

/// A bundle without a manifest, as other tools make it: a tar archive with the component alone, in a zstd
/// frame of blocks that are not compressed (RFC 8878, section 3.1.1).
fn without_manifest(component: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    let mut field =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    field(0, "dist/main.wasm");
    field(100, "0000644\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, &format!("{:011o}\0", component.len()));
    field(136, "00000000000\0");
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\x0000");
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = vec![0; component.len().next_multiple_of(512) - component.len() + 1024];
    let tar = [&header[..], component, &padding].concat();

    let size = u32::try_from(tar.len()).unwrap();
    // One segment, whose size follows in four bytes.
    let mut frame = [&[0x28, 0xB5, 0x2F, 0xFD, 0xA0][..], &size.to_le_bytes()].concat();
    let mut blocks = tar.chunks(128 << 10).peekable();
    while let Some(block) = blocks.next() {
        let is_last = u32::from(blocks.peek().is_none());
        let head = u32::try_from(block.len()).unwrap() << 3 | is_last;
        frame.extend_from_slice(&head.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

#[test]
fn a_bundle_whose_manifest_comes_beside_it_is_verified_before_and_pushed_with_its_signature() {
    let mut deployment = Deployment::new();
    let (key, public) = keygen(&deployment, "key");
    configure(&mut deployment, "require", &[("Example Ltd", &[&public])]);
    deployment.start();
    let bundle = deployment.scratch("bare.tar.zst");
    fs::write(&bundle, without_manifest(&guest::echo())).unwrap();
    let manifest = deployment.scratch("beside.json");
    let content = json!({
        "name": "com.example.echo",
        "publisher": "Example Ltd",
        "version": "1.0.0",
        "runtime": "wasm-component@1",
    });
    fs::write(&manifest, content.to_string()).unwrap();
    let beside = ["--manifest", path(&manifest)];
    let token = deployment.data().join("admin.token");
    let token = ["--token-file", path(&token), "--server", deployment.url()];
    let verify = ["bundle", "verify", path(&bundle)];
    let push = [&["bundle", "push", path(&bundle)][..], &token].concat();

    let error = deployment.fails(&verify);
    assert!(error.contains("no manifest.json"), "{error}");
    let error = deployment.fails(&[&verify[..], &beside].concat());
    assert!(error.contains("SIGNATURE_REQUIRED"), "{error}");
    let error = deployment.fails(&[&push[..], &beside].concat());
    assert!(error.contains("SIGNATURE_REQUIRED"), "{error}");
    let sign = ["bundle", "sign", path(&bundle), "--key", path(&key)];
    deployment.ok(&[&sign[..], &beside].concat());
    // The signature is beside the bundle, so that nobody has to name it.
    let hash = deployment.ok(&[&verify[..], &beside].concat());
    assert_eq!(deployment.ok(&[&push[..], &beside].concat()), hash);

    fs::write(&manifest, content.to_string().replace("1.0.0", "1.0.1")).unwrap();
    let error = deployment.fails(&[&verify[..], &beside].concat());
    assert!(error.contains("SIGNATURE_INVALID"), "{error}");
    let error = deployment.fails(&[&push[..], &beside].concat());
    assert!(error.contains("SIGNATURE_INVALID"), "{error}");
    assert!(
        error.contains("have the operator add the key to `bundles.publishers`"),
        "{error}"
    );
    let complete = pack(&deployment, "Example Ltd", "2.0.0", "");
    let error = deployment.fails(&[&["bundle", "verify", path(&complete)][..], &beside].concat());
    assert!(error.contains("has a manifest"), "{error}");
}
