//! A whole review over TLS keep-alive, beside servers on the same stack that answer `allowed: true` to everything; and
//! what the process costs at rest. `cargo bench --bench review`
//!
//! Goals: 0.8 of the others' throughput; 16 MiB resident when idle; a binary of 12 MB.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark ends where it fails")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::routing::post;
use gwmon::certs::issue::Certificates;
use gwmon::certs::serving::{CurrentLeaf, server_config};
use gwmon::config::Config;
use gwmon::metrics::Metrics;
use gwmon::webhook::{Admission, router};
use serde::Deserialize;
use serde_json::json;
use support::{Gwmon, Https, pod_review};
use tokio::net::TcpListener;

const CONNECTIONS: usize = 4;
const REVIEWS: usize = 4_000;
const ROUNDS: usize = 7;

/// Answers without reading what was asked, which no API server would accept: the stack alone.
fn answer_unread() -> Router {
    let answer = async |_: Bytes| {
        let body = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"705ab4f5-6393-11e8-b7cc-42010a800002","allowed":true}}"#;
        ([(header::CONTENT_TYPE, "application/json")], body)
    };
    Router::new().route("/mutate/pods", post(answer))
}

/// Reads the one thing that every answer must repeat: the least that a webhook can do.
fn allow_everything() -> Router {
    #[derive(Deserialize)]
    struct Review<'a> {
        #[serde(borrow)]
        request: Request<'a>,
    }
    #[derive(Deserialize)]
    struct Request<'a> {
        uid: &'a str,
    }
    let answer = async |body: Bytes| {
        let review: Review = serde_json::from_slice(&body).unwrap();
        let answer = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": {"uid": review.request.uid, "allowed": true},
        });
        ([(header::CONTENT_TYPE, "application/json")], answer.to_string())
    };
    Router::new().route("/mutate/pods", post(answer))
}

async fn serve(router: Router, certificates: &Certificates) -> u16 {
    let leaf = Arc::new(CurrentLeaf::default());
    leaf.put(&certificates.leaf, &certificates.leaf_key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Arc::new(server_config(leaf, None).unwrap());
    tokio::spawn(gwmon::server::serve(listener, Some(config), router, 64, std::future::pending()));
    port
}

/// Reviews a second, over several connections at once.
async fn throughput(port: u16, authority: &str, body: &Arc<Vec<u8>>) -> f64 {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Https::connect(port, "localhost", authority.as_bytes()).await.unwrap());
    }
    let started = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let body = Arc::clone(body);
            tokio::spawn(async move {
                for _ in 0..REVIEWS / CONNECTIONS {
                    let (status, _) = client.post("/mutate/pods", &body).await.unwrap();
                    assert_eq!(status, 200);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    f64::from(u32::try_from(REVIEWS).unwrap()) / started.elapsed().as_secs_f64()
}

#[tokio::main]
async fn main() {
    let certificates = Certificates::new(&["localhost".to_owned()], time::OffsetDateTime::now_utc()).unwrap();
    let admission = Admission::new(Config::default(), Arc::default(), Metrics::new().0);
    let gwmon = serve(router(&Arc::new(admission)), &certificates).await;
    let others = [("the stack alone", answer_unread()), ("allow everything", allow_everything())];
    // As large as pods are once the API server has filled in its defaults and noted who manages what.
    let mut review = pod_review();
    let env: Vec<_> = (0..90).map(|i| json!({"name": format!("VARIABLE_{i}"), "value": "x".repeat(64)})).collect();
    review["request"]["object"]["spec"]["containers"][0]["env"] = json!(env);
    let body = Arc::new(review.to_string().into_bytes());

    println!("reviews/s over TLS, {CONNECTIONS} keep-alive connections, {} bytes each", body.len());
    for (name, router) in others {
        let other = serve(router, &certificates).await;
        // In turn, so that both meet the same machine; the ratio of each pair, and of those the median.
        let mut ratios = Vec::new();
        for round in 0..=ROUNDS {
            let (ours, theirs) = (
                throughput(gwmon, &certificates.authorities, &body).await,
                throughput(other, &certificates.authorities, &body).await,
            );
            if round > 0 {
                println!("  gwmon {ours:8.0}   {name} {theirs:8.0}   ratio {:.3}", ours / theirs);
                ratios.push(ours / theirs);
            }
        }
        ratios.sort_by(f64::total_cmp);
        println!("median ratio to {name} {:.3} (goal 0.8)", ratios[ROUNDS / 2]);
    }

    let idle = Gwmon::standalone();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    println!("resident when idle {:.1} MiB (goal 16)", idle.resident_kib() / 1024.);
    idle.connect("localhost").await.unwrap().post("/mutate/pods", &body).await.unwrap();
    println!("resident after a review {:.1} MiB", idle.resident_kib() / 1024.);
    let binary = std::fs::metadata(env!("CARGO_BIN_EXE_gwmon")).unwrap().len();
    println!("binary {:.2} MB (goal 12)", f64::from(u32::try_from(binary).unwrap()) / 1e6);
}
