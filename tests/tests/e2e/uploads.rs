//! Bundles that come over the network: sent, published, given up, cut off.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use alga_e2e::guest;
use alga_model::ContentHash;
use alga_test_s3::{Fault, Proxy};
use futures_util::future::join_all;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;

use crate::deployment::{Deployment, get, path, refusal};
use crate::running::Running;

const UPLOAD: &str = "/api/ext-bundles/upload-proxy";
pub(crate) const FINALIZE: &str = "/api/ext-bundles/finalize";
const ABORT: &str = "/api/ext-bundles/abort";
pub(crate) const ECHO: &str = "com.example.echo";
pub(crate) const MIB: usize = 1 << 20;
/// How long a test waits for what should happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Sends bytes as an upload of their size.
pub(crate) async fn upload(deployment: &Deployment, bytes: &[u8]) -> Response {
    let query = format!("filename=a.tar.zst&size={}", bytes.len());
    send(deployment, &query, bytes).await
}

pub(crate) async fn send(deployment: &Deployment, query: &str, bytes: &[u8]) -> Response {
    let request = deployment.admin(Method::POST, &format!("{UPLOAD}?{query}"));
    request.body(bytes.to_vec()).send().await.unwrap()
}

/// Sends bytes, and gives the key under which they are staged.
pub(crate) async fn staged(deployment: &Deployment, bytes: &[u8]) -> String {
    let response = upload(deployment, bytes).await;
    assert_eq!(response.status(), 200);
    let body: Value = response.json().await.unwrap();
    body["upload"]["key"].as_str().unwrap().to_owned()
}

async fn post(deployment: &Deployment, path: &str, body: &Value) -> Response {
    let request = deployment.admin(Method::POST, path).json(body);
    request.send().await.unwrap()
}

pub(crate) async fn finalize(
    deployment: &Deployment,
    body: &Value,
) -> Result<Value, (u16, String)> {
    let response = post(deployment, FINALIZE, body).await;
    if response.status() == 200 {
        Ok(response.json().await.unwrap())
    } else {
        Err(refusal(response).await)
    }
}

pub(crate) fn refused<T>(status: u16, code: &str) -> Result<T, (u16, String)> {
    Err((status, code.to_owned()))
}

/// Every file in the folder of the store, by its path in it.
fn stored(deployment: &Deployment) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        // An upload that is given up takes its folder along.
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let root = deployment.data().join("bundles");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let mut names: Vec<_> = found
        .iter()
        .map(|path| path.strip_prefix(&root).unwrap().display().to_string())
        // Says whose the store is, all the while.
        .filter(|name| name != "sha256/_owner")
        .collect();
    names.sort();
    names
}

fn of_bundle(bytes: &[u8]) -> Vec<String> {
    let hash = ContentHash::of(bytes).to_hex();
    ["bundle.tar.zst", "manifest.json"]
        .map(|file| format!("sha256/{hash}/{file}"))
        .to_vec()
}

