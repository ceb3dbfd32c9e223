//! What an install does, for those who look or listen: live, remembered, and by commands.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use alga_e2e::guest;
use futures_util::future::join_all;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;

use crate::deployment::{Deployment, Installed, get, path, refusal};

/// Only a failure takes as long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server-sent event.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    id: Option<String>,
    name: String,
    data: Value,
}

impl Event {
    /// The events of a text, and what is left of it.
    fn all(text: &str) -> (Vec<Self>, &str) {
        let mut events = Vec::new();
        let mut rest = text;
        while let Some((block, after)) = rest.split_once("\n\n") {
            rest = after;
            let field = |name: &str| {
                let line = block.lines().find_map(|line| line.strip_prefix(name));
                line.map(str::to_owned)
            };
            if let Some(data) = field("data: ") {
                events.push(Self {
                    id: field("id: "),
                    name: field("event: ").unwrap(),
                    data: serde_json::from_str(&data).unwrap(),
                });
            }
        }
        (events, rest)
    }

    /// Whether it is a line of that text.
    fn says(&self, message: &str) -> bool {
        self.name == "line" && self.data["message"] == message
    }

    fn is_end(&self, reason: &str) -> bool {
        self.name == "end" && self.data == json!({ "reason": reason })
    }
}

/// Somebody who listens.
struct Listener {
    response: Response,
    text: String,
    heard: std::collections::VecDeque<Event>,
}

impl Listener {
    fn of(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self {
            response,
            text: String::new(),
            heard: std::collections::VecDeque::new(),
        }
    }

    /// The next event; nothing at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.heard.pop_front() {
                return Some(event);
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await;
            let chunk = chunk.expect("nothing is said").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            let (events, rest) = Event::all(&self.text);
            self.heard.extend(events);
            let left = rest.len();
            drop(self.text.drain(..self.text.len() - left));
        }
    }

    async fn next_of(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..count {
            events.push(self.next().await.unwrap());
        }
        events
    }

    /// Everything up to the end.
    async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

fn logs(installed: &Installed, query: &str) -> String {
    format!("/v1/installs/{}/logs?{query}", installed.install)
}

impl Deployment {
    async fn listen(&self, installed: &Installed, query: &str) -> Listener {
        let request = self.admin(Method::GET, &logs(installed, query));
        Listener::of(request.send().await.unwrap())
    }

    async fn listen_after(&self, installed: &Installed, event: &Event) -> Listener {
        let request = self.admin(Method::GET, &logs(installed, ""));
        let request = request.header("last-event-id", event.id.as_ref().unwrap());
        Listener::of(request.send().await.unwrap())
    }

    /// Calls an extension as this request, however it ends.
    async fn call_as(&self, installed: &Installed, request_id: &str) -> u16 {
        let mut envelope = installed.envelope(&get("/"));
        envelope["context"]["request_id"] = request_id.into();
        self.execute(&envelope).await.status().as_u16()
    }

    async fn invocations(&self, installed: &Installed, query: &str) -> Vec<Value> {
        let path = format!("/v1/installs/{}/invocations?{query}", installed.install);
        let response = self.admin(Method::GET, &path).send().await.unwrap();
        let body: Value = response.json().await.unwrap();
        body["items"]
            .as_array()
            .unwrap_or_else(|| panic!("{body}"))
            .clone()
    }
}

