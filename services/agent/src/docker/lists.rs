//! The engine's lists, decoded as far as they are used. They are what the agent asks for again and again, and
//! bollard's models hold all that the engine says: for a thousand containers that costs more than the list.
//!
//! bollard hands out bodies of exports only. So one is asked for, and the request turned into another before
//! it is sent: connection, deadline and errors are bollard's.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use bollard::errors::Error as EngineError;
use futures::StreamExt;
use http::Uri;
use http::uri::PathAndQuery;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{DockerError, Engine, TIMEOUT, label};

/// No container is named so.
const NOBODY: &str = "-";

/// A container in the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Container {
    pub(super) id: Option<String>,
    pub(super) names: Option<Vec<String>>,
    pub(super) image: Option<String>,
    pub(super) state: Option<String>,
    pub(super) status: Option<String>,
    #[serde(deserialize_with = "own_labels")]
    pub(super) labels: HashMap<String, String>,
    pub(super) mounts: Option<Vec<Mount>>,
}

/// Something mounted in a container.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Mount {
    /// Of the volume, if it is one.
    pub(super) name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Volumes {
    volumes: Option<Vec<Volume>>,
}

/// A volume in the list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) mountpoint: String,
    #[serde(default, deserialize_with = "own_labels")]
    pub(super) labels: HashMap<String, String>,
}

impl Engine {
    /// Containers in any state that fit one of the filter's values.
    pub(super) async fn containers(
        &self,
        filter: &str,
        values: Vec<String>,
    ) -> Result<Vec<Container>, DockerError> {
        let target = format!("/containers/json?all=1&{}", filters(filter, values));
        self.list("list containers", target).await
    }

    /// Volumes that fit one of the filter's values.
    pub(super) async fn volumes(
        &self,
        filter: &str,
        values: Vec<String>,
    ) -> Result<Vec<Volume>, DockerError> {
        let target = format!("/volumes?{}", filters(filter, values));
        let list: Volumes = self.list("list volumes", target).await?;
        Ok(list.volumes.unwrap_or_default())
    }

    async fn list<T: DeserializeOwned + Send + 'static>(
        &self,
        action: &'static str,
        target: String,
    ) -> Result<T, DockerError> {
        let target = target
            .parse::<PathAndQuery>()
            .map_err(|error| DockerError::new(action, error.into()))?;
        let body = self
            .call(action, TIMEOUT, async |docker| {
                let docker = docker.with_request_modifier(move |mut request| {
                    if let Some(uri) = aimed_at(request.uri(), &target) {
                        *request.uri_mut() = uri;
                    }
                    request
                });
                let mut chunks = std::pin::pin!(docker.export_container(NOBODY));
                let mut body = Vec::new();
                while let Some(chunk) = chunks.next().await {
                    body.extend_from_slice(&chunk?);
                }
                Ok::<_, EngineError>(body)
            })
            .await?;
        // Megabytes, on a busy host: nothing for a thread on which others wait.
        match tokio::task::spawn_blocking(move || serde_json::from_slice(&body)).await {
            Ok(list) => list.map_err(|error| DockerError::new(action, error.into())),
            Err(error) => Err(DockerError::other(action, error.to_string())),
        }
    }
}

/// The same with another path and query.
fn aimed_at(uri: &Uri, target: &PathAndQuery) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.clone());
    Uri::from_parts(parts).ok()
}

fn filters(name: &str, values: Vec<String>) -> String {
    let filters = serde_json::json!({ name: values }).to_string();
    format!("filters={}", escaped(&filters))
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// The labels of Windlass: images bring dozens of others.
fn own_labels<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<HashMap<String, String>, D::Error> {
    let labels = Option::<OwnLabels>::deserialize(deserializer)?;
    Ok(labels.unwrap_or_default().0)
}

#[derive(Default)]
struct OwnLabels(HashMap<String, String>);

impl<'de> Deserialize<'de> for OwnLabels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OwnLabelsVisitor)
    }
}

struct OwnLabelsVisitor;

