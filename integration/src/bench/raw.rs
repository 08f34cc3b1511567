//! The engine without anything between: HTTP over its Unix socket, one connection for one call at a time.
//! What it answers is read to the end and, for the floor, not even parsed.

use std::path::PathBuf;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use uuid::Uuid;

/// Containers made or removed at once.
const PARALLEL: usize = 8;

/// An engine.
#[derive(Debug, Clone)]
pub struct Raw {
    socket: PathBuf,
    prefix: String,
}

/// A connection to it.
#[derive(Debug)]
pub struct Connection(SendRequest<Full<Bytes>>);

/// How a container is made.
#[derive(Debug, Clone)]
pub struct Model {
    /// Its image.
    pub image: String,
    /// Its command; the image's if there is none.
    pub command: Option<Vec<String>>,
    /// As the agent makes it, with a network, a published port and limits. Otherwise with neither, which is
    /// quicker to make a thousand of.
    pub whole: bool,
}

impl Raw {
    /// The engine at `host`, in the form of DOCKER_HOST. `prefix` is what the names of its workspaces' things
    /// begin with.
    ///
    /// # Panics
    /// When it is not a Unix socket.
    pub fn new(host: &str, prefix: &str) -> Self {
        let socket = host.strip_prefix("unix://").expect("a Unix socket");
        Self {
            socket: socket.into(),
            prefix: prefix.to_owned(),
        }
    }

    /// Connects.
    ///
    /// # Panics
    /// When nothing answers.
    pub async fn connect(&self) -> Connection {
        let stream = UnixStream::connect(&self.socket).await.expect("the engine");
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.expect("HTTP");
        tokio::spawn(connection);
        Connection(sender)
    }

    /// The path that lists all containers of workspaces, as the agent asks.
    pub fn containers_path(&self) -> String {
        let labels = [
            "dev.windlass.workspace".to_owned(),
            format!("dev.windlass.prefix={}", self.prefix),
        ];
        let filters = json!({ "label": labels }).to_string();
        format!("/containers/json?all=1&filters={}", escaped(&filters))
    }

    /// The path that lists all volumes of workspaces, as the agent asks.
    pub fn volumes_path(&self) -> String {
        let filters = json!({ "name": [self.prefix] }).to_string();
        format!("/volumes?filters={}", escaped(&filters))
    }

    /// Name of a workspace's container.
    pub fn container(&self, id: Uuid) -> String {
        format!("{}{id}", self.prefix)
    }

    /// Name of a workspace's volume.
    pub fn volume(&self, id: Uuid) -> String {
        format!("{}{id}-home", self.prefix)
    }

    /// Makes and starts a container with its volume for each workspace, `at_once` at a time. The volume_id is
    /// the workspace's id.
    ///
    /// # Panics
    /// When the engine refuses.
    pub async fn make(&self, ids: &[Uuid], model: &Model, at_once: usize) {
        stream::iter(ids)
            .map(|&id| self.make_one(id, model))
            .buffer_unordered(at_once)
            .collect::<()>()
            .await;
    }

    /// [`Raw::make`], a few at a time.
    pub async fn make_many(&self, ids: &[Uuid], model: &Model) {
        self.make(ids, model, PARALLEL).await;
    }