#[tokio::test]
async fn who_listens_hears_lines_and_ends_of_that_install_alone() {
    let deployment = Deployment::started();
    let bundle = deployment.pack("com.example.flood", "1.0.0", &guest::log_flood(2));
    let ours = deployment.publish("com.example.flood", &bundle);
    let theirs = deployment.publish("com.example.flood", &bundle);
    assert_ne!(ours.tenant, theirs.tenant);
    let mut of_ours = deployment.listen(&ours, "").await;
    let mut of_theirs = deployment.listen(&theirs, "").await;
    for request in ["req-1", "req-2"] {
        assert_eq!(deployment.call_as(&ours, request).await, 200);
    }
    assert_eq!(deployment.call_as(&theirs, "req-3").await, 200);
    for (listener, requests) in [
        (&mut of_ours, &["req-1", "req-2"][..]),
        (&mut of_theirs, &["req-3"]),
    ] {
        for request in requests {
            let heard = listener.next_of(3).await;
            let id = heard[2].data["invocationId"].clone();
            for line in &heard[..2] {
                let mut data = line.data.clone();
                assert!(data["time"].take().is_string());
                let expected = json!({
                    "time": null, "level": "info", "source": "log", "message": "flood",
                    "invocationId": id, "requestId": request, "version": "1.0.0",
                });
                assert_eq!((line.name.as_str(), data), ("line", expected));
            }
            let mut data = heard[2].data.clone();
            assert!(data["time"].take().is_string());
            assert!(data["durationMs"].take().is_u64());
            assert_eq!(data["memoryBytes"].take(), 65_536);
            assert_eq!(data["hostCalls"].take(), 2);
            let expected = json!({
                "time": null, "durationMs": null, "memoryBytes": null, "hostCalls": null,
                "outcome": "OK", "status": 200, "logLines": 2, "droppedLines": 0,
                "invocationId": id, "requestId": request, "version": "1.0.0",
            });
            assert_eq!((heard[2].name.as_str(), data), ("invocation", expected));
        }
    }
}

#[tokio::test]
async fn a_line_is_heard_while_its_guest_still_runs() {
    let deployment = Deployment::started();
    let looping = deployment.install("com.example.loop", &guest::log_then_loop());
    let mut listener = deployment.listen(&looping, "").await;
    let mut envelope = looping.envelope(&get("/"));
    envelope["limits"] = json!({ "timeout_ms": 60_000 });
    tokio::select! {
        answer = deployment.execute(&envelope) => panic!("answered: {answer:?}"),
        event = listener.next() => assert!(event.unwrap().says(guest::LOOPING)),
    }
    // The caller has hung up.
    let end = listener.next().await.unwrap();
    assert_eq!(end.name, "invocation");
    assert_eq!(end.data["outcome"], "CANCELLED");
    assert_eq!(end.data["memoryBytes"], Value::Null);
    assert_eq!(end.data["logLines"], 1);
}

#[tokio::test]
async fn the_past_is_told_as_far_as_asked_for() {
    let deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(3));
    for request in ["req-1", "req-2"] {
        deployment.call_as(&flood, request).await;
    }
    for (query, expected) in [
        (
            "follow=false",
            "line line line invocation line line line invocation end",
        ),
        ("follow=false&backlog=2", "line invocation end"),
        ("follow=false&backlog=0", "end"),
        (
            "follow=false&level=info&backlog=5&invocations=false",
            "line line line line line end",
        ),
        ("follow=false&level=warn", "invocation invocation end"),
        ("follow=false&level=error&invocations=false", "end"),
    ] {
        let heard = deployment.listen(&flood, query).await.rest().await;
        let names: Vec<_> = heard.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names.join(" "), expected, "{query}");
        assert!(heard.last().unwrap().is_end("done"), "{query}");
    }
    for wrong in [
        "level=loud",
        "level=WARN",
        "backlog=357",
        "backlog=-1",
        "follow=perhaps",
        "sheep=1",
        "level=warn&level=info",
    ] {
        let request = deployment.admin(Method::GET, &logs(&flood, wrong));
        let refused = refusal(request.send().await.unwrap()).await;
        assert_eq!(refused, (400, "BAD_REQUEST".to_owned()), "{wrong}");
    }
    let request = deployment.admin(Method::GET, &logs(&flood, ""));
    let request = request.header("last-event-id", "the last one");
    let refused = refusal(request.send().await.unwrap()).await;
    assert_eq!(refused, (400, "BAD_REQUEST".to_owned()));
}