impl<'de> Visitor<'de> for OwnLabelsVisitor {
    type Value = OwnLabels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OwnLabels, A::Error> {
        let mut labels = HashMap::new();
        while let Some(Name(name)) = map.next_key()? {
            if name.starts_with(label::OURS) {
                labels.insert(name.into_owned(), map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(OwnLabels(labels))
    }
}

/// Borrowed, unless something in it is escaped.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_read_as_far_as_they_are_used() {
        let list = r#"[
            {"Id": "1f", "Names": ["/p-a"], "Image": "im\"age", "ImageID": "sha256:00", "Command": "sleep",
             "Created": 1, "Ports": [{"PrivatePort": 8080, "Type": "tcp"}], "SizeRw": null,
             "Labels": {"org.opencontainers.image.title": "x", "dev.windlass.op-id": "2",
                        "dev.windlass.\u0078": "\u0079", "a": ""},
             "State": "running", "Status": "Up 3 seconds", "HostConfig": {"NetworkMode": "bridge"},
             "NetworkSettings": {"Networks": {"bridge": {"Links": null}}},
             "Mounts": [{"Type": "volume", "Name": "p-a-home", "RW": true}, {"Type": "bind"}]},
            {"Id": "2f", "Names": null, "Labels": null, "State": "of a later engine", "Mounts": null},
            {}
        ]"#;
        let list: Vec<Container> = serde_json::from_str(list).unwrap();
        let first = &list[0];
        assert_eq!(first.id.as_deref(), Some("1f"));
        assert_eq!(first.names.as_deref(), Some(&["/p-a".to_owned()][..]));
        assert_eq!(first.image.as_deref(), Some("im\"age"));
        assert_eq!(first.state.as_deref(), Some("running"));
        assert_eq!(first.status.as_deref(), Some("Up 3 seconds"));
        let labels = [("dev.windlass.op-id", "2"), ("dev.windlass.x", "y")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(first.labels, HashMap::from(labels));
        let mounts = first.mounts.as_ref().unwrap();
        assert_eq!(mounts[0].name.as_deref(), Some("p-a-home"));
        assert_eq!(mounts[1].name, None);
        assert!(list[1].labels.is_empty() && list[1].mounts.is_none());
        assert!(list[2].id.is_none());
        assert!(serde_json::from_str::<Vec<Container>>(r#"[{"Id": "1f""#).is_err());
    }

    #[test]
    fn volumes_are_read_as_far_as_they_are_used() {
        let list = r#"{"Volumes": [
            {"CreatedAt": "?", "Driver": "local", "Labels": {"dev.windlass.volume-id": "1", "x": "y"},
             "Mountpoint": "/v/p-a-home/_data", "Name": "p-a-home", "Options": null, "Scope": "local"},
            {"Driver": "local", "Labels": null, "Mountpoint": "/v/b", "Name": "b"}
        ], "Warnings": null}"#;
        let list: Volumes = serde_json::from_str(list).unwrap();
        let volumes = list.volumes.unwrap();
        let (first, second) = (&volumes[0], &volumes[1]);
        assert_eq!(first.name, "p-a-home");
        assert_eq!(first.mountpoint, "/v/p-a-home/_data");
        assert_eq!(first.labels["dev.windlass.volume-id"], "1");
        assert_eq!((first.labels.len(), second.labels.len()), (1, 0));
        let none: Volumes = serde_json::from_str(r#"{"Volumes": null}"#).unwrap();
        assert!(none.volumes.is_none());
    }

    #[test]
    fn a_request_goes_where_it_is_aimed() {
        let query = filters("label", vec!["a=b c".to_owned()]);
        assert_eq!(query, "filters=%7B%22label%22%3A%5B%22a%3Db%20c%22%5D%7D");
        let target: PathAndQuery = format!("/volumes?{query}").parse().unwrap();
        for engine in ["unix://2f72756e", "http://127.0.0.1:2375", "https://host:1"] {
            let before: Uri = format!("{engine}/containers/-/export").parse().unwrap();
            let after = aimed_at(&before, &target).unwrap();
            assert_eq!(after.to_string(), format!("{engine}/volumes?{query}"));
        }
    }
}
