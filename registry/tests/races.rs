//! Of two things done at once by two processes, the second finds what the first left.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::sync::Arc;

use alga_model::{ContentHash, InstallId, Secret, TenantId, Timestamp};
use alga_registry::{
    AnswerQuota, AnswerQuotas, AuditFilter, Change, Claim, Claimed, Grants, Install, InstallState,
    KeptAnswer, KeyedRequest, Known, NewBundleUpload, NewInstall, NewVersion, PageRequest,
    PostgresRegistry, Registry, RegistryError, Resource, SqliteRegistry, SwitchesEdit, TenantEdit,
    UploadProgress, Version,
};
use alga_test_postgres::TestDatabase;
use serde_json::json;
use tempfile::TempDir;

/// Makes a test of each of these functions over each database.
macro_rules! races {
    ($($race:ident)*) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $race() {
                    super::$race(&super::Two::on_sqlite().await).await;
                }
            )*
        }

        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $race() {
                    super::$race(&super::Two::on_postgres().await).await;
                }
            )*
        }
    };
}

races! {
    of_two_racing_for_a_version_one_wins
    of_two_racing_for_a_content_one_wins
    of_two_racing_for_the_switches_one_wins_and_both_see_it
    of_two_racing_for_the_first_settings_of_a_tenant_one_wins
    of_two_racing_for_a_request_one_answers_and_both_have_the_answer
    of_two_racing_for_an_expired_key_one_has_it
    a_version_is_installed_or_removed
    a_version_is_gone_back_to_or_removed
    a_claim_goes_with_its_install_or_is_refused
    who_exports_the_audit_meanwhile_misses_nothing
    each_expired_answer_is_removed_once
    answers_stay_within_their_quotas_whoever_keeps_and_removes_them
    of_two_who_go_on_with_an_upload_one_does
    each_old_upload_is_removed_once
}

/// What two processes have open.
struct Two {
    ours: Arc<dyn Registry>,
    theirs: Arc<dyn Registry>,
    _folder: Option<TempDir>,
}

impl Two {
    async fn on_sqlite() -> Self {
        let folder = TempDir::new().unwrap();
        let file = || alga_sqlite::Options::file(folder.path().join("registry.db"));
        Self {
            ours: Arc::new(SqliteRegistry::open(file()).await.unwrap()),
            theirs: Arc::new(SqliteRegistry::open(file()).await.unwrap()),
            _folder: Some(folder),
        }
    }

    async fn on_postgres() -> Self {
        let options = alga_postgres::Options::at(Secret::new(TestDatabase::create().await.url));
        Self {
            ours: Arc::new(PostgresRegistry::open(&options).await.unwrap()),
            theirs: Arc::new(PostgresRegistry::open(&options).await.unwrap()),
            _folder: None,
        }
    }

    async fn version(&self, text: &str) -> Version {
        let new = notes(text, text.as_bytes());
        let registered = self.ours.register_version(&new, change()).await.unwrap();
        registered.version
    }

    async fn install(&self, version: &Version, tenant: TenantId) -> Install {
        let new = NewInstall::new(tenant, version.id);
        self.ours.create_install(&new, change()).await.unwrap()
    }

    /// An install of a tenant of its own.
    async fn an_install(&self) -> Install {
        let version = self.version("1.0.0").await;
        self.install(&version, TenantId::generate()).await
    }
}

fn change() -> Change<'static> {
    Change {
        actor: "admin",
        request_id: None,
        now: Timestamp::from_millis(1_795_286_981_000),
    }
}

fn notes(version: &str, content: &[u8]) -> NewVersion {
    NewVersion {
        name: "com.example.notes".parse().unwrap(),
        publisher: "Example Inc.".to_owned(),
        version: version.to_owned(),
        content_hash: ContentHash::of(content),
        manifest: "{}".to_owned(),
        size: 5,
    }
}

