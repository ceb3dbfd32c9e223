//! Requests a second over HTTP, beside bare axum with and without Wasm.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use alga_runner::app::{App, engine_options};
use alga_runner::http::{AppState, Server};
use alga_runner::tokens::Tokens;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use tokio::net::TcpListener;

use super::bare::{self, Bare};
use super::{client, stage};
use crate::measure::{in_turns, median};
use crate::report::{Bar, Figure};
use crate::session::Bench;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const MAX_BODY_BYTES: usize = 10 << 20;

/// Ours, beside a handler that only instantiates and calls the same component.
pub(super) async fn beside_wasm(bench: Bench) -> anyhow::Result<Figure> {
    let ours = Ours::start(&bench).await?;
    let component = std::fs::read(stage::bundle_of("notes").join("dist/main.wasm"))?;
    let engine = Bare::engine(&engine_options(&stage::config(&bench, "data")))?;
    let bare = Router::new()
        .route("/v1/installs/{install_id}/http/{*path}", any(answer))
        .route("/v1/installs/{install_id}/http/", any(answer))
        .with_state(Bare::compile(&engine, &component)?);
    measure(&bench, ours, bare, Bar::AtLeast(0.85)).await
}

/// Ours, beside a handler that answers a constant.
pub(super) async fn beside_hello(bench: Bench) -> anyhow::Result<Figure> {
    let ours = Ours::start(&bench).await?;
    let hello = Router::new().route("/v1/installs/{install_id}/http/", get(|| async { "Hello" }));
    measure(&bench, ours, hello, Bar::AtLeast(0.25)).await
}

async fn measure(bench: &Bench, ours: Ours, bare: Router, bar: Bar) -> anyhow::Result<Figure> {
    let listener = TcpListener::bind(LOOPBACK).await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(async move { axum::serve(listener, bare).await });
    let turns = in_turns(
        bench,
        |_| client::load(address, ours.request.clone()),
        |_| client::load(ours.address, ours.request.clone()),
    )
    .await?;
    serving.abort();
    let bare = median(turns.iter().map(|(bare, _)| *bare));
    let ours = median(turns.iter().map(|(_, ours)| *ours));
    Ok(Figure::new(ours, "requests/s").against(bare, bar))
}

/// A server with the defaults, as `alga-runner serve` starts one.
struct Ours {
    address: SocketAddr,
    request: String,
}

impl Ours {
    async fn start(bench: &Bench) -> anyhow::Result<Self> {
        let config = stage::config(bench, "data");
        let app = App::build(&config).await?;
        let install = stage::install(&app, bench, &stage::bundle_of("notes")).await?;
        let tokens = Tokens::open(&config)?;
        let token = std::fs::read_to_string(config.data.service_token())?;
        let state = AppState::new(app, Some(tokens), None, MAX_BODY_BYTES);
        let server = Server::bind(LOOPBACK).await?;
        let address = server.address;
        tokio::spawn(server.serve(state, std::future::pending(), Duration::ZERO));
        let request = format!(
            "GET /v1/installs/{}/http/ HTTP/1.1\r\n\
             host: {address}\r\n\
             authorization: Bearer {}\r\n\
             accept: application/json\r\n\
             user-agent: alga-bench\r\n\r\n",
            install.install.id,
            token.trim(),
        );
        Ok(Self { address, request })
    }
}

/// Hands a request to the guest, and its answer back.
async fn answer(
    State(bare): State<Bare>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, StatusCode> {
    let request = bare::Request {
        method: method.to_string(),
        path: "/".to_owned(),
        query: uri.query().map(ToOwned::to_owned),
        headers: headers
            .iter()
            .filter_map(|(name, value)| {
                Some(bare::Header {
                    name: name.to_string(),
                    value: value.to_str().ok()?.to_owned(),
                })
            })
            .collect(),
        body: (!body.is_empty()).then(|| body.to_vec()),
    };
    let answer = bare.call(&request).await;
    let answer = answer.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let status = StatusCode::from_u16(answer.status).map_err(|_| StatusCode::BAD_GATEWAY)?;
    let headers = answer
        .headers
        .into_iter()
        .map(|header| (header.name, header.value));
    let headers: Vec<_> = headers.collect();
    let body = Body::from(answer.body.unwrap_or_default());
    let mut response = (status, body).into_response();
    for (name, value) in headers {
        let name = axum::http::HeaderName::try_from(name);
        if let (Ok(name), Ok(value)) = (name, value.parse()) {
            response.headers_mut().append(name, value);
        }
    }
    Ok(response)
}
