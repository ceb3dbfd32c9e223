//! Signatures: what counts as one, and what publishing does without.

use std::fs;
use std::io::Write as _;
use std::process::Command;

use alga_bundles::{
    PublicKey, PublishError, PublishRequest, Published, Signature, SignatureError, SignaturePolicy,
    SignatureRules, Statement, publish,
};
use alga_model::ContentHash;
use serde_json::json;

use crate::publish::{Scene, with_manifest};
use crate::support::{COMPONENT, Room, Tar, Verdict, manifest};

/// What minisign 0.11 wrote about a bundle with the bytes `a bundle`.
const KEY_FILE: &str = "untrusted comment: minisign public key B273C39FFCD8B6A4
RWSkttj8n8NzstI4NSitL4HcItTPed+8BS7pcLY1vr8ylixhMg1C5i9d
";
const SIGNATURE: &str = "untrusted comment: signature from minisign secret key
RUSkttj8n8NzsuEQxPd+pE6idQW7Z5Ta9f++MV+KHfKlm+PNCNfp5C5lUGy7S4Qmv/FM16DkHw0DX0jSjLWbBhm6NWbsM6g9ywU=
trusted comment: com.example.notes 1.2.0
Q2+6NNoBEuuvsYMhr+RCrJaz8aYLN7DL0C4xEYEkJzPVWnhNEFaFrQFnuTQfiZA8AWzcFmIgtHWCf7SLbtA0Dg==
";
/// The same with `-l`.
const LEGACY_SIGNATURE: &str = "untrusted comment: signature from minisign secret key
RWSkttj8n8NzsryhQvzKOCY2OspzK91W7ShWj/UMxDZuPHvS+1qVWMZo63POaCoIs17bHvb/4JWw1A4PjVuSlEIyGy2KQsKQmAw=
trusted comment: timestamp:1795365054\tfile:statement
Y9DbMva6P/KOeGqZNpOnTkoB4TSiurnSKuYE1/a4U5CEAzV4xBvvltHz1WuEeGZ3ShCLeihGGZjZV7ngnaUGAw==
";

fn known() -> (PublicKey, Statement) {
    let statement = Statement::new(ContentHash::of(b"a bundle"), None);
    (KEY_FILE.parse().unwrap(), statement)
}

/// A key pair that is made for a test.
struct Publisher(minisign::KeyPair);

impl Publisher {
    fn new() -> Self {
        Self(minisign::KeyPair::generate_unencrypted_keypair().unwrap())
    }

    fn key(&self) -> PublicKey {
        self.0.pk.to_base64().parse().unwrap()
    }

    /// Another key with the same id.
    fn key_of(&self, other: &Self) -> PublicKey {
        let mut bytes = self.0.pk.to_bytes();
        bytes[2..10].copy_from_slice(other.0.pk.keynum());
        let key = minisign::PublicKey::from_bytes(&bytes).unwrap();
        key.to_base64().parse().unwrap()
    }

    fn sign(&self, statement: &Statement) -> Vec<u8> {
        self.sign_text(&statement.to_string())
    }

    fn sign_text(&self, text: &str) -> Vec<u8> {
        minisign::sign(
            None,
            &self.0.sk,
            text.as_bytes(),
            Some("a test"),
            Some("a test"),
        )
        .unwrap()
        .to_string()
        .into_bytes()
    }
}

fn verify(
    signature: &[u8],
    statement: &Statement,
    keys: &[PublicKey],
) -> Result<(), SignatureError> {
    Signature::parse(signature)?.verify(statement, keys)
}

#[test]
fn a_statement_names_the_content_line_by_line() {
    let hash = ContentHash::of(b"a bundle");
    assert_eq!(
        Statement::new(hash, None).to_string(),
        format!("alga-bundle-signature-v1\nbundle {hash}\nmanifest inside\n")
    );
    let manifest = ContentHash::of(b"{}");
    assert_eq!(
        Statement::new(hash, Some(b"{}")).to_string(),
        format!("alga-bundle-signature-v1\nbundle {hash}\nmanifest {manifest}\n")
    );
}

