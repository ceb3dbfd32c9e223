//! A server of the program itself, with the storage of a stage behind its route.

use std::net::SocketAddr;
use std::time::Duration;

use alga_runner::app::App;
use alga_runner::config::{Config, Role, TokenConfig, TokenScope};
use alga_runner::http::{AppState, Server, StorageApi};
use alga_runner::tokens::Tokens;
use alga_storage::suite::Stage;
use alga_storage::{RemoteOptions, RemoteService};
use tempfile::TempDir;

/// A server that serves as long as the test runs.
pub(crate) struct StorageServer {
    pub(crate) url: String,
    _data: TempDir,
}

impl StorageServer {
    pub(crate) const TOKEN: &str = "service-token-of-the-tests-0123456789";
    pub(crate) const ADMIN: &str = "admin-token-of-the-tests-0123456789";
    /// Good for no install that there is.
    pub(crate) const LIMITED: &str = "limited-token-of-the-tests-0123456789";

    /// Serves the storage of a stage; all else is that of an empty deployment.
    pub(crate) async fn start(stage: &Stage) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.data.dir = data.path().to_owned();
        config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.server.role = Some(Role::Storage);
        let none = Some([alga_model::TenantId::generate()].into());
        config.auth.service_tokens = vec![
            token("tests", Self::TOKEN, TokenScope::default()),
            token(
                "limited",
                Self::LIMITED,
                TokenScope {
                    tenants: none,
                    ..TokenScope::default()
                },
            ),
        ];
        config.auth.admin_tokens = vec![token("admin", Self::ADMIN, TokenScope::default())];
        let mut app = App::build(&config).await.unwrap();
        app.storage = Some(StorageApi::new(stage.gate().clone(), stage.grants()));
        let tokens = Tokens::open(&config).unwrap();
        let most = usize::try_from(config.server.max_body_bytes).unwrap();
        let state = AppState::new(app, Some(tokens), None, most);
        let server = Server::bind(config.server.listen).await.unwrap();
        let url = format!("http://{}", server.address);
        tokio::spawn(server.serve(state, std::future::pending(), Duration::ZERO));
        Self { url, _data: data }
    }

    pub(crate) fn options(&self) -> RemoteOptions {
        super::options(&self.url, Self::TOKEN)
    }

    pub(crate) fn client(&self) -> RemoteService {
        RemoteService::new(&self.options()).unwrap()
    }
}

fn token(id: &str, token: &str, scope: TokenScope) -> TokenConfig {
    TokenConfig {
        id: id.to_owned(),
        token: alga_model::Secret::new(token.to_owned()),
        scope,
    }
}