#[tokio::test]
async fn who_comes_back_hears_what_happened_meanwhile_and_nothing_twice() {
    let mut deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(2));
    let mut listener = deployment.listen(&flood, "").await;
    deployment.call_as(&flood, "req-1").await;
    let first = listener.next().await.unwrap();
    drop(listener);
    deployment.call_as(&flood, "req-2").await;
    let heard = deployment
        .listen_after(&flood, &first)
        .await
        .next_of(5)
        .await;
    let heard: Vec<_> = heard
        .iter()
        .map(|event| {
            (
                event.name.as_str(),
                event.data["requestId"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("line", "req-1"),
        ("invocation", "req-1"),
        ("line", "req-2"),
        ("line", "req-2"),
        ("invocation", "req-2"),
    ];
    assert_eq!(heard, expected);

    // Another process remembers nothing, and says so.
    deployment.terminate();
    assert!(deployment.wait());
    deployment.start();
    let mut listener = deployment.listen_after(&flood, &first).await;
    let gap = listener.next().await.unwrap();
    assert_eq!(
        (gap.name.as_str(), &gap.data),
        ("gap", &json!({ "missed": null }))
    );
    deployment.call_as(&flood, "req-3").await;
    assert_eq!(listener.next().await.unwrap().data["requestId"], "req-3");
    let mut listener = deployment.listen_after(&flood, &gap).await;
    assert!(listener.next().await.unwrap().says("flood"));
}

#[tokio::test]
async fn a_reader_who_does_not_read_slows_nobody_down_and_learns_what_is_missing() {
    const LINES: u64 = 256;
    const CALLS: u64 = 120;
    let deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(256));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let address = deployment.url().strip_prefix("http://").unwrap();
    let mut reader = socket.connect(address.parse().unwrap()).await.unwrap();
    // HTTP/1.0, whose answers are not in chunks.
    let head = format!(
        "GET {} HTTP/1.0\r\nhost: runner\r\nauthorization: Bearer {}\r\n\r\n",
        logs(&flood, ""),
        deployment.admin_token()
    );
    reader.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    let mut bytes = vec![0; 64 << 10];
    while !text.contains("\r\n\r\n") {
        let read = reader.read(&mut bytes).await.unwrap();
        text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
    }
    assert!(text.starts_with("HTTP/1.0 200"), "{text}");
    let mut text = text.split_once("\r\n\r\n").unwrap().1.to_owned();

    for _ in 0..CALLS / 8 {
        let calls = (0..8).map(|_| deployment.call_as(&flood, "req-1"));
        let statuses = timeout(PATIENCE, join_all(calls)).await.unwrap();
        assert_eq!(statuses, [200; 8]);
    }
    let (mut told, mut missed) = (0, 0);
    while told + missed < CALLS * (LINES + 1) {
        let (events, rest) = Event::all(&text);
        for event in events {
            match event.name.as_str() {
                "gap" => missed += event.data["missed"].as_u64().unwrap(),
                _ => told += 1,
            }
        }
        text = rest.to_owned();
        if told + missed < CALLS * (LINES + 1) {
            let read = timeout(PATIENCE, reader.read(&mut bytes)).await;
            let read = read.unwrap_or_else(|_| panic!("{told} told, {missed} missed"));
            text.push_str(std::str::from_utf8(&bytes[..read.unwrap()]).unwrap());
        }
    }
    // Everything is accounted for.
    assert_eq!(told + missed, CALLS * (LINES + 1));
    assert!(missed > 0 && told > 256, "{told} told, {missed} missed");
}

#[tokio::test]
async fn a_tail_ends_when_the_server_stops() {
    let mut deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(1));
    let mut listener = deployment.listen(&flood, "").await;
    deployment.call_as(&flood, "req-1").await;
    assert_eq!(listener.next_of(2).await[1].name, "invocation");
    let start = Instant::now();
    deployment.terminate();
    let rest = listener.rest().await;
    assert!(
        matches!(&rest[..], [end] if end.is_end("draining")),
        "{rest:?}"
    );
    assert!(deployment.wait());
    assert!(start.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_tail_ends_with_its_install_and_what_it_did_can_still_be_seen() {
    let deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(1));
    let other = deployment.install("com.example.other", &guest::log_flood(1));
    deployment.call_as(&flood, "req-1").await;
    let mut listener = deployment.listen(&flood, "").await;
    let mut of_other = deployment.listen(&other, "").await;
    assert_eq!(listener.next_of(2).await[1].name, "invocation");
    let uninstall = format!("/v1/installs/{}", flood.install);
    let request = deployment.admin(Method::DELETE, &uninstall);
    assert_eq!(request.send().await.unwrap().status(), 200);
    let rest = listener.rest().await;
    assert!(
        matches!(&rest[..], [end] if end.is_end("uninstalled")),
        "{rest:?}"
    );
    let again = deployment.listen(&flood, "").await.rest().await;
    assert_eq!(again.len(), 3, "{again:?}");
    assert!(again[2].is_end("uninstalled"));
    assert_eq!(deployment.invocations(&flood, "").await.len(), 1);
    // Nobody else noticed.
    deployment.call_as(&other, "req-2").await;
    assert!(of_other.next().await.unwrap().says("flood"));
}

#[tokio::test]
async fn there_are_so_many_tails_of_an_install_and_no_more() {
    let deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(1));
    let other = deployment.install("com.example.other", &guest::log_flood(1));
    let mut listeners = Vec::new();
    for _ in 0..8 {
        listeners.push(deployment.listen(&flood, "").await);
    }
    let request = || deployment.admin(Method::GET, &logs(&flood, ""));
    let refused = request().send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "5");
    assert_eq!(refusal(refused).await, (429, "TAILS_LIMITED".to_owned()));
    drop(deployment.listen(&other, "").await);
    // Whoever leaves makes room, as soon as the server notices.
    listeners.pop();
    let start = Instant::now();
    while request().send().await.unwrap().status() != 200 {
        assert!(start.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn only_who_may_know_of_an_install_learns_what_it_does() {
    let mut deployment = Deployment::new();
    let mine = deployment.install("com.example.flood", &guest::log_flood(1));
    let theirs = deployment.install("com.example.other", &guest::log_flood(1));
    let (all, limited) = (
        "an-admin-token-for-everything",
        "an-admin-token-for-one-tenant",
    );
    let service = "a-service-token-for-everything";
    let config = format!(
        "[[auth.admin_tokens]]\nid = \"all\"\ntoken = \"{all}\"\n\
         [[auth.admin_tokens]]\nid = \"limited\"\ntoken = \"{limited}\"\ntenants = [\"{}\"]\n\
         [[auth.service_tokens]]\nid = \"service\"\ntoken = \"{service}\"\n",
        mine.tenant
    );
    let file = deployment.scratch("tokens.toml");
    std::fs::write(&file, config).unwrap();
    deployment.set("ALGA_CONFIG", path(&file));
    deployment.start();
    let ask = async |install: &str, rest: &str, token: &str| {
        let path = format!("/v1/installs/{install}/{rest}");
        let request = deployment.anonymous(Method::GET, &path).bearer_auth(token);
        request.send().await.unwrap()
    };
    let unknown = Uuid::new_v4();
    let invocation = format!("invocations/{unknown}");
    for rest in ["logs?follow=false", "invocations", invocation.as_str()] {
        let may = if rest == invocation { 404 } else { 200 };
        assert_eq!(
            ask(&mine.install, rest, limited).await.status(),
            may,
            "{rest}"
        );
        assert_eq!(
            ask(&theirs.install, rest, all).await.status(),
            may,
            "{rest}"
        );
        let foreign = refusal(ask(&theirs.install, rest, limited).await).await;
        let missing = refusal(ask(&unknown.to_string(), rest, limited).await).await;
        assert_eq!(foreign, (404, "NOT_FOUND".to_owned()), "{rest}");
        assert_eq!(foreign, missing, "{rest}");
        let refused = refusal(ask(&mine.install, rest, "wrong").await).await;
        assert_eq!(refused, (401, "UNAUTHORIZED".to_owned()), "{rest}");
        let refused = refusal(ask(&mine.install, rest, service).await).await;
        assert_eq!(refused, (403, "FORBIDDEN".to_owned()), "{rest}");
        let acting = deployment
            .anonymous(
                Method::GET,
                &format!("/v1/installs/{}/{rest}", mine.install),
            )
            .bearer_auth(service)
            .header("x-alga-admin", "true");
        assert_eq!(acting.send().await.unwrap().status(), may, "{rest}");
    }
    let log = deployment.log();
    for token in [all, limited, service] {
        assert!(!log.contains(token), "{token} is in the log");
    }
}

#[tokio::test]
async fn invocations_are_remembered_with_how_they_ended() {
    let deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(300));
    let trap = deployment.install("com.example.trap", &guest::trap());
    for request in ["req-1", "req-2", "req-3"] {
        assert_eq!(deployment.call_as(&flood, request).await, 200);
    }
    assert_eq!(deployment.call_as(&trap, "req-4").await, 502);
    let requests = |found: &[Value]| -> Vec<String> {
        let ids = found
            .iter()
            .map(|it| it["requestId"].as_str().unwrap().to_owned());
        ids.collect()
    };
    let found = deployment.invocations(&flood, "").await;
    assert_eq!(requests(&found), ["req-3", "req-2", "req-1"]);
    assert_eq!(
        (&found[0]["logLines"], &found[0]["droppedLines"]),
        (&json!(256), &json!(44))
    );
    let found = deployment.invocations(&flood, "limit=1&outcome=OK").await;
    assert_eq!(requests(&found), ["req-3"]);
    assert!(
        deployment
            .invocations(&flood, "failed=true")
            .await
            .is_empty()
    );
    assert!(deployment.invocations(&trap, "outcome=OK").await.is_empty());
    let found = deployment
        .invocations(&trap, "failed=true&outcome=GUEST_TRAP")
        .await;
    assert_eq!(requests(&found), ["req-4"]);
    assert_eq!(found[0]["status"], Value::Null);
    assert_eq!(found[0]["memoryBytes"], 65_536);
    for wrong in ["limit=0", "limit=101", "failed=1", "sheep=1"] {
        let path = format!("/v1/installs/{}/invocations?{wrong}", flood.install);
        let refused = deployment.admin(Method::GET, &path).send().await.unwrap();
        assert_eq!(
            refusal(refused).await,
            (400, "BAD_REQUEST".to_owned()),
            "{wrong}"
        );
    }

    let last = deployment.last_invocation(&flood).await;
    let id = last["invocationId"].as_str().unwrap();
    let show = async |install: &str, id: &str| {
        let path = format!("/v1/installs/{install}/invocations/{id}");
        deployment.admin(Method::GET, &path).send().await.unwrap()
    };
    let mut shown: Value = show(&flood.install, id).await.json().await.unwrap();
    let lines = shown.as_object_mut().unwrap().remove("lines").unwrap();
    assert_eq!(shown, last);
    let lines = lines.as_array().unwrap();
    assert_eq!(lines.len(), 256);
    assert!(lines.iter().all(|line| line["invocationId"] == id));
    for (install, id) in [
        (&trap.install, id),
        (&flood.install, Uuid::new_v4().to_string().as_str()),
        (&flood.install, "last"),
    ] {
        let missing = refusal(show(install, id).await).await;
        assert_eq!(missing, (404, "NOT_FOUND".to_owned()), "{id}");
    }
}

#[tokio::test]
async fn what_is_refused_before_it_runs_is_no_invocation() {
    let deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(1));
    deployment.call_as(&flood, "req-1").await;
    let edit = format!("/v1/installs/{}", flood.install);
    let request = deployment.admin(Method::PATCH, &edit);
    let disabled = request.json(&json!({ "state": "disabled" })).send().await;
    assert_eq!(disabled.unwrap().status(), 200);
    assert_eq!(deployment.call_as(&flood, "req-2").await, 409);
    assert_eq!(deployment.invocations(&flood, "").await.len(), 1);
}