/// Waits until there are so many files of uploads.
async fn until_staged(deployment: &Deployment, files: usize) {
    let start = Instant::now();
    loop {
        let names = stored(deployment);
        let of_uploads = names.iter().filter(|name| name.contains("_staging"));
        if of_uploads.count() == files {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{names:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn push<'a>(deployment: &'a Deployment, more: &[&'a str]) -> Vec<&'a str> {
    [&["bundle", "push", "--server", deployment.url()], more].concat()
}

fn token_file(deployment: &Deployment) -> String {
    path(&deployment.data().join("admin.token")).to_owned()
}

#[tokio::test]
async fn what_was_pushed_is_installed_and_answers() {
    let deployment = Deployment::started();
    let bundle = deployment.pack(ECHO, "1.0.0", &guest::echo());
    let token = token_file(&deployment);
    let hash = deployment.ok(&push(&deployment, &[path(&bundle), "--token-file", &token]));
    let bytes = fs::read(&bundle).unwrap();
    assert_eq!(hash, ContentHash::of(&bytes).to_string());
    assert_eq!(stored(&deployment), of_bundle(&bytes));
    // It is there already: with the same answer.
    assert_eq!(
        deployment.ok(&push(&deployment, &[path(&bundle), "--token-file", &token])),
        hash
    );
    let installed = deployment.publish(ECHO, &bundle);
    assert_eq!(installed.hash, hash);
    let answer = deployment.call(&installed, get("/")).await;
    assert_eq!(answer.status, 200);
    let metrics = deployment.metrics().await;
    for line in [
        r#"alga_bundle_uploads_total{outcome="OK"} 2"#,
        r#"alga_bundle_finalizes_total{outcome="OK"} 2"#,
        r#"alga_bundle_uploads_total{outcome="TOO_LARGE"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn a_push_that_is_refused_says_why_and_leaves_nothing() {
    let deployment = Deployment::started();
    let token = token_file(&deployment);
    let bundle = deployment.pack(ECHO, "1.0.0", b"\0asm\x0d\0\x01\0");
    let said = deployment.fails(&push(&deployment, &[path(&bundle)]));
    assert!(said.contains("UNAUTHORIZED"), "{said}");
    let with_token = [path(&bundle), "--token-file", &token];
    let said = deployment.fails(&push(&deployment, &with_token));
    assert!(said.contains("INVALID_COMPONENT"), "{said}");
    assert_eq!(stored(&deployment), Vec::<String>::new());
    let said = deployment.fails(&["bundle", "push", path(&bundle)]);
    assert!(said.contains("--server"), "{said}");
    let nobody = ["--server", "http://127.0.0.1:1"];
    let said = deployment.fails(&[&["bundle", "push", path(&bundle)][..], &nobody].concat());
    assert!(
        said.contains("because: UNANSWERED\n") && said.contains("is it running there?"),
        "{said}"
    );
}

/// A push through `proxy`, with what else is to be said.
fn pushing(deployment: &Deployment, proxy: &Proxy, file: &Path) -> Running {
    let (url, token) = (proxy.url(), token_file(deployment));
    let arguments = ["bundle", "push", path(file), "--server", &url];
    Running::start(deployment.command(&[&arguments[..], &["--token-file", &token]].concat()))
}

/// A file that is no bundle, but looks like one as far as `push` can tell.
fn large_file(deployment: &Deployment) -> PathBuf {
    let file = deployment.scratch("large.tar.zst");
    let bytes = [&[0x28_u8, 0xB5, 0x2F, 0xFD][..], &vec![7; 32 * MIB]].concat();
    fs::write(&file, bytes).unwrap();
    file
}

/// A bundle that a server takes a second or so to judge, as its compiler does.
fn heavy_bundle(deployment: &Deployment) -> PathBuf {
    deployment.pack("com.example.heavy", "1.0.0", &guest::long_function(100_000))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_is_interrupted_while_it_is_sent_is_given_up() {
    let deployment = Deployment::started();
    let proxy = Proxy::before(deployment.url()).await;
    proxy.set(Fault::Slow(Duration::from_millis(100)));
    let mut push = pushing(&deployment, &proxy, &large_file(&deployment));
    until_staged(&deployment, 1).await;
    push.press_ctrl_c();
    push.until_said("interrupted; giving the upload up").await;
    push.until_said("the upload was given up").await;
    assert_eq!(push.end(), Some(130));
    // What is still on its way.
    proxy.set(Fault::None);
    until_staged(&deployment, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_whose_server_hangs_ends_with_the_second_interruption() {
    let deployment = Deployment::started();
    let proxy = Proxy::before(deployment.url()).await;
    proxy.set(Fault::Slow(Duration::from_millis(100)));
    let mut push = pushing(&deployment, &proxy, &large_file(&deployment));
    until_staged(&deployment, 1).await;
    deployment.process().freeze();
    push.press_ctrl_c();
    push.until_said("interrupted; giving the upload up").await;
    push.press_ctrl_c();
    push.until_said("cannot give the upload up").await;
    assert_eq!(push.end(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_whose_server_does_not_answer_says_that_it_waits() {
    let deployment = Deployment::started();
    let proxy = Proxy::before(deployment.url()).await;
    proxy.set(Fault::HoldAnswers(0));
    let bundle = deployment.pack(ECHO, "1.0.0", &guest::echo());
    let mut push = pushing(&deployment, &proxy, &bundle);
    push.until_said("waiting for the server to store it").await;
    proxy.set(Fault::None);
    push.press_ctrl_c();
    push.until_said("the upload was given up").await;
    assert_eq!(push.end(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_is_interrupted_while_it_is_judged_says_that_it_may_be_published() {
    let deployment = Deployment::started();
    let proxy = Proxy::before(deployment.url()).await;
    let bundle = heavy_bundle(&deployment);
    let mut push = pushing(&deployment, &proxy, &bundle);
    push.until_said("sent; the server checks").await;
    push.press_ctrl_c();
    push.until_said("may publish the bundle").await;
    assert_eq!(push.end(), Some(130));
    // And so it does.
    deployment.logged("an upload is published", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_gets_no_answer_asks_again() {
    let deployment = Deployment::started();
    let proxy = Proxy::before(deployment.url()).await;
    let bundle = heavy_bundle(&deployment);
    let mut push = pushing(&deployment, &proxy, &bundle);
    push.until_said("sent; the server checks").await;
    proxy.set(Fault::AnswersLost);
    push.until_said("asking again in 1 s").await;
    proxy.set(Fault::None);
    let hash = ContentHash::of(&fs::read(&bundle).unwrap()).to_string();
    assert_eq!(push.line().await, hash);
    assert_eq!(push.end(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_sent_is_told_so() {
    let deployment = Deployment::started();
    let proxy = Proxy::before(deployment.url()).await;
    proxy.set(Fault::Slow(Duration::from_millis(100)));
    let file = large_file(&deployment);
    let mut push = pushing(&deployment, &proxy, &file);
    until_staged(&deployment, 1).await;
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(4)
        .unwrap();
    proxy.set(Fault::None);
    push.until_said("the file changed while it was sent").await;
    assert_eq!(push.end(), Some(1));
    until_staged(&deployment, 0).await;
}

#[tokio::test]
async fn an_upload_is_staged_and_given_up() {
    let deployment = Deployment::started();
    let hash = ContentHash::of(b"bundle").to_hex();
    let query = format!("filename=b.tar.zst&size=6&declaredHash={hash}");
    let response = send(&deployment, &query, b"bundle").await;
    let body: Value = response.json().await.unwrap();
    let key = body["upload"]["key"].as_str().unwrap();
    let expected = json!({
        "upload": { "key": key, "strategy": "staging" },
        "filename": "b.tar.zst",
        "size": 6,
        "sha256": hash,
    });
    assert_eq!(body, expected);
    assert_eq!(stored(&deployment), [key]);
    for _ in 0..2 {
        let response = post(&deployment, ABORT, &json!({ "key": key })).await;
        assert_eq!(response.status(), 200);
        assert_eq!(stored(&deployment), Vec::<String>::new());
    }
    for key in [
        format!("sha256/{hash}/bundle.tar.zst"),
        "sha256/_staging/../x/bundle.tar.zst".to_owned(),
        String::new(),
    ] {
        let response = post(&deployment, ABORT, &json!({ "key": key })).await;
        let expected = (400, "BAD_REQUEST".to_owned());
        assert_eq!(refusal(response).await, expected, "{key}");
    }
}

#[tokio::test]
async fn only_administrators_may_send_and_publish() {
    let deployment = Deployment::started();
    let target = format!("{UPLOAD}?filename=a&size=1");
    for path in [target.as_str(), FINALIZE, ABORT] {
        let anonymous = deployment.anonymous(Method::POST, path).body("a");
        let answered = refusal(anonymous.send().await.unwrap()).await;
        assert_eq!(answered, (401, "UNAUTHORIZED".to_owned()), "{path}");
        let service = deployment.request(Method::POST, path).body("a");
        let answered = refusal(service.send().await.unwrap()).await;
        assert_eq!(answered, (403, "RBAC_FORBIDDEN".to_owned()), "{path}");
    }
    let acting = deployment
        .request(Method::POST, &target)
        .header("x-alga-admin", "true")
        .header("x-alga-actor", "ann");
    let response = acting.body("a").send().await.unwrap();
    assert_eq!(response.status(), 200);
    deployment.logged("admin:local-service/ann", 1).await;
}

#[tokio::test]
async fn an_upload_that_is_not_what_it_says_is_refused_and_leaves_nothing() {
    let deployment = Deployment::started();
    let hash = ContentHash::of(b"other").to_hex();
    for query in [
        "filename=a&size=5".to_owned(),
        "filename=a&size=7".to_owned(),
        "filename=a&size=0".to_owned(),
        "filename=a&size=209715201".to_owned(),
        "filename=a".to_owned(),
        "size=6".to_owned(),
        format!("filename=a&size=6&declaredHash={hash}"),
        "filename=a&size=6&declaredHash=abc".to_owned(),
    ] {
        let response = send(&deployment, &query, b"bundle").await;
        let expected = (400, "BAD_REQUEST".to_owned());
        assert_eq!(refusal(response).await, expected, "{query}");
    }
    // Without a length, what comes is counted.
    for (size, expected) in [(5, 400), (7, 400), (6, 200)] {
        let head = "transfer-encoding: chunked\r\n\r\n";
        let mut connection = begin(&deployment, size, head).await;
        connection
            .write_all(b"6\r\nbundle\r\n0\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(status(&mut connection).await, expected, "{size}");
    }
    assert_eq!(stored(&deployment).len(), 1);
    let head = "content-length: 209715201\r\nexpect: 100-continue\r\n\r\n";
    for size in [6, 209_715_201] {
        let mut connection = begin(&deployment, size, head).await;
        assert_eq!(status(&mut connection).await, 413, "{size}");
    }
    let form = deployment.admin(Method::POST, &format!("{UPLOAD}?filename=a&size=6"));
    let form = form.header("content-type", "multipart/form-data; boundary=a");
    let said: Value = form
        .body("bundle")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(said["code"], "BAD_REQUEST");
    let said = said["error"].as_str().unwrap();
    assert!(said.contains("curl --data-binary @FILE"), "{said}");
}

/// A connection on which the head of an upload is sent.
pub(crate) async fn begin(
    deployment: &Deployment,
    size: usize,
    rest: &str,
) -> tokio::net::TcpStream {
    begin_at(
        deployment,
        &format!("{UPLOAD}?filename=a&size={size}"),
        rest,
    )
    .await
}

async fn begin_at(deployment: &Deployment, target: &str, rest: &str) -> tokio::net::TcpStream {
    let mut connection = deployment.connect().await;
    let head = format!(
        "POST {target} HTTP/1.1\r\nhost: runner\r\nauthorization: Bearer {}\r\n{rest}",
        deployment.admin_token()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection
}

pub(crate) async fn status(connection: &mut tokio::net::TcpStream) -> u16 {
    let mut line = [0; 12];
    connection.read_exact(&mut line).await.unwrap();
    let line = String::from_utf8_lossy(&line).into_owned();
    line.strip_prefix("HTTP/1.1 ").unwrap().parse().unwrap()
}

#[tokio::test]
async fn nothing_is_left_of_an_upload_whose_client_goes_away() {
    let deployment = Deployment::started();
    let mut connection = begin(&deployment, 3 * MIB, "content-length: 3145728\r\n\r\n").await;
    connection.write_all(&vec![7; MIB]).await.unwrap();
    until_staged(&deployment, 1).await;
    drop(connection);
    until_staged(&deployment, 0).await;
    assert_eq!(stored(&deployment), Vec::<String>::new());
}

#[tokio::test]
async fn who_sends_too_often_is_told_when_to_come_again() {
    let deployment = Deployment::started();
    for _ in 0..30 {
        assert_eq!(upload(&deployment, b"a").await.status(), 200);
    }
    let response = upload(&deployment, b"a").await;
    let after = response.headers()["retry-after"].to_str().unwrap();
    assert!((1..=60).contains(&after.parse::<u32>().unwrap()), "{after}");
    assert_eq!(refusal(response).await, (429, "RATE_LIMIT".to_owned()));
    let file = large_file(&deployment);
    let token = token_file(&deployment);
    let push = push(&deployment, &[path(&file), "--token-file", &token]);
    let said = deployment.fails(&push);
    assert!(
        said.contains("RATE_LIMIT (push it again in ") && !said.contains("again in 0 s"),
        "{said}"
    );
    assert!(said.contains("bundles.uploads.per_minute"), "{said}");
    // Another one may.
    let other = deployment
        .request(Method::POST, &format!("{UPLOAD}?filename=a&size=1"))
        .header("x-alga-admin", "true");
    assert_eq!(other.body("a").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn what_is_wrong_with_an_upload_has_its_code() {
    let deployment = Deployment::started();
    let missing = json!({ "key": format!("sha256/_staging/{}/bundle.tar.zst", Uuid::new_v4()) });
    let answered = finalize(&deployment, &missing).await;
    assert_eq!(answered, refused(400, "STAGING_NOT_FOUND"));
    for body in [
        json!({}),
        json!({ "key": "x" }),
        json!({ "key": missing["key"], "more": 1 }),
        json!({ "key": missing["key"], "declaredHash": "x" }),
        json!({ "key": missing["key"], "size": "x" }),
    ] {
        let answered = finalize(&deployment, &body).await;
        assert_eq!(answered, refused(400, "BAD_REQUEST"), "{body}");
    }
    let key = staged(&deployment, b"no bundle").await;
    let answered = finalize(&deployment, &json!({ "key": key })).await;
    assert_eq!(answered, refused(400, "BAD_ARCHIVE"));
    let said = post(&deployment, FINALIZE, &json!({ "key": key })).await;
    let said = said.text().await.unwrap();
    assert!(said.contains("not a zstd file; make it with"), "{said}");
    let wrong_size = json!({ "key": key, "size": 1 });
    let answered = finalize(&deployment, &wrong_size).await;
    assert_eq!(answered, refused(400, "BAD_REQUEST"));
    // Nobody can send so much, but a bucket takes it.
    let large = format!("sha256/_staging/{}/bundle.tar.zst", Uuid::new_v4());
    let file = deployment.data().join("bundles").join(&large);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let file = fs::File::create(file).unwrap();
    file.set_len(200 * MIB as u64 + 1).unwrap();
    let answered = finalize(&deployment, &json!({ "key": large })).await;
    assert_eq!(answered, refused(400, "BAD_REQUEST"));
    let wrong_hash = json!({ "key": key, "declaredHash": "0".repeat(64) });
    let answered = finalize(&deployment, &wrong_hash).await;
    assert_eq!(answered, refused(400, "HASH_MISMATCH"));

    let bundle = |name: &str, version: &str, component: &[u8]| {
        fs::read(deployment.pack(name, version, component)).unwrap()
    };
    let nonsense = bundle(ECHO, "1.0.0", b"\0asm\x0d\0\x01\0");
    let key = staged(&deployment, &nonsense).await;
    let answered = finalize(&deployment, &json!({ "key": key })).await;
    assert_eq!(answered, refused(400, "INVALID_COMPONENT"));

    let good = bundle(ECHO, "1.0.0", &guest::echo());
    let key = staged(&deployment, &good).await;
    let published = finalize(&deployment, &json!({ "key": key })).await.unwrap();
    let hash = ContentHash::of(&good);
    assert_eq!(published["contentHash"], hash.to_string());
    let canonical = format!("sha256/{}/bundle.tar.zst", hash.to_hex());
    assert_eq!(published["canonicalKey"], canonical);
    assert_eq!(published["extension"]["name"], ECHO);
    assert_eq!(published["version"]["version"], "1.0.0");
    assert_eq!(published["warnings"], json!([]));
    // Gone, unless its sender knows what it was.
    let again = post(&deployment, FINALIZE, &json!({ "key": key })).await;
    assert_eq!(again.status(), 400);
    let again: Value = again.json().await.unwrap();
    assert_eq!(again["code"], "STAGING_NOT_FOUND");
    let details = json!({ "state": "published", "contentHash": hash.to_string() });
    assert_eq!(again["details"], details, "{again}");
    let again = json!({ "key": key, "declaredHash": hash.to_hex() });
    assert_eq!(finalize(&deployment, &again).await.unwrap(), published);
    let mut sized = again.clone();
    sized["size"] = good.len().into();
    assert_eq!(finalize(&deployment, &sized).await.unwrap(), published);
    sized["size"] = (good.len() + 1).into();
    let answered = finalize(&deployment, &sized).await;
    assert_eq!(answered, refused(400, "BAD_REQUEST"));

    let other = bundle(ECHO, "1.0.0", &guest::log_then_loop());
    let key = staged(&deployment, &other).await;
    let answered = finalize(&deployment, &json!({ "key": key })).await;
    assert_eq!(answered, refused(409, "DUPLICATE_VERSION"));
}

#[tokio::test]
async fn refusals_of_the_interface_for_bundles_are_flat_whatever_refuses() {
    let deployment = Deployment::started();
    let document = crate::openapi::document(&deployment).await;
    let schema = &document["components"]["schemas"]["BundleError"];
    let wrong = json!({ "key": "x" });
    for (method, path, status, code) in [
        (Method::POST, FINALIZE, 400, "BAD_REQUEST"),
        (Method::POST, UPLOAD, 400, "BAD_REQUEST"),
        (Method::GET, FINALIZE, 405, "METHOD_NOT_ALLOWED"),
        (Method::DELETE, UPLOAD, 405, "METHOD_NOT_ALLOWED"),
        (Method::GET, "/api/ext-bundles/nothing", 404, "NO_SUCH_PATH"),
    ] {
        let request = deployment.admin(method, path).json(&wrong);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["code"], code, "{body}");
        assert!(jsonschema::is_valid(schema, &body), "{body}");
    }
    // Nothing else is.
    for path in ["/api/ext-bundles", "/api/nothing"] {
        let response = deployment.admin(Method::GET, path).send().await.unwrap();
        assert_eq!(refusal(response).await, (404, "NO_SUCH_PATH".to_owned()));
    }
}

#[tokio::test]
async fn what_the_host_is_to_blame_for_is_logged_for_its_operator() {
    let deployment = Deployment::started();
    let bytes = fs::read(deployment.pack(ECHO, "1.0.0", &guest::echo())).unwrap();
    let key = staged(&deployment, b"no bundle").await;
    let answered = finalize(&deployment, &json!({ "key": key })).await;
    assert_eq!(answered, refused(400, "BAD_ARCHIVE"));
    let key = staged(&deployment, &bytes).await;
    let of_bundle = format!("bundles/sha256/{}", ContentHash::of(&bytes).to_hex());
    // Nothing can be put into it then, not even by root.
    fs::write(deployment.data().join(of_bundle), b"no folder").unwrap();
    let answered = finalize(&deployment, &json!({ "key": key })).await;
    assert_eq!(answered, refused(502, "STORE_FAILED"));
    let log = deployment.logged("an upload was not published", 1).await;
    let lines = log
        .lines()
        .filter(|line| line.contains("an upload was not published"));
    let [line] = lines.collect::<Vec<_>>()[..] else {
        panic!("{log}")
    };
    let event: Value = serde_json::from_str(line).unwrap();
    assert_eq!(event["level"], "WARN");
    assert_eq!(event["error.code"], "STORE_FAILED");
    assert_eq!(event["error.blame"], "host");
    assert_eq!(event["upload.key"], key.as_str());
    assert!(event["error"].as_str().unwrap().contains(": "), "{event}");
}

#[tokio::test]
async fn racing_finalizes_of_the_same_bytes_agree() {
    let deployment = Deployment::started();
    let bytes = fs::read(deployment.pack(ECHO, "1.0.0", &guest::echo())).unwrap();
    let hash = ContentHash::of(&bytes).to_hex();
    let one = staged(&deployment, &bytes).await;
    let two = staged(&deployment, &bytes).await;
    let body = |key: &str| json!({ "key": key, "declaredHash": hash });
    let bodies = [body(&one), body(&one), body(&two)];
    let answers = join_all(bodies.iter().map(|body| finalize(&deployment, body))).await;
    assert!(answers[0].is_ok(), "{answers:?}");
    assert!(answers.iter().all(|it| *it == answers[0]), "{answers:?}");
    assert_eq!(stored(&deployment), of_bundle(&bytes));
}

#[tokio::test]
async fn of_racing_finalizes_of_one_version_one_wins() {
    let deployment = Deployment::started();
    let pack = |component: &[u8]| fs::read(deployment.pack(ECHO, "1.0.0", component)).unwrap();
    let one = staged(&deployment, &pack(&guest::echo())).await;
    let two = staged(&deployment, &pack(&guest::log_then_loop())).await;
    let (one, two) = (json!({ "key": one }), json!({ "key": two }));
    let (one, two) = tokio::join!(finalize(&deployment, &one), finalize(&deployment, &two));
    let (winner, loser) = if one.is_ok() { (one, two) } else { (two, one) };
    assert!(winner.is_ok(), "{winner:?}");
    assert_eq!(loser, refused(409, "DUPLICATE_VERSION"));
}

#[tokio::test]
async fn a_finalize_that_was_killed_is_repaired_by_the_next_one() {
    let mut deployment = Deployment::new();
    let mut interrupted = 0;
    for round in 0..8_u64 {
        deployment.start();
        let version = format!("1.0.{round}");
        let bytes = fs::read(deployment.pack(ECHO, &version, &guest::echo())).unwrap();
        let key = staged(&deployment, &bytes).await;
        let body = json!({ "key": key, "declaredHash": ContentHash::of(&bytes).to_hex() });
        let process = deployment.process();
        let asking = deployment.admin(Method::POST, FINALIZE).json(&body).send();
        let killing = async {
            // Compiling takes most of the time; what is to be hit is on both sides of it.
            tokio::time::sleep(Duration::from_millis(round * round * 12)).await;
            process.kill();
        };
        let (asked, ()) = tokio::join!(asking, killing);
        interrupted += u32::from(asked.is_err());
        deployment.wait();
        deployment.start();
        let published = finalize(&deployment, &body).await.unwrap();
        assert_eq!(published["version"]["version"], version);
        let mut names = stored(&deployment);
        // What a process that died was writing is read by nobody, and swept.
        names.retain(|name| !name.contains("/.tmp"));
        assert_eq!(names.len() as u64, 2 * (round + 1), "{names:?}");
        deployment.kill();
    }
    assert!(interrupted > 0, "no finalize was interrupted");
}

#[tokio::test]
async fn a_stopping_server_lets_uploads_end_and_leaves_nothing_of_those_it_cuts() {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_SERVER_DRAIN_TIMEOUT_MS", "2000");
    deployment.start();
    let mut ending = begin(&deployment, 2, "content-length: 2\r\n\r\na").await;
    let mut endless = begin(&deployment, 2, "content-length: 2\r\n\r\na").await;
    until_staged(&deployment, 2).await;
    deployment.terminate();
    deployment.logged("\"stopping\"", 1).await;
    let refused = refusal(upload(&deployment, b"a").await).await;
    assert_eq!(refused, (503, "OVERLOADED".to_owned()));
    let key = json!({ "key": format!("sha256/_staging/{}/bundle.tar.zst", Uuid::new_v4()) });
    for path in [FINALIZE, ABORT] {
        let refused = refusal(post(&deployment, path, &key).await).await;
        assert_eq!(refused, (503, "OVERLOADED".to_owned()), "{path}");
    }
    ending.write_all(b"b").await.unwrap();
    assert_eq!(status(&mut ending).await, 200);
    // It is cut, and told so.
    assert_eq!(status(&mut endless).await, 503);
    assert!(deployment.wait(), "{}", deployment.log());
    let names = stored(&deployment);
    assert!(names.len() == 1 && !names[0].contains(".tmp"), "{names:?}");
}

/// The most memory a process has had, in bytes.
pub(crate) fn peak(process: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<usize>().unwrap() * 1024
}

pub(crate) async fn send_slowly(deployment: &Deployment, size: usize) {
    let rest = format!("content-length: {size}\r\n\r\n");
    let mut connection = begin(deployment, size, &rest).await;
    let chunk = vec![7; MIB];
    for _ in 0..size / MIB {
        connection.write_all(&chunk).await.unwrap();
    }
    assert_eq!(status(&mut connection).await, 200);
}

#[tokio::test]
async fn uploads_take_little_memory_whatever_their_size() {
    let deployment = Deployment::started();
    send_slowly(&deployment, MIB).await;
    let process = deployment.process().number();
    let before = peak(process);
    send_slowly(&deployment, 200 * MIB).await;
    let grown = peak(process) - before;
    assert!(grown <= 32 * MIB, "{} MiB for one", grown / MIB);
    join_all((0..16).map(|_| send_slowly(&deployment, 20 * MIB))).await;
    let grown = peak(process) - before;
    assert!(grown <= 256 * MIB, "{} MiB for sixteen", grown / MIB);
}

/// What is known of an upload, once it is in this state.
async fn until_noted(deployment: &Deployment, id: Uuid, state: &str) -> Value {
    let start = Instant::now();
    loop {
        let path = format!("/api/ext-bundles/uploads/{id}");
        let response = deployment.admin(Method::GET, &path).send().await.unwrap();
        let body: Value = response.json().await.unwrap();
        if body["state"] == state {
            return body;
        }
        assert!(start.elapsed() < PATIENCE, "{body}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_becomes_of_an_upload_is_told_by_every_replica() {
    let one = Deployment::started();
    let mut other = one.beside();
    other.start();
    let unknown = format!("/api/ext-bundles/uploads/{}", Uuid::new_v4());
    let unknown = other.admin(Method::GET, &unknown).send().await.unwrap();
    assert_eq!(refusal(unknown).await, (404, "NOT_FOUND".to_owned()));

    let bytes = fs::read(one.pack(ECHO, "1.0.0", &guest::echo())).unwrap();
    let id = Uuid::new_v4();
    let query = format!("filename=a.tar.zst&size={}&uploadId={id}", bytes.len());
    assert_eq!(send(&one, &query, &bytes).await.status(), 200);
    let noted = until_noted(&other, id, "staged").await;
    assert_eq!(noted["sha256"], ContentHash::of(&bytes).to_hex());
    assert_eq!(noted["received"], bytes.len());
    assert_eq!(noted["filename"], "a.tar.zst");
    assert_eq!(noted["resumable"], false);
    finalize(&other, &json!({ "key": noted["key"] }))
        .await
        .unwrap();
    until_noted(&one, id, "published").await;

    let given_up = Uuid::new_v4();
    let query = format!("filename=a&size=1&uploadId={given_up}");
    send(&one, &query, b"a").await;
    let noted = until_noted(&one, given_up, "staged").await;
    post(&other, ABORT, &json!({ "key": noted["key"] })).await;
    until_noted(&one, given_up, "aborted").await;

    let cut_off = Uuid::new_v4();
    let target = format!("{UPLOAD}?filename=a&size=2&uploadId={cut_off}");
    let mut connection = begin_at(&one, &target, "content-length: 2\r\n\r\na").await;
    until_noted(&other, cut_off, "receiving").await;
    connection.shutdown().await.unwrap();
    drop(connection);
    let noted = until_noted(&other, cut_off, "failed").await;
    assert_eq!(noted["code"], "CANCELLED");
}

/// Reads server-sent events until one holds this text, and gives all of them.
async fn until_told(response: &mut Response, text: &str) -> String {
    let mut events = String::new();
    while !events.contains(text) {
        let chunk = tokio::time::timeout(PATIENCE, response.chunk()).await;
        let chunk = chunk.unwrap().unwrap();
        let chunk = chunk.unwrap_or_else(|| panic!("{text} is not in {events}"));
        events += std::str::from_utf8(&chunk).unwrap();
    }
    events
}

#[tokio::test]
async fn an_upload_is_followed_from_before_it_begins_until_it_is_there() {
    let one = Deployment::started();
    let mut other = one.beside();
    other.start();
    let id = Uuid::new_v4();
    let events = format!("/api/ext-bundles/uploads/{id}/events");
    let following = other
        .admin(Method::GET, &events)
        .header("last-event-id", "7");
    let mut following = following.send().await.unwrap();
    assert_eq!(following.status(), 200);
    assert_eq!(following.headers()["content-type"], "text/event-stream");
    let target = format!("{UPLOAD}?filename=a&size=3&uploadId={id}");
    let mut connection = begin_at(&one, &target, "content-length: 3\r\n\r\na").await;
    let told = until_told(&mut following, "\"received\":1").await;
    assert!(
        told.starts_with("id: 8\nevent: progress\ndata: {"),
        "{told}"
    );
    assert!(told.contains("\"state\":\"receiving\""), "{told}");
    connection.write_all(b"bc").await.unwrap();
    assert_eq!(status(&mut connection).await, 200);
    let told = until_told(&mut following, "\"state\":\"staged\"").await;
    assert!(told.contains("\"received\":3"), "{told}");
    assert!(following.chunk().await.unwrap().is_none());
    // Whoever comes late is told the end at once.
    let late = one.admin(Method::GET, &events).send().await.unwrap();
    let told = late.text().await.unwrap();
    assert!(told.starts_with("id: 1\nevent: progress\n"), "{told}");
    assert_eq!(told.matches("event:").count(), 1);
    let wrong = one.admin(Method::GET, &events).header("last-event-id", "x");
    let refused = refusal(wrong.send().await.unwrap()).await;
    assert_eq!(refused, (400, "BAD_REQUEST".to_owned()));
}

#[tokio::test]
async fn whoever_follows_an_upload_does_not_keep_a_server_from_stopping() {
    let mut deployment = Deployment::started();
    let events = format!("/api/ext-bundles/uploads/{}/events", Uuid::new_v4());
    let mut following = deployment.admin(Method::GET, &events).send().await.unwrap();
    deployment.terminate();
    assert!(following.chunk().await.unwrap().is_none());
    assert!(deployment.wait(), "{}", deployment.log());
}

const TUS: &str = "/api/ext-bundles/tus";

/// Begins an upload in several requests: its path and its key.
pub(crate) async fn begin_resumable(deployment: &Deployment, size: usize) -> (String, String) {
    let request = deployment
        .admin(Method::POST, TUS)
        .header("tus-resumable", "1.0.0")
        .header("upload-length", size)
        .header("upload-metadata", "filename YS50YXIuenN0");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 201);
    let text = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    (text("location"), text("upload-key"))
}

/// Where such an upload goes on.
pub(crate) async fn offset_of(deployment: &Deployment, path: &str) -> usize {
    let request = deployment.admin(Method::HEAD, path);
    let response = request
        .header("tus-resumable", "1.0.0")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let offset = response.headers()["upload-offset"].to_str().unwrap();
    offset.parse().unwrap()
}

/// Waits until such an upload is so far.
pub(crate) async fn until_offset(deployment: &Deployment, path: &str, offset: usize) {
    let start = Instant::now();
    while offset_of(deployment, path).await != offset {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Goes on with such an upload: the offset that is told then.
pub(crate) async fn go_on(
    deployment: &Deployment,
    path: &str,
    offset: usize,
    bytes: &[u8],
) -> usize {
    let request = deployment
        .admin(Method::PATCH, path)
        .header("tus-resumable", "1.0.0")
        .header("upload-offset", offset)
        .header("content-type", "application/offset+octet-stream");
    let response = request.body(bytes.to_vec()).send().await.unwrap();
    assert_eq!(response.status(), 204);
    let offset = response.headers()["upload-offset"].to_str().unwrap();
    offset.parse().unwrap()
}

/// Sends a part of what a request announces that goes on from the beginning.
pub(crate) async fn half_a_chunk(
    deployment: &Deployment,
    path: &str,
    length: usize,
    sent: &[u8],
) -> tokio::net::TcpStream {
    let mut connection = deployment.connect().await;
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nhost: runner\r\nauthorization: Bearer {}\r\ntus-resumable: 1.0.0\r\n\
         upload-offset: 0\r\ncontent-type: application/offset+octet-stream\r\n\
         content-length: {length}\r\n\r\n",
        deployment.admin_token()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(sent).await.unwrap();
    connection
}

/// Publishes what is staged.
pub(crate) async fn published(deployment: &Deployment, key: &str) -> Value {
    finalize(deployment, &json!({ "key": key })).await.unwrap()
}

#[tokio::test]
async fn an_upload_goes_on_after_its_server_was_killed() {
    const PART: usize = 5 * MIB;
    let mut deployment = Deployment::started();
    let bytes = fs::read(deployment.pack_large(ECHO, &guest::echo(), PART + MIB)).unwrap();
    let (path, key) = begin_resumable(&deployment, bytes.len()).await;
    let sent = &bytes[..PART + MIB / 2];
    let connection = half_a_chunk(&deployment, &path, bytes.len(), sent).await;
    until_offset(&deployment, &path, PART).await;
    deployment.kill();
    drop(connection);
    deployment.start();
    assert_eq!(offset_of(&deployment, &path).await, PART);
    let end = go_on(&deployment, &path, PART, &bytes[PART..]).await;
    assert_eq!(end, bytes.len());
    let published = published(&deployment, &key).await;
    let hash = ContentHash::of(&bytes);
    assert_eq!(published["contentHash"], hash.to_string());
    let id = path.rsplit('/').next().unwrap().parse().unwrap();
    until_noted(&deployment, id, "published").await;
    assert_eq!(stored(&deployment), of_bundle(&bytes));
    let metrics = deployment.metrics().await;
    let line = r#"alga_bundle_chunks_total{outcome="OK"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn an_upload_whose_server_was_killed_has_failed_after_a_while() {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_BUNDLES_UPLOADS_SILENCE_MS", "2000");
    deployment.start();
    let id = Uuid::new_v4();
    let target = format!("{UPLOAD}?filename=a&size=2&uploadId={id}");
    let connection = begin_at(&deployment, &target, "content-length: 2\r\n\r\na").await;
    until_noted(&deployment, id, "receiving").await;
    deployment.kill();
    drop(connection);
    deployment.start();
    let events = format!("/api/ext-bundles/uploads/{id}/events");
    let following = deployment.admin(Method::GET, &events).send().await;
    let mut following = following.unwrap();
    until_told(&mut following, "\"state\":\"failed\"").await;
    assert!(following.chunk().await.unwrap().is_none());
    let noted = until_noted(&deployment, id, "failed").await;
    assert_eq!(noted["code"], "CANCELLED");
    let key = json!({ "key": noted["key"] });
    let said: Value = post(&deployment, FINALIZE, &key)
        .await
        .json()
        .await
        .unwrap();
    let details = json!({ "state": "failed", "code": "CANCELLED" });
    assert_eq!(said["details"], details, "{said}");
}

#[tokio::test]
async fn uploads_in_several_requests_take_little_memory_whatever_their_size() {
    let deployment = Deployment::started();
    let send = async |size: usize| {
        let (path, _) = begin_resumable(&deployment, size).await;
        let chunk = vec![7; MIB];
        let mut connection = half_a_chunk(&deployment, &path, size, &[]).await;
        for _ in 0..size / MIB {
            connection.write_all(&chunk).await.unwrap();
        }
        assert_eq!(status(&mut connection).await, 204);
    };
    send(MIB).await;
    let process = deployment.process().number();
    let before = peak(process);
    send(100 * MIB).await;
    let grown = peak(process) - before;
    assert!(grown <= 32 * MIB, "{} MiB for one", grown / MIB);
    join_all((0..8).map(|_| send(20 * MIB))).await;
    let grown = peak(process) - before;
    assert!(grown <= 128 * MIB, "{} MiB for eight", grown / MIB);
}

#[tokio::test]
async fn the_store_is_looked_after() {
    let deployment = Deployment::started();
    let bundle = deployment.pack(ECHO, "1.0.0", &guest::echo());
    let hash = deployment.ok(&["bundle", "add", path(&bundle)]);
    let key = staged(&deployment, b"never published").await;
    let swept = deployment.ok(&["bundle", "sweep"]);
    assert_eq!(swept, r#"{"staged":0,"unfinished":0,"records":0}"#);
    let swept = deployment.ok(&["bundle", "sweep", "--older-than", "0s"]);
    assert_eq!(swept, r#"{"staged":1,"unfinished":0,"records":1}"#);
    assert!(!stored(&deployment).contains(&key));

    let fsck = |more: &[&str]| {
        let output = deployment.run(&[&["bundle", "fsck"], more].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
            said,
        )
    };
    let is = |good: bool, said: &str| (good, String::new(), said.to_owned());
    let nothing = is(true, "1 bundle looked at, nothing found\n");
    assert_eq!(fsck(&[]), nothing);
    let hex = hash.strip_prefix("sha256:").unwrap();
    let copy = deployment
        .data()
        .join(format!("bundles/sha256/{hex}/manifest.json"));
    fs::remove_file(copy).unwrap();
    let (good, _, said) = fsck(&[]);
    assert_eq!(
        (good, said.as_str()),
        (false, "1 of 1 bundle damaged\nrun again with --repair\n")
    );
    let (good, _, said) = fsck(&["--repair"]);
    assert_eq!((good, said.as_str()), (true, "1 of 1 bundle repaired\n"));
    assert_eq!(fsck(&[]), nothing);
    let canonical = deployment
        .data()
        .join(format!("bundles/sha256/{hex}/bundle.tar.zst"));
    let mut bytes = fs::read(&canonical).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::remove_file(&canonical).unwrap();
    fs::write(&canonical, &bytes).unwrap();
    let (good, printed, said) = fsck(&[]);
    assert!(!good);
    let line: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(line["problem"], "content");
    assert_eq!(line["contentHash"], hash);
    assert_eq!(
        (&line["extension"], &line["version"]),
        (&json!(ECHO), &json!("1.0.0"))
    );
    assert!(
        said.ends_with("run again with --repair, then publish: com.example.echo 1.0.0\n"),
        "{said}"
    );
    let (good, _, said) = fsck(&["--repair"]);
    assert!(
        !good && said.ends_with("publish again: com.example.echo 1.0.0\n"),
        "{said}"
    );
    deployment.ok(&["bundle", "add", path(&bundle)]);
    assert_eq!(fsck(&[]), nothing);

    let version = format!("/v1/extensions/{ECHO}/versions/1.0.0");
    let removed = deployment.admin(Method::DELETE, &version).send().await;
    assert!(removed.unwrap().status().is_success());
    let gc = |more: &[&str]| deployment.ok(&[&["bundle", "gc"], more].concat());
    assert_eq!(gc(&[]), "");
    let nothing = deployment.run(&["bundle", "gc"]).stderr;
    assert!(
        String::from_utf8(nothing)
            .unwrap()
            .contains("nothing found")
    );
    for age in ["1", "x"] {
        let said = deployment.fails(&["bundle", "gc", "--older-than", age]);
        assert!(said.contains("such as 1h or 7d"), "{said}");
    }
    assert_eq!(gc(&["--older-than", "0s"]).lines().count(), 2);
    assert_eq!(stored(&deployment).len(), 2);
    gc(&["--older-than", "0s", "--delete"]);
    assert_eq!(stored(&deployment), Vec::<String>::new());
}

#[tokio::test]
async fn a_store_is_cleared_out_for_no_other_registry() {
    let deployment = Deployment::started();
    let bundle = deployment.pack(ECHO, "1.0.0", &guest::echo());
    deployment.ok(&["bundle", "add", path(&bundle)]);
    let there = stored(&deployment);

    // The same store with the registry of another deployment, to which all of it is garbage.
    let mut other = Deployment::started();
    other.kill();
    let bundles = other.data().join("bundles");
    fs::remove_dir_all(&bundles).unwrap();
    symlink(deployment.data().join("bundles"), &bundles).unwrap();
    for command in [
        &["gc", "--older-than", "0s"][..],
        &["gc", "--older-than", "0s", "--delete"],
        &["fsck", "--repair"],
        &["sweep", "--older-than", "0s"],
    ] {
        let refused = other.fails(&[&["bundle"], command].concat());
        assert!(refused.contains("that of another registry"), "{refused}");
        assert!(refused.contains("--take-over"), "{refused}");
    }
    other.start();
    other.logged("that of another registry", 1).await;
    assert_eq!(stored(&deployment), there);

    // Unless somebody says that it is meant, which removes nothing yet.
    let gc = ["bundle", "gc", "--older-than", "0s"];
    other.fails(&[&gc[..], &["--take-over", "--delete"]].concat());
    let garbage = other.ok(&[&gc[..], &["--take-over"]].concat());
    assert_eq!(garbage.lines().count(), there.len());
    assert_eq!(stored(&deployment), there);
    other.ok(&[&gc[..], &["--delete"]].concat());
    assert_eq!(stored(&deployment), Vec::<String>::new());
    let refused = deployment.fails(&["bundle", "gc"]);
    assert!(refused.contains("that of another registry"), "{refused}");
}
