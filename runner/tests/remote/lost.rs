//! Requests and answers that get lost on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alga_storage::suite::Stage;
use alga_storage::{AuditFilter, Error, Guard, Limits, RemoteOptions, RemoteService};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::over_sqlite;
use super::server::StorageServer;

/// What becomes of the connections that a proxy takes.
#[derive(Debug, Clone, Copy)]
enum Loses {
    /// The request is not passed on.
    Requests,
    /// It is, and its answer is not.
    Answers,
}

/// A proxy that loses what the first connections carry; the later ones are fine.
struct LossyProxy {
    url: String,
    lost: Arc<AtomicUsize>,
}

impl LossyProxy {
    async fn before(server: &StorageServer, loses: Loses, connections: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let lost = Arc::new(AtomicUsize::new(0));
        let upstream = server.url.strip_prefix("http://").unwrap().to_owned();
        let count = Arc::clone(&lost);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let upstream = upstream.clone();
                if count.load(Ordering::SeqCst) < connections {
                    count.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(lose(client, upstream, loses));
                } else {
                    tokio::spawn(pass_on(client, upstream));
                }
            }
        });
        Self { url, lost }
    }

    fn lost(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }
}

async fn pass_on(mut client: TcpStream, upstream: String) {
    let mut server = TcpStream::connect(upstream).await.unwrap();
    let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

async fn lose(client: TcpStream, upstream: String, loses: Loses) {
    let (mut client, _to_client) = client.into_split();
    let mut head = [0; 1];
    client.read_exact(&mut head).await.unwrap();
    if let Loses::Answers = loses {
        let server = TcpStream::connect(upstream).await.unwrap();
        let (mut answers, mut server) = server.into_split();
        server.write_all(&head).await.unwrap();
        let passing_on = tokio::spawn(async move {
            let _ended = tokio::io::copy(&mut client, &mut server).await;
        });
        // It is answered, so it is done.
        let answered = answers.read(&mut head).await.unwrap();
        assert!(answered > 0);
        passing_on.abort();
    }
}

async fn behind(server: &StorageServer, loses: Loses, times: usize) -> (LossyProxy, RemoteService) {
    let proxy = LossyProxy::before(server, loses, times).await;
    let options = RemoteOptions {
        url: proxy.url.parse().unwrap(),
        ..server.options()
    };
    (proxy, RemoteService::new(&options).unwrap())
}

async fn changes(stage: &Stage, tenant: alga_model::TenantId) -> usize {
    let filter = AuditFilter {
        tenant: Some(tenant),
        ..AuditFilter::default()
    };
    let audit = stage.maintenance().audit(&filter, None, 100).await;
    audit.unwrap().len()
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_repeated_and_done_once() {
    for loses in [Loses::Answers, Loses::Requests] {
        let stage = over_sqlite().await;
        let server = StorageServer::start(&stage).await;
        let (proxy, client) = behind(&server, loses, 2).await;
        let stage = stage.behind(Arc::new(client));
        let install = stage.install();
        // Judged anew, it would be a conflict.
        let written = install.put_if("a", "1", Guard::Absent).await.unwrap();
        assert_eq!((written.revision.get(), proxy.lost()), (1, 2));
        assert_eq!(changes(&stage, install.tenant).await, 1);
        let stored = install.get("a").await.unwrap();
        assert_eq!(stored.revision.get(), 1);
    }
}

#[tokio::test]
async fn a_delete_whose_answer_was_lost_says_that_there_was_something() {
    let stage = over_sqlite().await;
    let server = StorageServer::start(&stage).await;
    let (proxy, client) = behind(&server, Loses::Answers, 1).await;
    let install = stage.install();
    install.put("a", "1").await.unwrap();
    let (tenant, caller) = (install.tenant, install.caller.clone());
    let stage = stage.behind(Arc::new(client));
    let delete = alga_storage::DeleteRequest {
        namespace: alga_storage::Namespace::parse("notes").unwrap(),
        key: alga_storage::Key::parse("a").unwrap(),
        guard: Guard::Exists,
    };
    assert!(stage.gate().delete(&caller, delete).await.unwrap());
    assert_eq!(proxy.lost(), 1);
    assert_eq!(changes(&stage, tenant).await, 2);
}

/// What a repeat is refused for says nothing of the first one.
#[tokio::test]
async fn a_repeat_that_meets_a_rate_waits_and_one_that_meets_a_refusal_leaves_it_open() {
    let stage = over_sqlite().await;
    let server = StorageServer::start(&stage).await;
    let (_proxy, client) = behind(&server, Loses::Answers, 1).await;
    let stage = stage.behind(Arc::new(client));
    let one = alga_storage::RateLimit {
        per_second: 1,
        burst: 1,
    };
    let limits = Limits {
        rates: alga_storage::Rates::new(one, one, 5),
        ..Limits::default()
    };
    let install = stage.install_with(alga_model::TenantId::generate(), limits);
    let written = install.put_if("a", "1", Guard::Absent).await.unwrap();
    assert_eq!(written.revision.get(), 1);
    assert_eq!(changes(&stage, install.tenant).await, 1);

    let stage = over_sqlite().await;
    let server = StorageServer::start(&stage).await;
    let (proxy, client) = behind(&server, Loses::Answers, 1).await;
    let stage = stage.behind(Arc::new(client));
    let install = stage.install();
    let revoked = async {
        while proxy.lost() == 0 || changes(&stage, install.tenant).await == 0 {
            tokio::task::yield_now().await;
        }
        install.grant(None, Stage::roomy(), true);
    };
    let (refused, ()) = tokio::join!(install.put("a", "1"), revoked);
    let refused = refused.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused:?}");
}

#[tokio::test]
async fn after_the_last_repeat_the_storage_is_unavailable() {
    let stage = over_sqlite().await;
    let server = StorageServer::start(&stage).await;
    let (proxy, client) = behind(&server, Loses::Requests, 3).await;
    let stage = stage.behind(Arc::new(client));
    let install = stage.install();
    let refused = install.put("a", "1").await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused:?}");
    assert_eq!(proxy.lost(), 3);
    assert_eq!(changes(&stage, install.tenant).await, 0);
    // And as soon as it is there again, it is.
    install.put("a", "1").await.unwrap();
}

