//! Deploying, upgrading, disabling, granting, uninstalling and calling, all at once and in a random
//! order: every answer is one that the states allow which the install had during the call.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use alga_e2e::guest;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::deployment::{Answer, Deployment, get, path, refusal};

const EXTENSION: &str = "com.example.states";
/// What versions answer with; `1.0.0` with the first.
const LETTERS: [char; 6] = ['A', 'B', 'C', 'D', 'E', 'F'];
/// What the guest tells of storage: there is no such record, or it may not ask.
const GRANTED: char = 'f';
const DENIED: char = 'd';
/// Tenants, each of which has one who changes and two who call.
const TENANTS: usize = 3;
const LASTS: Duration = Duration::from_secs(6);
/// How long after a change of another process a server may go by what it knew.
const STALE: Duration = Duration::from_secs(2);

/// What an install is at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
struct State {
    version: usize,
    granted: bool,
    is: Is,
    /// What a rollback brings back: version and grant.
    former: Option<(usize, bool)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Is {
    Enabled,
    Disabled,
    Uninstalled,
}

/// A state, from when it may count and from when it must.
#[derive(Debug, Clone, Copy)]
struct Change {
    asked: Instant,
    /// Absent while it is under way.
    counts: Option<Instant>,
    state: State,
}

#[derive(Debug)]
struct Install {
    id: String,
    history: Vec<Change>,
}

/// The installs of a tenant, of which all but the last are uninstalled.
struct Tenant {
    id: String,
    installs: Mutex<Vec<Install>>,
}

/// Random numbers of a seed: <https://prng.di.unimi.it/splitmix64.c>.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }
}

impl Install {
    /// A new one that has the version, which counts from now on.
    fn new(id: String, version: usize, asked: Instant) -> Self {
        let state = State {
            version,
            granted: true,
            is: Is::Enabled,
            former: None,
        };
        let counts = Some(Instant::now());
        Self {
            id,
            history: vec![Change {
                asked,
                counts,
                state,
            }],
        }
    }

    /// Every state that may have counted at some moment of this time.
    fn states(&self, from: Instant, to: Instant) -> Vec<State> {
        // A change counts also where one before it need not yet.
        let ended = |change: usize| {
            let later = self.history.iter().skip(change + 1);
            later.filter_map(|later| later.counts).min()
        };
        let changes = self.history.iter().enumerate();
        changes
            .filter(|(at, change)| change.asked <= to && ended(*at).is_none_or(|end| end >= from))
            .map(|(_, change)| change.state)
            .collect()
    }
}

impl Tenant {
    fn state(&self) -> State {
        let installs = self.installs.lock().unwrap();
        installs.last().unwrap().history.last().unwrap().state
    }

    fn install(&self) -> String {
        self.installs.lock().unwrap().last().unwrap().id.clone()
    }

    /// Brings the last install to a state by what `change` does.
    async fn change(&self, state: State, staleness: Duration, change: impl Future<Output = ()>) {
        let record = |edit: &dyn Fn(&mut Vec<Change>)| {
            let mut installs = self.installs.lock().unwrap();
            edit(&mut installs.last_mut().unwrap().history);
        };
        let asked = Instant::now();
        record(&|history| {
            history.push(Change {
                asked,
                counts: None,
                state,
            });
        });
        change.await;
        let counts = Some(Instant::now() + staleness);
        record(&|history| history.last_mut().unwrap().counts = counts);
    }
}

/// A deployment, what is deployed on it, and whether there is an end.
struct World {
    deployment: Deployment,
    published: AtomicUsize,
    over: AtomicBool,
    calls: AtomicUsize,
    changes: AtomicUsize,
}

impl World {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    async fn admin(&self, method: Method, install: &str, rest: &str, body: Value) -> (u16, Value) {
        let path = format!("/v1/installs{install}{rest}");
        let request = self.deployment.admin(method, &path).header("if-match", "*");
        let response = request.json(&body).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    /// A change that must succeed.
    async fn done(&self, method: Method, install: &str, rest: &str, body: Value) -> Value {
        let (status, answer) = self.admin(method, install, rest, body).await;
        assert!((200..300).contains(&status), "{rest}: {status} {answer}");
        answer
    }