/// A command that goes on, and what it prints.
struct Running {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    said: mpsc::UnboundedReceiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            lines: lines_of(child.stdout.take().unwrap()),
            said: lines_of(child.stderr.take().unwrap()),
            child,
        }
    }

    async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.recv()).await;
        line.expect("nothing is printed").expect("it has ended")
    }

    /// Waits until something is said on standard error that holds the text.
    async fn until_said(&mut self, text: &str) {
        loop {
            let line = timeout(PATIENCE, self.said.recv()).await;
            let line = line.unwrap_or_else(|_| panic!("{text} is not said"));
            if line.expect("it has ended").contains(text) {
                return;
            }
        }
    }

    /// What Ctrl-C does; true where it ended well.
    fn interrupt(mut self) -> bool {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status();
        assert!(sent.unwrap().success());
        self.child.wait().unwrap().success()
    }
}

fn lines_of(from: impl std::io::Read + Send + 'static) -> mpsc::UnboundedReceiver<String> {
    let (send, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            // The test has heard enough.
            let _ = send.send(line);
        }
    });
    lines
}

impl Deployment {
    /// A command that asks the server.
    fn asking(&self, arguments: &[&str]) -> Command {
        let token = self.data().join("admin.token");
        let mut command = self.command(arguments);
        command.args(["--server", self.url(), "--token-file", path(&token)]);
        command
    }

