//! What an install does, for those who look or listen: live, remembered, and by commands.

mod commands;
mod live;
mod remembered;

use std::time::{Duration, Instant};

use alga_e2e::guest;
use futures_util::future::join_all;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
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