#[tokio::test]
async fn what_nobody_serves_is_unavailable_within_its_time() {
    let stage = over_sqlite().await;
    let server = StorageServer::start(&stage).await;
    // Takes connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone_url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let stage = stage.behind(Arc::new(server.client()));
    let stages = [silent_url, gone_url].map(|url| {
        let options = RemoteOptions {
            timeout: Duration::from_millis(300),
            ..super::options(&url, StorageServer::TOKEN)
        };
        RemoteService::new(&options).unwrap()
    });
    let install = stage.install();
    for client in stages {
        let gate = alga_storage::Gate::before_another(stage.grants(), Arc::new(client));
        let refused = gate.usage(&install.caller).await.unwrap_err();
        assert!(matches!(refused, Error::Unavailable(_)), "{refused:?}");
    }
}

#[tokio::test]
async fn a_server_without_the_storage_is_no_empty_store() {
    let stage = over_sqlite().await;
    let server = StorageServer::start(&stage).await;
    let wrong_path = format!("{}/somewhere", server.url);
    let client = RemoteService::new(&super::options(&wrong_path, StorageServer::TOKEN)).unwrap();
    let stage = stage.behind(Arc::new(client));
    let refused = stage.install().get("a").await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused:?}");
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_no_matter_of_whoever_asked() {
    let stage = over_sqlite().await;
    let server = StorageServer::start(&stage).await;
    let wrong = "wrong-token-of-the-tests-0123456789";
    let client = RemoteService::new(&super::options(&server.url, wrong)).unwrap();
    assert!(!format!("{client:?}").contains(wrong));
    let stage = stage.behind(Arc::new(client));
    let refused = stage.install().get("a").await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused:?}");
}