    fn asked(&self, arguments: &[&str]) -> String {
        let output = self.asking(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}

#[tokio::test]
async fn the_command_prints_what_happens_as_it_happens() {
    let mut deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(1));
    deployment.call_as(&flood, "req-1").await;
    let follow = ["install", "logs", &flood.install, "--follow"];
    let mut people = Running::start(deployment.asking(&follow));
    let mut programs = Running::start(deployment.asking(&[&follow[..], &["--json"]].concat()));
    for request in ["req-1", "req-2"] {
        if request != "req-1" {
            deployment.call_as(&flood, request).await;
        }
        let line = people.line().await;
        assert!(line.ends_with(" INFO  log    flood"), "{line}");
        let end = people.line().await;
        assert!(end.contains(" DONE  OK     status=200 "), "{end}");
        assert!(end.ends_with(&format!(" request={request}")), "{end}");
        let line: Value = serde_json::from_str(&programs.line().await).unwrap();
        assert_eq!(
            (&line["event"], &line["message"]),
            (&json!("line"), &json!("flood"))
        );
        let end: Value = serde_json::from_str(&programs.line().await).unwrap();
        assert_eq!(
            (&end["event"], &end["requestId"]),
            (&json!("invocation"), &json!(request))
        );
    }
    assert!(programs.interrupt());
    deployment.terminate();
    people
        .until_said("the server stops; asking again in 0.5 s")
        .await;
    assert!(deployment.wait());
    people.until_said("cannot reach the server").await;
    assert!(people.interrupt());
}

#[tokio::test]
async fn commands_tell_of_the_past_and_end() {
    let deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(2));
    let trap = deployment.install("com.example.trap", &guest::trap());
    deployment.call_as(&flood, "req-1").await;
    deployment.call_as(&trap, "req-2").await;
    let printed = deployment.asked(&["install", "logs", &flood.install]);
    assert_eq!(printed.lines().count(), 3, "{printed}");
    assert!(!printed.contains('\u{1b}'), "colours are for terminals");
    let lines_only = [
        "install",
        "logs",
        &flood.install,
        "--lines-only",
        "--backlog",
        "1",
    ];
    assert_eq!(deployment.asked(&lines_only).lines().count(), 1);
    let warnings = [
        "install",
        "logs",
        &flood.install,
        "--level",
        "warn",
        "--lines-only",
    ];
    assert_eq!(deployment.asked(&warnings), "");

