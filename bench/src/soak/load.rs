//! Who does what to the server, again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alga_model::{Clock as _, SystemClock, Timestamp};
use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

use super::scene::{CHANGING, Scene, answered, of};

/// How long somebody waits for a guest that loops.
const GIVEN_UP: Duration = Duration::from_millis(40);
/// What is recent, in milliseconds.
const LATELY_MS: i64 = 10_000;
/// How long somebody listens.
const LISTENED: Duration = Duration::from_millis(400);

/// Somebody who does one kind of thing, with a pause after each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Actor {
    role: Role,
    /// Tells those with the same role apart.
    number: u32,
    pause: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Role {
    /// Writes, reads, lists and deletes notes.
    Notes,
    /// Asks for something twice at once with the same key.
    Once,
    /// Calls as it is, without an envelope.
    Plain,
    /// Calls what never answers, and mostly gives up.
    Looping,
    /// Calls what traps.
    Trapping,
    /// Calls what takes all memory there is.
    Growing,
    /// Calls what writes lines.
    Writing,
    /// Listens to those lines for a moment.
    Listening,
    /// Installs, calls, upgrades, disables and uninstalls.
    Installing,
    /// Looks at everything there is to look at.
    Looking,
    /// Hangs up in the middle of requests and answers.
    HangingUp,
}

/// Who takes part: so many, and how long each one pauses, in milliseconds. On two cores this leaves
/// the server work to do at any moment, and the soak something of the machine.
const ROLES: [(Role, u32, u64); 11] = [
    (Role::Notes, 4, 30),
    (Role::Once, 1, 200),
    (Role::Plain, 2, 10),
    (Role::Looping, 2, 250),
    (Role::Trapping, 1, 100),
    (Role::Growing, 1, 100),
    (Role::Writing, 1, 50),
    (Role::Listening, 3, 50),
    (Role::Installing, 1, 250),
    (Role::Looking, 1, 50),
    (Role::HangingUp, 2, 50),
];

impl Actor {
    /// Everybody.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        ROLES.into_iter().flat_map(|(role, count, pause)| {
            (0..count).map(move |number| Self {
                role,
                number,
                pause: Duration::from_millis(pause),
            })
        })
    }

    /// Goes on until it is told to stop; what it did, and how often.
    ///
    /// # Errors
    /// Where something else was answered than is to be expected.
    pub(super) async fn act(
        self,
        scene: Arc<Scene>,
        mut stop: watch::Receiver<bool>,
    ) -> anyhow::Result<(&'static str, u32)> {
        let mut steps = 0;
        loop {
            let turn = self.number + steps;
            let done = self.role.step(&scene, turn).await;
            done.with_context(|| format!("{} went wrong", self.role.name()))?;
            steps += 1;
            if timeout(self.pause, stop.wait_for(|stops| *stops))
                .await
                .is_ok()
            {
                return Ok((self.role.name(), steps));
            }
        }
    }
}

/// Has everything done once, one after another.
pub(super) async fn once(scene: &Scene) -> anyhow::Result<()> {
    for (role, ..) in ROLES {
        let done = role.step(scene, 0).await;
        done.with_context(|| format!("{} went wrong", role.name()))?;
    }
    Ok(())
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Notes => "notes",
            Self::Once => "once",
            Self::Plain => "plain",
            Self::Looping => "looping",
            Self::Trapping => "trapping",
            Self::Growing => "growing",
            Self::Writing => "writing",
            Self::Listening => "listening",
            Self::Installing => "installing",
            Self::Looking => "looking",
            Self::HangingUp => "hanging up",
        }
    }

    async fn step(self, scene: &Scene, turn: u32) -> anyhow::Result<()> {
        let tenant = scene.tenant(turn);
        let get = json!({ "method": "GET", "path": "/" });
        match self {
            Self::Notes => take_note(scene, turn).await,
            Self::Once => answer_once(scene, turn).await,
            Self::Plain => {
                let path = format!("/v1/installs/{}/http/", tenant.notes.id);
                let request = scene.service(Method::GET, &path);
                of(request, &[200]).await.map(drop)
            }
            Self::Looping => loop_for_ever(scene, turn).await,
            Self::Trapping => {
                let request = scene.execute(&tenant.trapping, &get);
                of(request, &[502]).await.map(drop)
            }
            Self::Growing => {
                let request = scene.execute(&tenant.growing, &get);
                of(request, &[507]).await.map(drop)
            }
            Self::Writing => {
                let request = scene.execute(&tenant.writing, &get);
                of(request, &[200]).await.map(drop)
            }
            Self::Listening => listen(scene, turn).await,
            Self::Installing => come_and_go(scene, turn).await,
            Self::Looking => look(scene, turn).await,
            Self::HangingUp => hang_up(scene, turn).await,
        }
    }
}