    /// A command in a process of its own, which others don't wait for.
    async fn command(&self, arguments: &[&str]) {
        let mut command = self.deployment.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await;
        let output = output.unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    async fn publish(&self, version: usize) {
        let guest = guest::tell(LETTERS[version]);
        let bundle = self
            .deployment
            .pack(EXTENSION, &format!("{}.0.0", version + 1), &guest);
        self.command(&["bundle", "add", path(&bundle)]).await;
        self.published.store(version + 1, Ordering::Release);
    }

    async fn create(&self, tenant: &str, version: usize) -> Install {
        let body = json!({
            "tenantId": tenant,
            "extension": EXTENSION,
            "version": format!("{}.0.0", version + 1),
        });
        let asked = Instant::now();
        let made = self.done(Method::POST, "", "", body).await;
        Install::new(
            made["installId"].as_str().unwrap().to_owned(),
            version,
            asked,
        )
    }

    /// Changes the install of a tenant until it is over.
    async fn change(&self, tenant: &Tenant, mut random: Random) {
        while !self.is_over() {
            self.change_once(tenant, &mut random).await;
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn change_once(&self, tenant: &Tenant, random: &mut Random) {
        let before = tenant.state();
        let install = format!("/{}", tenant.install());
        let published = self.published.load(Ordering::Acquire);
        let mut after = before;
        if before.is == Is::Uninstalled {
            let install = self.create(&tenant.id, random.below(published)).await;
            tenant.installs.lock().unwrap().push(install);
            return;
        }
        match random.below(16) {
            0..4 => {
                let version = random.below(published);
                if version == before.version {
                    return;
                }
                (after.version, after.former) = (version, Some((before.version, before.granted)));
                let body = json!({ "version": format!("{}.0.0", version + 1), "approve": true });
                let upgrade =
                    async { drop(self.done(Method::POST, &install, "/upgrade", body).await) };
                tenant.change(after, Duration::ZERO, upgrade).await;
            }
            4..7 => {
                let approve = json!({ "approve": true });
                let Some((version, granted)) = before.former else {
                    let (status, answer) = self
                        .admin(Method::POST, &install, "/rollback", approve)
                        .await;
                    assert_eq!(status, 409, "{answer}");
                    assert_eq!(answer["error"]["code"], "NOTHING_TO_ROLL_BACK");
                    return;
                };
                (after.version, after.granted, after.former) = (version, granted, None);
                let back = async {
                    drop(
                        self.done(Method::POST, &install, "/rollback", approve)
                            .await,
                    );
                };
                tenant.change(after, Duration::ZERO, back).await;
            }
            7..10 => {
                after.is = opposite(before.is);
                let body = json!({ "state": if after.is == Is::Enabled { "enabled" } else { "disabled" } });
                let switch = async {
                    drop(self.done(Method::PATCH, &install, "", body).await);
                };
                tenant.change(after, Duration::ZERO, switch).await;
            }
            10 => {
                after.is = opposite(before.is);
                let command = if after.is == Is::Enabled {
                    "enable"
                } else {
                    "disable"
                };
                let arguments = ["install", command, install.trim_start_matches('/')];
                let switch = self.command(&arguments);
                tenant.change(after, STALE, switch).await;
            }
            11..15 => {
                after.granted = !before.granted;
                let storage = json!({ "namespaces": [{ "name": "notes", "access": ["read"] }] });
                let grants = if after.granted {
                    json!({ "grants": { "alga.storage": storage } })
                } else {
                    json!({ "grants": {} })
                };
                let grant =
                    async { drop(self.done(Method::PUT, &install, "/grants", grants).await) };
                tenant.change(after, Duration::ZERO, grant).await;
            }
            _ => {
                after.is = Is::Uninstalled;
                let remove =
                    async { drop(self.done(Method::DELETE, &install, "", json!({})).await) };
                tenant.change(after, Duration::ZERO, remove).await;
            }
        }
    }

    /// Calls the installs of a tenant until it is over.
    async fn call(&self, tenant: &Tenant, mut random: Random) {
        while !self.is_over() {
            let (id, at) = {
                let installs = tenant.installs.lock().unwrap();
                // Now and then one that is gone.
                let at = match random.below(8) {
                    0 => random.below(installs.len()),
                    _ => installs.len() - 1,
                };
                (installs[at].id.clone(), at)
            };
            let from = Instant::now();
            let told = self.told(&tenant.id, &id).await;
            let to = Instant::now();
            let states = tenant.installs.lock().unwrap()[at].states(from, to);
            assert!(
                allows(&states, &told),
                "{id} told {told:?}, which none of {states:?} allow"
            );
            self.calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What a call of an install says: letters of an answer, or the code of a refusal.
    async fn told(&self, tenant: &str, install: &str) -> String {
        let envelope = json!({
            "context": { "tenant_id": tenant, "extension_id": EXTENSION, "install_id": install },
            "http": get("/"),
        });
        let response = self.deployment.execute(&envelope).await;
        if response.status() != 200 {
            return refusal(response).await.1;
        }
        let answer = Answer::of(&response.json().await.unwrap());
        String::from_utf8(answer.body).unwrap()
    }
}

fn opposite(is: Is) -> Is {
    match is {
        Is::Enabled => Is::Disabled,
        Is::Disabled | Is::Uninstalled => Is::Enabled,
    }
}

/// Whether what was told can be, where the install had these states during the call. Version and
/// grant are asked for one after the other, so they may be of different states.
fn allows(states: &[State], told: &str) -> bool {
    let any = |holds: &dyn Fn(&State) -> bool| states.iter().any(holds);
    let mut letters = told.chars();
    let (Some(version), Some(storage), None) = (letters.next(), letters.next(), letters.next())
    else {
        return match told {
            "INSTALL_DISABLED" => any(&|state| state.is == Is::Disabled),
            "NOT_FOUND" => any(&|state| state.is == Is::Uninstalled),
            _ => false,
        };
    };
    any(&|state| state.is == Is::Enabled && LETTERS[state.version] == version)
        && match storage {
            GRANTED => any(&|state| state.granted && state.is == Is::Enabled),
            // Who is no longer enabled in the middle of a call may not ask either.
            DENIED => any(&|state| !state.granted || state.is != Is::Enabled),
            _ => false,
        }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_one_that_the_states_during_the_call_allow() {
    let mut deployment = Deployment::new();
    deployment.set("ALGA_STORAGE_RATES_READ_PER_SECOND", "1000000");
    deployment.set("ALGA_STORAGE_RATES_READ_BURST", "1000000");
    deployment.start();
    let seed = RandomState::new().hash_one(0);
    eprintln!("the seed is {seed}");
    let random = |of: u64| Random(seed.wrapping_add(of));
    let world = World {
        deployment,
        published: AtomicUsize::new(0),
        over: AtomicBool::new(false),
        calls: AtomicUsize::new(0),
        changes: AtomicUsize::new(0),
    };
    world.publish(0).await;
    let mut tenants = Vec::new();
    for _ in 0..TENANTS {
        let id = Uuid::new_v4().to_string();
        let installs = Mutex::new(vec![world.create(&id, 0).await]);
        tenants.push(Tenant { id, installs });
    }

    let numbered = || tenants.iter().zip((0..).step_by(3));
    let change = join_all(numbered().map(|(tenant, of)| world.change(tenant, random(of))));
    let call = join_all((1..3).flat_map(|caller| {
        let (world, random) = (&world, &random);
        numbered().map(move |(tenant, of)| world.call(tenant, random(of + caller)))
    }));
    let deploy = async {
        let end = Instant::now() + LASTS;
        for version in 1..LETTERS.len() {
            world.publish(version).await;
        }
        tokio::time::sleep_until(end.into()).await;
        world.over.store(true, Ordering::Relaxed);
    };
    tokio::join!(change, call, deploy);

    for tenant in &tenants {
        agree(&world, tenant).await;
    }
    let (calls, changes) = (world.calls.into_inner(), world.changes.into_inner());
    eprintln!("{calls} calls and {changes} changes");
    assert!(
        calls > 50 && changes > 20,
        "{calls} calls, {changes} changes"
    );
    let log = world.deployment.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// At the end everything is as the last change left it.
async fn agree(world: &World, tenant: &Tenant) {
    let state = tenant.state();
    let install = tenant.install();
    let (status, shown) = world
        .admin(Method::GET, &format!("/{install}"), "", json!({}))
        .await;
    assert_eq!(status, 200, "{shown}");
    let is = match state.is {
        Is::Enabled => "enabled",
        Is::Disabled => "disabled",
        Is::Uninstalled => "uninstalled",
    };
    let version = |version: usize| format!("{}.0.0", version + 1);
    assert_eq!(shown["state"], is, "{shown}");
    assert_eq!(shown["version"], version(state.version), "{shown}");
    let former = state.former.map(|(former, _)| version(former));
    assert_eq!(shown["formerVersion"], json!(former), "{shown}");
    let grants = shown["grants"].as_object().unwrap();
    assert_eq!(
        grants.contains_key("alga.storage"),
        state.granted,
        "{shown}"
    );
    let counts = {
        let installs = tenant.installs.lock().unwrap();
        installs.last().unwrap().history.last().unwrap().counts
    };
    tokio::time::sleep_until(counts.unwrap().into()).await;
    let told = world.told(&tenant.id, &install).await;
    assert!(allows(&[state], &told), "{state:?} told {told}");
}