#[test]
fn what_the_standard_tool_wrote_counts() {
    let (key, statement) = known();
    assert_eq!(key.id().to_string(), "B273C39FFCD8B6A4");
    assert_eq!(key.to_string().parse(), Ok(key.clone()));
    let signature = Signature::parse(SIGNATURE.as_bytes()).unwrap();
    assert_eq!(signature.key_id(), key.id());
    assert_eq!(signature.trusted_comment(), "com.example.notes 1.2.0");
    assert_eq!(signature.verify(&statement, &[key]), Ok(()));
}

#[test]
fn the_older_kind_of_signature_does_not_count() {
    assert_eq!(
        Signature::parse(LEGACY_SIGNATURE.as_bytes()).unwrap_err(),
        SignatureError::Legacy
    );
}

#[test]
fn no_bit_but_those_of_the_first_comment_can_be_flipped() {
    let (key, statement) = known();
    let keys = [key];
    let free = "untrusted comment: ".len()..SIGNATURE.find('\n').unwrap();
    for at in 0..SIGNATURE.len() {
        for bit in 0..8 {
            let mut flipped = SIGNATURE.as_bytes().to_vec();
            flipped[at] ^= 1 << bit;
            let verified = verify(&flipped, &statement, &keys);
            // Whoever flips a bit there says nothing about the content.
            if !free.contains(&at) {
                assert!(verified.is_err(), "bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn what_is_not_written_as_minisign_does_is_malformed() {
    let lines: Vec<_> = SIGNATURE.lines().collect();
    let (without_last, _) = SIGNATURE.split_at(SIGNATURE.len() - lines[3].len() - 1);
    let long = SIGNATURE.replacen("signature from", &"x".repeat(Signature::MAX_BYTES), 1);
    let other_algorithm = SIGNATURE.replacen("RUS", "RVS", 1);
    for text in [
        "",
        "\n\n\n\n",
        "RUSkttj8",
        without_last,
        &format!("{SIGNATURE}\n"),
        &format!("{SIGNATURE}{SIGNATURE}"),
        &SIGNATURE.replacen("untrusted", "Untrusted", 1),
        &SIGNATURE.replacen("\ntrusted comment: ", "\ntrusted comment:", 1),
        &SIGNATURE.replacen("ywU=", "ywU", 1),
        // The same bytes in another spelling.
        &SIGNATURE.replacen("ywU=", "ywV=", 1),
        &SIGNATURE.replacen("RUS", " RUS", 1),
        &SIGNATURE.replacen("0Dg==", "0Dh==", 1),
        &other_algorithm,
        &long,
    ] {
        assert_eq!(
            Signature::parse(text.as_bytes()).unwrap_err(),
            SignatureError::Malformed,
            "{text}"
        );
    }
    assert!(Signature::parse(b"untrusted comment: \xff\n").is_err());
    assert!(Signature::parse(SIGNATURE.replace('\n', "\r\n").as_bytes()).is_ok());
}

#[test]
fn what_is_no_public_key_is_told_so() {
    let (key, _) = known();
    let line = key.to_string();
    for text in [
        &line,
        &format!(" {line}\n"),
        &KEY_FILE.replace('\n', "\r\n"),
    ] {
        assert_eq!(text.parse(), Ok(key.clone()), "{text}");
    }
    for text in [
        "",
        "untrusted comment: minisign public key",
        &line[..55],
        &format!("{line}A"),
        &line.replacen("RWS", "XWS", 1),
        &format!("{line}\n{line}"),
        SIGNATURE,
    ] {
        assert!(text.parse::<PublicKey>().is_err(), "{text}");
    }
}

#[test]
fn only_the_content_that_was_signed_counts() {
    let publisher = Publisher::new();
    let keys = [publisher.key()];
    let hash = ContentHash::of(b"a bundle");
    let inside = Statement::new(hash, None);
    let beside = Statement::new(hash, Some(b"{}"));
    let mismatch = Err(SignatureError::Mismatch(keys[0].id()));
    assert_eq!(verify(&publisher.sign(&inside), &inside, &keys), Ok(()));
    assert_eq!(verify(&publisher.sign(&beside), &beside, &keys), Ok(()));
    for (signed, claimed) in [
        (inside, beside),
        (beside, inside),
        (beside, Statement::new(hash, Some(b"{ }"))),
        (
            inside,
            Statement::new(ContentHash::of(b"another bundle"), None),
        ),
    ] {
        assert_eq!(verify(&publisher.sign(&signed), &claimed, &keys), mismatch);
    }
    // Nor does what the publisher signed for another purpose.
    for text in ["a bundle", &hash.to_string(), inside.to_string().trim_end()] {
        assert_eq!(verify(&publisher.sign_text(text), &inside, &keys), mismatch);
    }
}

#[test]
fn any_key_of_the_publisher_counts_and_no_other() {
    let (old, new, stranger) = (Publisher::new(), Publisher::new(), Publisher::new());
    let (_, statement) = known();
    let keys = [old.key(), new.key()];
    assert_eq!(verify(&old.sign(&statement), &statement, &keys), Ok(()));
    assert_eq!(verify(&new.sign(&statement), &statement, &keys), Ok(()));
    let unknown = Err(SignatureError::UnknownKey(stranger.key().id()));
    assert_eq!(
        verify(&stranger.sign(&statement), &statement, &keys),
        unknown
    );
    assert_eq!(verify(&stranger.sign(&statement), &statement, &[]), unknown);
    // An id proves nothing, and a stranger who takes it keeps nobody out.
    let impostor = stranger.key_of(&old);
    assert_eq!(
        verify(
            &old.sign(&statement),
            &statement,
            std::slice::from_ref(&impostor)
        ),
        Err(SignatureError::Mismatch(old.key().id()))
    );
    let both = [impostor, old.key()];
    assert_eq!(verify(&old.sign(&statement), &statement, &both), Ok(()));
}

/// A scene in which `Example Ltd` has keys.
fn scene(policy: SignaturePolicy, keys: Vec<PublicKey>) -> Scene {
    Scene {
        signatures: SignatureRules {
            policy,
            publishers: [("Example Ltd".to_owned(), keys)].into(),
        },
        ..Scene::new()
    }
}

async fn publish_signed(
    scene: &Scene,
    bundle: &[u8],
    signature: Option<Vec<u8>>,
) -> Result<Published, PublishError> {
    let file = scene.file(bundle);
    let request = PublishRequest {
        signature,
        ..PublishRequest::new(&file)
    };
    publish(request, scene.context()).await
}

fn warned(published: &Published) -> Vec<(&str, &str)> {
    let warnings = published.warnings.iter();
    warnings
        .map(|it| (it.path.as_str(), it.message.as_str()))
        .collect()
}

#[tokio::test]
async fn where_signatures_are_required_nothing_gets_in_without() {
    let (publisher, other) = (Publisher::new(), Publisher::new());
    let bundle = Tar::valid().zst();
    let statement = Statement::new(ContentHash::of(&bundle), None);
    let mut scene = scene(SignaturePolicy::Require, vec![publisher.key()]);
    scene
        .signatures
        .publishers
        .insert("Somebody Else".to_owned(), vec![other.key()]);
    for (signature, code) in [
        (None, "SIGNATURE_REQUIRED"),
        (Some(b"".to_vec()), "SIGNATURE_INVALID"),
        (Some(other.sign(&statement)), "SIGNATURE_INVALID"),
        (Some(publisher.sign(&known().1)), "SIGNATURE_INVALID"),
        (Some(LEGACY_SIGNATURE.into()), "SIGNATURE_INVALID"),
    ] {
        let error = publish_signed(&scene, &bundle, signature)
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(scene.stored().is_empty());
        assert!(scene.registry.versions.lock().unwrap().is_empty());
    }
    let signature = publisher.sign(&statement);
    let published = publish_signed(&scene, &bundle, Some(signature))
        .await
        .unwrap();
    assert_eq!(published.warnings, []);

    // A publisher without keys can't sign, whatever it is called.
    let mut stranger = manifest();
    stranger["name"] = json!("com.example.other");
    stranger["publisher"] = json!("example ltd");
    let bundle = with_manifest(&stranger).zst();
    let signature = publisher.sign(&Statement::new(ContentHash::of(&bundle), None));
    let error = publish_signed(&scene, &bundle, Some(signature))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "SIGNATURE_INVALID");
}

#[tokio::test]
async fn what_nobody_vouches_for_is_not_compiled() {
    let scene = Scene {
        verdict: Verdict::Bad("it was looked at"),
        ..scene(SignaturePolicy::Require, Vec::new())
    };
    let error = publish_signed(&scene, &Tar::valid().zst(), None)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "SIGNATURE_REQUIRED");
}

#[tokio::test]
async fn where_signatures_are_wished_for_their_lack_is_a_warning() {
    let publisher = Publisher::new();
    let scene = scene(SignaturePolicy::Warn, vec![publisher.key()]);
    let bundle = Tar::valid().zst();
    let unsigned = publish_signed(&scene, &bundle, None).await.unwrap();
    assert_eq!(
        warned(&unsigned),
        [("/publisher", "the bundle is not signed")]
    );
    let stale = publisher.sign(&known().1);
    let wrong = publish_signed(&scene, &bundle, Some(stale)).await.unwrap();
    assert_eq!(
        warned(&wrong),
        [(
            "/publisher",
            format!(
                "the signature is not accepted: it is not one of this content by the key {}",
                publisher.key().id()
            )
            .as_str()
        )]
    );
    let signature = publisher.sign(&Statement::new(ContentHash::of(&bundle), None));
    let signed = publish_signed(&scene, &bundle, Some(signature))
        .await
        .unwrap();
    assert_eq!(signed.warnings, []);
}

#[tokio::test]
async fn where_signatures_are_not_looked_at_nobody_is_told_otherwise() {
    let scene = scene(SignaturePolicy::Off, Vec::new());
    let bundle = Tar::valid().zst();
    let unsigned = publish_signed(&scene, &bundle, None).await.unwrap();
    assert_eq!(unsigned.warnings, []);
    let signed = publish_signed(&scene, &bundle, Some(b"x".to_vec()))
        .await
        .unwrap();
    assert_eq!(warned(&signed)[0].0, "/publisher");
}

#[tokio::test]
async fn the_manifest_that_comes_beside_a_bundle_is_signed_with_it() {
    let publisher = Publisher::new();
    let scene = scene(SignaturePolicy::Require, vec![publisher.key()]);
    let bundle = Tar::new().file("dist/main.wasm", COMPONENT).zst();
    let hash = ContentHash::of(&bundle);
    let file = scene.file(&bundle);
    let sent = manifest().to_string().into_bytes();
    let publish_with = |statement| {
        let request = PublishRequest {
            manifest_json: Some(sent.clone()),
            signature: Some(publisher.sign(&statement)),
            ..PublishRequest::new(&file)
        };
        publish(request, scene.context())
    };
    for wrong in [
        Statement::new(hash, None),
        Statement::new(hash, Some(b"{}")),
    ] {
        let error = publish_with(wrong).await.unwrap_err();
        assert_eq!(error.code(), "SIGNATURE_INVALID");
    }
    publish_with(Statement::new(hash, Some(&sent)))
        .await
        .unwrap();
}

#[test]
fn the_standard_tool_and_we_understand_each_other() {
    let room = Room::new();
    let run = |arguments: &[&str]| {
        Command::new("minisign")
            .current_dir(room.path(""))
            .args(arguments)
            .output()
    };
    if run(&["-v"]).is_err() {
        // What it wrote once is tested everywhere.
        writeln!(std::io::stderr(), "skipped: minisign is not installed").unwrap();
        return;
    }
    let ok =
        |arguments: &[&str]| assert!(run(arguments).unwrap().status.success(), "{arguments:?}");
    let (_, statement) = known();
    room.write("statement", statement.to_string().as_bytes());

    ok(&["-G", "-W", "-p", "theirs.pub", "-s", "theirs.key"]);
    ok(&[
        "-S",
        "-s",
        "theirs.key",
        "-m",
        "statement",
        "-x",
        "theirs.minisig",
    ]);
    let key: PublicKey = fs::read_to_string(room.path("theirs.pub"))
        .unwrap()
        .parse()
        .unwrap();
    let signature = fs::read(room.path("theirs.minisig")).unwrap();
    assert_eq!(verify(&signature, &statement, &[key]), Ok(()));

    let publisher = Publisher::new();
    room.write("ours.minisig", &publisher.sign(&statement));
    let key = publisher.key().to_string();
    ok(&["-V", "-P", &key, "-m", "statement", "-x", "ours.minisig"]);
    room.write("statement", b"something else");
    assert!(
        !run(&["-V", "-P", &key, "-m", "statement", "-x", "ours.minisig"])
            .unwrap()
            .status
            .success()
    );
}