/// One of 200 notes of a tenant, so that there are soon as many as there ever will be.
async fn take_note(scene: &Scene, turn: u32) -> anyhow::Result<()> {
    let path = format!("/notes/note-{}", turn.wrapping_mul(7) % 200);
    let note = json!({ "title": "Printer", "text": format!("Does not print, {turn} times.") });
    let http = match turn % 10 {
        0 => json!({ "method": "DELETE", "path": path }),
        1..=3 => with_body("PUT", &path, &note),
        4 => with_body(
            "POST",
            &format!("{path}/lines"),
            &json!({ "line": "Out of paper." }),
        ),
        5 => json!({ "method": "GET", "path": "/notes", "query": { "limit": "20" } }),
        _ => json!({ "method": "GET", "path": path }),
    };
    let request = scene.execute(&scene.tenant(turn).notes, &http);
    if let Some(answer) = of(request, &[200]).await? {
        let status = answer.get("status").and_then(Value::as_u64);
        let status = status.context("an answer has no status")?;
        // What writes in turns with others may find what they left, and meets the rates of storage.
        let fits = [200, 201, 204, 404, 409, 429].contains(&status);
        ensure!(fits, "{http} is answered with {status}");
    }
    Ok(())
}

async fn answer_once(scene: &Scene, turn: u32) -> anyhow::Result<()> {
    let note = json!({ "title": "Once", "text": "However often it is asked for." });
    let http = with_body("PUT", "/notes/once", &note);
    let key = Uuid::new_v4().to_string();
    let request = || {
        let request = scene.execute(&scene.tenant(turn).notes, &http);
        of(request.header("x-idempotency-key", &key), &[200])
    };
    let (one, other) = tokio::try_join!(request(), request())?;
    let is_limited = |answer: &Value| answer.get("status") == Some(&json!(429));
    if let (Some(one), Some(other)) = (one, other) {
        // What met the rate of storage is not kept, and was done again.
        let is_fine = one == other || is_limited(&one) || is_limited(&other);
        ensure!(is_fine, "{one} is followed by {other}");
    }
    Ok(())
}

async fn loop_for_ever(scene: &Scene, turn: u32) -> anyhow::Result<()> {
    let get = json!({ "method": "GET", "path": "/" });
    let looping = &scene.tenant(turn).looping;
    if turn.is_multiple_of(8) {
        let limits = json!({ "timeout_ms": 50 });
        let request = scene.execute_with(looping, &get, &limits);
        return of(request, &[504]).await.map(drop);
    }
    let request = scene.execute(looping, &get);
    // Given up, its connection is closed.
    timeout(GIVEN_UP, of(request, &[]))
        .await
        .map_or(Ok(()), |answer| answer.map(drop))
}

async fn listen(scene: &Scene, turn: u32) -> anyhow::Result<()> {
    let path = format!(
        "/v1/installs/{}/logs?backlog=100",
        scene.tenant(turn).writing.id
    );
    let Some(mut stream) = answered(scene.admin(Method::GET, &path), &[200]).await? else {
        return Ok(());
    };
    let start = Instant::now();
    while let Some(left) = LISTENED.checked_sub(start.elapsed()) {
        match timeout(left, stream.chunk()).await {
            Ok(chunk) => ensure!(chunk?.is_some(), "the logs ended"),
            Err(_) => break,
        }
    }
    Ok(())
}