    let of = |installed: &Installed, more: &[&str]| {
        deployment.asked(&[&["install", "invocations", &installed.install], more].concat())
    };
    let table = of(&trap, &[]);
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.contains("GUEST_TRAP"), "{table}");
    assert_eq!(of(&flood, &["--failed", "--json"]), "");
    let found: Value = serde_json::from_str(&of(&flood, &["--json"])).unwrap();
    let shown = of(&flood, &[found["invocationId"].as_str().unwrap()]);
    assert_eq!(shown.lines().count(), 3, "{shown}");
    assert!(shown.contains(" INFO  log    flood\n"), "{shown}");
}

#[test]
fn commands_without_a_server_say_why_there_must_be_one() {
    let deployment = Deployment::new();
    let installed = deployment.install("com.example.echo", &guest::echo());
    for command in ["logs", "invocations"] {
        let said = deployment.fails(&["install", command, &installed.install]);
        assert!(said.contains("in the memory of the server"), "{said}");
        assert!(said.contains("--server"), "{said}");
    }
}

#[test]
fn commands_about_what_there_is_not_fail_at_once() {
    let deployment = Deployment::started();
    let unknown = Uuid::new_v4().to_string();
    for arguments in [
        vec!["install", "logs", &unknown, "--follow"],
        vec!["install", "invocations", &unknown],
    ] {
        let mut command = deployment.asking(&arguments);
        let output = command.output().unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("there is no install"), "{said}");
    }
}
