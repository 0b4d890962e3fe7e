//! An API server for unit tests: a table of objects, lists and watches of them, and a record of what was asked. It knows nothing of
//! validation, which is what the tests on a real one are for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use crate::cluster::FIELD_MANAGER;
use crate::lock::lock;

type Reply = Response<StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

/// The server. Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct MockApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// By path.
    objects: BTreeMap<String, Value>,
    /// The answers to requests that fail: method and path, code, message.
    failures: Vec<(String, u16, String)>,
    /// The collections that are watched.
    watches: Vec<(String, UnboundedSender<Bytes>)>,
    requests: Vec<(String, Value)>,
    version: u64,
}

/// The path of the list of all namespaces' objects of a kind, and true if the path is such a list itself.
fn collection(path: &str) -> (String, bool) {
    let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
    let group = if parts[0] == "api" { 2 } else { 3 };
    let (group, rest) = parts.split_at(group.min(parts.len()));
    let (resource, is_list) = match rest {
        ["namespaces", _, resource] | [resource] => (resource, true),
        ["namespaces", _, resource, _] | [resource, _] => (resource, false),
        _ => panic!("{path}"),
    };
    (format!("/{}/{resource}", group.join("/")), is_list)
}

impl State {
    /// Stores an object as the server would, and tells those who watch. `None` removes it.
    fn store(&mut self, path: &str, object: Option<Value>) -> Value {
        self.version += 1;
        let is_new = !self.objects.contains_key(path);
        let (kind, mut object) = match object {
            Some(object) => (if is_new { "ADDED" } else { "MODIFIED" }, object),
            None => ("DELETED", self.objects.remove(path).unwrap()),
        };
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if kind != "DELETED" {
            self.objects.insert(path.to_owned(), object.clone());
        }
        let event = Bytes::from(json!({"type": kind, "object": object}).to_string() + "\n");
        let (of, _) = collection(path);
        self.watches.retain(|(watched, watch)| *watched != of || watch.unbounded_send(event.clone()).is_ok());
        object
    }
}

impl MockApi {
    pub(super) fn client(&self) -> Client {
        let api = self.clone();
        Client::new(
            service_fn(move |request| {
                let api = api.clone();
                async move { Ok::<_, Infallible>(api.answer(request).await) }
            }),
            "default",
        )
    }

    /// Has an object at this path.
    pub(super) fn put(&self, path: &str, object: Value) {
        lock(&self.0).store(path, Some(object));
    }

    pub(super) fn remove(&self, path: &str) {
        lock(&self.0).store(path, None);
    }

    pub(super) fn object(&self, path: &str) -> Option<Value> {
        lock(&self.0).objects.get(path).cloned()
    }

    /// Fails requests of this method and path from now on.
    pub(super) fn fail(&self, request: &str, code: u16, message: &str) {
        lock(&self.0).failures.push((request.to_owned(), code, message.to_owned()));
    }

    /// The requests since the last call, as method and path, with their bodies.
    pub(super) fn requests(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut lock(&self.0).requests)
    }

    async fn answer(&self, request: Request<Body>) -> Reply {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let query =
            request.uri().query().unwrap_or_default().replace("%2F", "/").replace("%21", "!").replace("%3D", "=");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let mut state = lock(&self.0);
        let asked = format!("{method} {path}");
        let failure = state.failures.iter().find(|(request, ..)| *request == asked).cloned();
        state.requests.push((asked, Value::clone(&body)));
        if let Some((_, code, message)) = failure {
            return refusal(code, &message);
        }
        let (of, is_list) = collection(&path);
        match method {
            Method::GET if is_list => {
                let is_of = |(path, _): &(&String, &Value)| collection(path).0 == of;
                let found: Vec<_> = state.objects.iter().filter(is_of).map(|(_, object)| object.clone()).collect();
                if query.contains("watch=") {
                    let (send, receive) = unbounded();
                    state.watches.push((of, send));
                    return Response::new(StreamBody::new(receive.map(|event| Ok(Frame::data(event))).boxed()));
                }
                let selector = query.split('&').find_map(|part| part.strip_prefix("labelSelector="));
                let selector = selector.filter(|selector| !selector.is_empty());
                let is_selected = |object: &Value| {
                    let label = |key: &str| object["metadata"]["labels"][key].as_str();
                    let meets = |term: &str| match (term.strip_prefix('!'), term.split_once('=')) {
                        (Some(key), _) => label(key).is_none(),
                        (None, Some((key, value))) => label(key) == Some(value),
                        (None, None) => label(term).is_some(),
                    };
                    selector.is_none_or(meets)
                };
                let items: Vec<_> = found.into_iter().filter(is_selected).collect();
                reply(200, &json!({"metadata": {"resourceVersion": state.version.to_string()}, "items": items}))
            }
            Method::GET => match state.objects.get(&path) {
                Some(object) => reply(200, object),
                None => refusal(404, "not found"),
            },
            Method::PATCH => {
                let mut object: Value = body;
                let before = state.objects.get(&path);
                object["metadata"]["uid"] = before.map_or_else(|| json!("made"), |old| old["metadata"]["uid"].clone());
                object["metadata"]["managedFields"] = json!([{"manager": FIELD_MANAGER, "operation": "Apply"}]);
                reply(200, &state.store(&path, Some(object)))
            }
            Method::DELETE => {
                let removed = state.store(&path, None);
                reply(200, &removed)
            }
            // An Event, or a question about rights.
            _ => {
                let mut object = body;
                object["status"] = json!({"allowed": true});
                reply(201, &object)
            }
        }
    }
}

fn reply(code: u16, object: &Value) -> Reply {
    let body = Bytes::from(object.to_string());
    let body = StreamBody::new(stream::iter([Ok(Frame::data(body))]).boxed());
    Response::builder().status(code).body(body).unwrap()
}

fn refusal(code: u16, message: &str) -> Reply {
    let reason = if code == 404 { "NotFound" } else { "" };
    reply(code, &json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}))
}