async fn come_and_go(scene: &Scene, turn: u32) -> anyhow::Result<()> {
    let tenant = scene.tenant(turn).id;
    let install = scene.create(tenant, CHANGING, Some("1.0.0")).await?;
    let path = format!("/v1/installs/{}", install.id);
    let call = async |status| {
        let request = scene.service(Method::GET, &format!("{path}/http/"));
        of(request, &[status]).await.map(drop)
    };
    call(200).await?;
    let upgrade = json!({ "version": "2.0.0", "approve": true });
    let upgrade = scene
        .admin(Method::POST, &format!("{path}/upgrade"))
        .json(&upgrade);
    of(upgrade, &[200]).await?;
    call(200).await?;
    let disable = scene
        .admin(Method::PATCH, &path)
        .json(&json!({ "state": "disabled" }));
    of(disable, &[200]).await?;
    call(409).await?;
    of(scene.admin(Method::DELETE, &path), &[200]).await?;
    call(404).await
}

async fn look(scene: &Scene, turn: u32) -> anyhow::Result<()> {
    let tenant = scene.tenant(turn);
    let (id, notes, writing) = (tenant.id, &tenant.notes.id, &tenant.writing.id);
    let now = SystemClock::default().now();
    let lately = Timestamp::from_millis(now.as_millis().saturating_sub(LATELY_MS));
    let paths = [
        "/v1/installs?limit=20".to_owned(),
        format!("/v1/installs?tenant={id}&uninstalled=true&limit=5"),
        format!("/v1/installs/{notes}"),
        format!("/v1/installs/{notes}/usage"),
        format!("/v1/installs/{notes}/quotas"),
        format!("/v1/installs/{writing}/invocations"),
        format!("/v1/installs/{writing}/logs?follow=false"),
        format!("/v1/tenants/{id}/usage"),
        "/v1/extensions".to_owned(),
        "/v1/switches".to_owned(),
        // Of what was done lately: all of it is more from minute to minute.
        format!("/v1/audit?install={notes}&since={lately}"),
        "/openapi.json".to_owned(),
        "/metrics".to_owned(),
        "/readyz".to_owned(),
    ];
    let turn = usize::try_from(turn / 2)? % paths.len();
    let path = paths.get(turn).context("it is below the length")?;
    of(scene.admin(Method::GET, path), &[200]).await.map(drop)
}

/// Says as much of a request as the turn wants, and goes away.
async fn hang_up(scene: &Scene, turn: u32) -> anyhow::Result<()> {
    let whole = format!(
        "POST /v1/installs/{}/http/notes HTTP/1.1\r\n\
         host: runner\r\n\
         authorization: Bearer {}\r\n\
         content-type: application/json\r\n\
         content-length: 44\r\n\r\n\
         {{\"id\":\"half\",\"title\":\"Half\",\"text\":\"A note\"}}",
        scene.tenant(turn).notes.id,
        scene.token(),
    );
    let (head, _) = whole.split_once("\r\n\r\n").context("it has a head")?;
    let said = match turn % 4 {
        0 => "",
        1 => "POST /v1/execute HTTP/1.1\r\nhost: run",
        // The body is cut short by a third.
        2 => whole.get(..head.len() + 30).context("it is longer")?,
        _ => &whole,
    };
    let mut connection = TcpStream::connect(scene.address()?).await?;
    connection.write_all(said.as_bytes()).await?;
    Ok(())
}

fn with_body(method: &str, path: &str, body: &Value) -> Value {
    json!({
        "method": method,
        "path": path,
        "headers": { "content-type": "application/json" },
        "body_b64": STANDARD.encode(body.to_string()),
    })
}