fn request(install: InstallId, key: &str) -> KeyedRequest {
    KeyedRequest {
        install,
        key: key.parse().unwrap(),
        digest: ContentHash::of(key.as_bytes()),
    }
}

fn ms(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn answer(content: &[u8]) -> KeptAnswer {
    KeptAnswer {
        status: 200,
        bytes: content.len() as u64,
        content: Some(content.to_vec()),
    }
}

const fn quotas(answers: u64, bytes: u64) -> AnswerQuotas {
    let quota = AnswerQuota { answers, bytes };
    AnswerQuotas {
        install: quota,
        tenant: quota,
    }
}

/// Keeps this content as the answer, if the claim still holds.
async fn kept(
    registry: &dyn Registry,
    claim: &Claim,
    content: &[u8],
    until: Timestamp,
    quotas: AnswerQuotas,
) -> bool {
    let answer = answer(content);
    let keep = registry.keep_answer(claim, &answer, until, quotas);
    keep.await.unwrap()
}

/// Claims a request that is free.
async fn claimed(registry: &dyn Registry, request: &KeyedRequest, until: Timestamp) -> Claim {
    match registry.claim_request(request, ms(0), until).await.unwrap() {
        Claimed::Ours(claim) => claim,
        Claimed::Known(known) => panic!("expected a claim, got {known:?}"),
    }
}

async fn of_two_racing_for_a_version_one_wins(two: &Two) {
    for round in 0..20_u8 {
        let version = format!("1.0.{round}");
        let (our_notes, their_notes) = (notes(&version, &[round, 0]), notes(&version, &[round, 1]));
        let outcomes = tokio::join!(
            two.ours.register_version(&our_notes, change()),
            two.theirs.register_version(&their_notes, change()),
        );
        match outcomes {
            (Ok(won), Err(RegistryError::DuplicateVersion { registered }))
            | (Err(RegistryError::DuplicateVersion { registered }), Ok(won)) => {
                assert_eq!(registered, won.version.content_hash);
            }
            other => panic!("expected one winner, got {other:?}"),
        }
    }
}

async fn of_two_racing_for_a_content_one_wins(two: &Two) {
    for round in 0..20_u8 {
        let named = |name: &str| NewVersion {
            name: format!("com.example.{name}{round}").parse().unwrap(),
            ..notes("1.0.0", &[round])
        };
        let (our_notes, their_notes) = (named("ours"), named("theirs"));
        let outcomes = tokio::join!(
            two.ours.register_version(&our_notes, change()),
            two.theirs.register_version(&their_notes, change()),
        );
        match outcomes {
            (Ok(won), Err(RegistryError::ManifestConflict))
            | (Err(RegistryError::ManifestConflict), Ok(won)) => assert!(won.created),
            other => panic!("expected one winner, got {other:?}"),
        }
    }
    // Who was refused has left no extension either.
    let extensions = two.ours.extensions(PageRequest::first(100)).await.unwrap();
    assert_eq!(extensions.items.len(), 20);
}

async fn of_two_racing_for_the_switches_one_wins_and_both_see_it(two: &Two) {
    let allowing =
        |name: &str| SwitchesEdit::AllowedExtensions(Some([name.parse().unwrap()].into()));
    for generation in 0..20_u64 {
        let (ours, theirs) = (
            allowing(&format!("ours.v{generation}")),
            allowing(&format!("theirs.v{generation}")),
        );
        let outcomes = tokio::join!(
            two.ours.edit_switches(ours, Some(generation), change()),
            two.theirs.edit_switches(theirs, Some(generation), change()),
        );
        match outcomes {
            (Ok(won), Err(RegistryError::Conflict { expected, actual }))
            | (Err(RegistryError::Conflict { expected, actual }), Ok(won)) => {
                assert_eq!((expected, actual), (generation, won.generation));
                assert_eq!(two.ours.switches().await.unwrap(), won);
                assert_eq!(two.theirs.switches().await.unwrap(), won);
            }
            other => panic!("expected one winner, got {other:?}"),
        }
    }
}

async fn of_two_racing_for_the_first_settings_of_a_tenant_one_wins(two: &Two) {
    for round in 0..20 {
        let tenant = TenantId::generate();
        let limiting = |to: u32| TenantEdit::Limits(Some(json!({ "keys": to })));
        let outcomes = tokio::join!(
            two.ours.edit_tenant(tenant, limiting(1), Some(0), change()),
            two.theirs
                .edit_tenant(tenant, limiting(2), Some(0), change()),
        );
        match outcomes {
            (Ok(won), Err(RegistryError::Conflict { actual: 1, .. }))
            | (Err(RegistryError::Conflict { actual: 1, .. }), Ok(won)) => {
                assert_eq!(two.ours.tenant_settings(tenant).await.unwrap(), won);
            }
            other => panic!("expected one winner in round {round}, got {other:?}"),
        }
        let outcomes = tokio::join!(
            two.ours.edit_tenant(tenant, limiting(3), None, change()),
            two.theirs.edit_tenant(tenant, limiting(4), None, change()),
        );
        let generations = [outcomes.0.unwrap(), outcomes.1.unwrap()].map(|it| it.generation);
        assert!([[2, 3], [3, 2]].contains(&generations), "{generations:?}");
    }
}

async fn of_two_racing_for_a_request_one_answers_and_both_have_the_answer(two: &Two) {
    let install = two.an_install().await.id;
    for round in 0..20_u8 {
        let request = request(install, &format!("k{round}"));
        let claims = tokio::join!(
            two.ours.claim_request(&request, ms(0), ms(1_000)),
            two.theirs.claim_request(&request, ms(0), ms(1_000)),
        );
        let (winner, claim) = match claims {
            (Ok(Claimed::Ours(claim)), Ok(Claimed::Known(Known::Theirs))) => (&two.ours, claim),
            (Ok(Claimed::Known(Known::Theirs)), Ok(Claimed::Ours(claim))) => (&two.theirs, claim),
            other => panic!("expected one winner, got {other:?}"),
        };
        let answer = answer(&[round]);
        let keep = winner.keep_answer(&claim, &answer, ms(1_000), quotas(1_000, 1_000));
        assert!(keep.await.unwrap());
        for registry in [&two.ours, &two.theirs] {
            let known = registry.known_request(&request, ms(0)).await.unwrap();
            assert_eq!(known, Some(Known::Answered(answer.clone())));
        }
    }
}

async fn of_two_racing_for_an_expired_key_one_has_it(two: &Two) {
    let install = two.an_install().await.id;
    for round in 0..20 {
        let request = request(install, &format!("k{round}"));
        let former = claimed(&*two.ours, &request, ms(1)).await;
        let answered = async || {
            // Also where what is replaced is being written.
            kept(&*two.ours, &former, b"x", ms(1), quotas(9, 9)).await;
        };
        if round % 2 == 0 {
            answered().await;
        }
        let (ours, theirs, ()) = tokio::join!(
            two.ours.claim_request(&request, ms(1), ms(1_000)),
            two.theirs.claim_request(&request, ms(1), ms(1_000)),
            answered(),
        );
        match (ours.unwrap(), theirs.unwrap()) {
            (Claimed::Ours(_), Claimed::Known(Known::Theirs))
            | (Claimed::Known(Known::Theirs), Claimed::Ours(_)) => {}
            other => panic!("expected one winner, got {other:?}"),
        }
    }
}

async fn a_version_is_installed_or_removed(two: &Two) {
    for round in 0..20 {
        let version = two.version(&format!("1.0.{round}")).await;
        let new = NewInstall::new(TenantId::generate(), version.id);
        let outcomes = tokio::join!(
            two.ours.create_install(&new, change()),
            two.theirs.remove_version(version.id, change()),
        );
        match outcomes {
            (Ok(install), Err(RegistryError::VersionInUse { installs })) => {
                assert_eq!(installs, [install.id]);
            }
            (Err(RegistryError::NotFound { what }), Ok(())) => assert_eq!(what, Resource::Version),
            other => panic!("expected one winner, got {other:?}"),
        }
    }
}

async fn a_version_is_gone_back_to_or_removed(two: &Two) {
    let (first, second) = (two.version("1.0.0").await, two.version("2.0.0").await);
    let install = two.install(&first, TenantId::generate()).await.id;
    let upgrade = || {
        two.ours
            .upgrade_install(install, second.id, Grants::new(), None, change())
    };
    upgrade().await.unwrap();
    for _ in 0..20 {
        let (back, removed, too) = tokio::join!(
            two.ours.roll_back_install(install, None, change()),
            two.theirs.remove_version(first.id, change()),
            two.theirs.remove_version(first.id, change()),
        );
        assert_eq!(back.unwrap().version_id, first.id);
        for removed in [removed, too] {
            assert!(
                matches!(removed, Err(RegistryError::VersionInUse { .. })),
                "{removed:?}"
            );
        }
        upgrade().await.unwrap();
    }
}

async fn a_claim_goes_with_its_install_or_is_refused(two: &Two) {
    let version = two.version("1.0.0").await;
    for _ in 0..20 {
        let install = two.install(&version, TenantId::generate()).await.id;
        let request = request(install, "k");
        let (claim, gone) = tokio::join!(
            two.ours.claim_request(&request, ms(0), ms(1_000)),
            two.theirs
                .set_state(install, InstallState::Uninstalled, None, change()),
        );
        gone.unwrap();
        match claim {
            Ok(Claimed::Ours(claim)) => {
                assert!(!kept(&*two.ours, &claim, b"x", ms(9), quotas(9, 9)).await);
            }
            Err(RegistryError::NotFound { what }) => assert_eq!(what, Resource::Install),
            other => panic!("expected a claim or none, got {other:?}"),
        }
    }
    assert_eq!(two.ours.remove_answers(ms(5_000), 100).await.unwrap(), 0);
}

async fn who_exports_the_audit_meanwhile_misses_nothing(two: &Two) {
    const WRITERS: u64 = 6;
    const EACH: u64 = 20;
    let writers = (0..WRITERS).map(|nth| {
        let registry = Arc::clone(if nth % 2 == 0 { &two.ours } else { &two.theirs });
        tokio::spawn(async move {
            let tenant = TenantId::generate();
            for round in 0..EACH {
                let edit = TenantEdit::Limits(Some(json!(round)));
                let edited = registry.edit_tenant(tenant, edit, None, change()).await;
                edited.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut seen = Vec::new();
    loop {
        let written = writers.iter().all(tokio::task::JoinHandle::is_finished);
        let page = PageRequest {
            after: seen.last().copied(),
            limit: 100,
        };
        let read = two.ours.audit(&AuditFilter::default(), page).await.unwrap();
        seen.extend(read.items.iter().map(|record| record.seq));
        if written && read.items.is_empty() {
            break;
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(seen, (1..=WRITERS * EACH).collect::<Vec<_>>());
}

async fn each_expired_answer_is_removed_once(two: &Two) {
    let version = two.version("1.0.0").await;
    for _ in 0..8 {
        let install = two.install(&version, TenantId::generate()).await.id;
        for key in 0..10_i64 {
            let request = request(install, &format!("k{key}"));
            let claim = claimed(&*two.ours, &request, ms(1)).await;
            if key % 2 == 0 {
                let until = ms(10 + key);
                assert!(kept(&*two.ours, &claim, b"x", until, quotas(99, 99)).await);
            }
        }
    }
    let removed = tokio::join!(
        two.ours.remove_answers(ms(1_000), 30),
        two.theirs.remove_answers(ms(1_000), 30),
        two.ours.remove_answers(ms(1_000), 30),
    );
    let mut removed = [removed.0.unwrap(), removed.1.unwrap(), removed.2.unwrap()];
    removed.sort_unstable();
    assert_eq!(removed, [20, 30, 30]);
}

async fn answers_stay_within_their_quotas_whoever_keeps_and_removes_them(two: &Two) {
    const KEPT: u64 = 5;
    const EACH: i64 = 25;
    let version = two.version("1.0.0").await;
    let (one, other) = (TenantId::generate(), TenantId::generate());
    let mut installs = Vec::new();
    for tenant in [one, other, one, other, one, other] {
        installs.push(two.install(&version, tenant).await);
    }
    let mut tasks = Vec::new();
    for (nth, install) in installs.iter().map(|install| install.id).enumerate() {
        let registry = Arc::clone(if nth % 2 == 0 { &two.ours } else { &two.theirs });
        tasks.push(tokio::spawn(async move {
            for key in 0..EACH {
                let request = request(install, &format!("k{key}"));
                let claim = claimed(&*registry, &request, ms(1_000)).await;
                let until = ms(if key % 3 == 0 { 1 } else { 1_000 + key });
                kept(&*registry, &claim, b"1234", until, quotas(KEPT, 12)).await;
            }
        }));
        let registry = Arc::clone(if nth % 2 == 0 { &two.theirs } else { &two.ours });
        tasks.push(tokio::spawn(async move {
            for _ in 0..EACH {
                registry.remove_answers(ms(1), 3).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for tenant in [one, other] {
        let (mut answers, mut whole) = (0, 0);
        for install in installs.iter().filter(|install| install.tenant == tenant) {
            for key in 0..EACH {
                let request = request(install.id, &format!("k{key}"));
                match two.ours.known_request(&request, ms(1)).await.unwrap() {
                    Some(Known::Answered(KeptAnswer { content, .. })) => {
                        answers += 1;
                        whole += u64::from(content.is_some());
                    }
                    Some(other) => panic!("expected an answer or none, got {other:?}"),
                    None => {}
                }
            }
        }
        // The last one stays as it is, and no more do than the quotas allow.
        assert!((1..=KEPT).contains(&answers), "{answers}");
        assert!((1..=3).contains(&whole), "{whole}");
    }
}

fn upload() -> NewBundleUpload {
    NewBundleUpload {
        id: uuid::Uuid::now_v7(),
        actor: "admin".to_owned(),
        filename: "notes.tar.zst".to_owned(),
        content_type: String::new(),
        size: 100,
        declared_hash: None,
        store_upload: None,
    }
}

async fn of_two_who_go_on_with_an_upload_one_does(two: &Two) {
    let new = upload();
    assert!(two.ours.begin_upload(&new, ms(0)).await.unwrap());
    for from in 0..20 {
        let of = |part: &str| UploadProgress {
            from,
            to: from + 1,
            parts: Some(vec![part.to_owned()]),
        };
        let (our_step, their_step) = (of("ours"), of("theirs"));
        let (ours, theirs) = tokio::join!(
            two.ours.progress_upload(new.id, &our_step, ms(1)),
            two.theirs.progress_upload(new.id, &their_step, ms(1)),
        );
        let winner = match (ours.unwrap(), theirs.unwrap()) {
            (true, false) => "ours",
            (false, true) => "theirs",
            both => panic!("expected one winner, got {both:?}"),
        };
        let found = two.ours.upload(new.id).await.unwrap().unwrap();
        assert_eq!(
            (found.received, found.parts),
            (from + 1, vec![winner.to_owned()])
        );
    }
}

async fn each_old_upload_is_removed_once(two: &Two) {
    for _ in 0..100 {
        two.ours.begin_upload(&upload(), ms(0)).await.unwrap();
    }
    let mut removed = 0;
    loop {
        let (ours, theirs) = tokio::join!(
            two.ours.remove_uploads(ms(1), 7),
            two.theirs.remove_uploads(ms(1), 7),
        );
        let both = ours.unwrap() + theirs.unwrap();
        removed += both;
        if both == 0 {
            break;
        }
    }
    assert_eq!(removed, 100);
}