    async fn make_one(&self, id: Uuid, model: &Model) {
        let mut engine = self.connect().await;
        let label = |name: &str, value: String| (format!("dev.windlass.{name}"), value);
        let labels = |more: &[(&str, String)]| -> serde_json::Map<String, Value> {
            let own = [
                label("workspace", id.to_string()),
                label("prefix", self.prefix.clone()),
            ];
            let more = more.iter().map(|(n, v)| label(n, v.clone()));
            let all = own.into_iter().chain(more);
            all.map(|(n, v)| (n, Value::from(v))).collect()
        };
        let volume = json!({
            "Name": self.volume(id),
            "Labels": labels(&[("volume-id", id.to_string())]),
        });
        engine.must(Method::POST, "/volumes/create", volume).await;

        let mut host = json!({
            "Mounts": [{
                "Type": "volume", "Source": self.volume(id), "Target": "/home/coder",
                "ReadOnly": false, "VolumeOptions": { "NoCopy": true },
            }],
            "RestartPolicy": { "Name": "no" },
            "SecurityOpt": ["no-new-privileges"],
        });
        let mut body = json!({
            "Image": model.image,
            "Hostname": id.simple().to_string()[..12],
            "Labels": labels(&[("op-id", id.to_string()), ("attempt", "0".to_owned())]),
        });
        if let Some(command) = &model.command {
            body["Cmd"] = json!(command);
        }
        if model.whole {
            let memory = 2u64 << 30;
            body["ExposedPorts"] = json!({ "8080/tcp": {} });
            host["PortBindings"] =
                json!({ "8080/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "" }] });
            host["NanoCpus"] = json!(2_000_000_000u64);
            host["Memory"] = json!(memory);
            host["MemorySwap"] = json!(memory);
            host["PidsLimit"] = json!(4096);
            host["Init"] = json!(true);
        } else {
            host["NetworkMode"] = json!("none");
        }
        body["HostConfig"] = host;
        let path = format!("/containers/create?name={}", self.container(id));
        engine.must(Method::POST, &path, body).await;
        let path = format!("/containers/{}/start", self.container(id));
        engine.must(Method::POST, &path, Value::Null).await;
    }

    /// Removes every container and volume of the prefix.
    ///
    /// # Panics
    /// When the engine cannot be asked. What it does not remove stays.
    pub async fn remove_all(&self) {
        let names = |list: &[u8], of: &str| -> Vec<String> {
            let list: Value = serde_json::from_slice(list).expect("JSON");
            let list = list.get("Volumes").cloned().unwrap_or(list);
            let entries = list.as_array().cloned().unwrap_or_default();
            let name = |e: &Value| Some(e.get(of)?.as_str()?.to_owned());
            entries.iter().filter_map(name).collect()
        };
        let mut engine = self.connect().await;
        let containers = names(&engine.get(&self.containers_path()).await, "Id");
        let paths = containers
            .iter()
            .map(|id| format!("/containers/{id}?force=1&v=1"));
        self.delete(paths.collect()).await;
        let volumes = names(&engine.get(&self.volumes_path()).await, "Name");
        let paths = volumes.iter().map(|name| format!("/volumes/{name}"));
        self.delete(paths.collect()).await;
    }

    async fn delete(&self, paths: Vec<String>) {
        stream::iter(paths)
            .map(|path| async move {
                let mut engine = self.connect().await;
                engine.call(Method::DELETE, &path, Value::Null).await;
            })
            .buffer_unordered(PARALLEL)
            .collect::<()>()
            .await;
    }
}

impl Connection {
    /// One request; the status and the whole body.
    ///
    /// # Panics
    /// When the connection breaks.
    pub async fn call(&mut self, method: Method, path: &str, body: Value) -> (StatusCode, Bytes) {
        let body = match body {
            Value::Null => Bytes::new(),
            body => Bytes::from(body.to_string()),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "engine")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .expect("a request");
        self.0.ready().await.expect("an open connection");
        let response = self.0.send_request(request).await.expect("an answer");
        let status = response.status();
        let chunks = response.into_body().into_data_stream();
        let parts: Vec<Bytes> = chunks.try_collect().await.expect("a whole answer");
        (status, parts.concat().into())
    }

    async fn must(&mut self, method: Method, path: &str, body: Value) -> Bytes {
        let (status, answer) = self.call(method, path, body).await;
        let text = || String::from_utf8_lossy(&answer).into_owned();
        assert!(
            status.is_success() || status == StatusCode::NOT_MODIFIED,
            "{path}: {status} {}",
            text()
        );
        answer
    }

    /// GET, which must succeed; the whole body.
    ///
    /// # Panics
    /// When it does not.
    pub async fn get(&mut self, path: &str) -> Bytes {
        self.must(Method::GET, path, Value::Null).await
    }
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                char::from(b).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}
