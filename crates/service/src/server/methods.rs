//! What the server knows of a method before calling it, from the descriptor set.
//!
//! Only methods that exist become metric labels: a client inventing names must not grow the metrics.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use metrics::{Label, SharedString};
use prost::Message;
use prost_types::FileDescriptorSet;

use super::{ServerError, described};

/// Services every server has, open to callers without a token.
pub(super) const OPEN_SERVICES: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// One method, as the layers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Method {
    /// `package.Service/Method`, or `unknown`.
    pub name: Arc<str>,
    /// Its `service` and `method` in metrics.
    pub labels: [Label; 2],
    /// Needs no token; logged at debug level; not counted against the concurrency limit.
    pub open: bool,
    /// Lives as long as its client: no default deadline, ended when draining begins.
    pub long_lived: bool,
}

impl Method {
    fn unknown() -> Self {
        Self {
            name: Arc::from("unknown"),
            labels: labels("unknown", "unknown"),
            open: false,
            long_lived: false,
        }
    }

    /// What [`find`] put into the request.
    pub(super) fn of(request: &Request) -> Self {
        request
            .extensions()
            .get::<Self>()
            .cloned()
            .unwrap_or_else(Self::unknown)
    }
}

/// Cloned for every call, so shared rather than copied.
fn labels(service: &str, method: &str) -> [Label; 2] {
    let shared = |text: &str| SharedString::from_shared(Arc::from(text));
    [
        Label::new("service", shared(service)),
        Label::new("method", shared(method)),
    ]
}

/// Every method of the descriptor set, by path.
#[derive(Debug)]
pub(super) struct Methods {
    by_path: HashMap<String, Method>,
}

impl Methods {
    pub(super) fn new(descriptors: &[u8], long_lived: &[String]) -> Result<Self, ServerError> {
        let sets = [
            descriptors,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut by_path = HashMap::new();
        for set in sets {
            let set = FileDescriptorSet::decode(set).map_err(described)?;
            for file in &set.file {
                for service in &file.service {
                    let service_name = format!("{}.{}", file.package(), service.name());
                    let open = OPEN_SERVICES.contains(&service_name.as_str());
                    for method in &service.method {
                        let name = format!("{service_name}/{}", method.name());
                        let watches = method.server_streaming()
                            && (open || method.name().starts_with("Watch"));
                        let method = Method {
                            long_lived: watches || long_lived.contains(&name),
                            open,
                            labels: labels(&service_name, method.name()),
                            name: Arc::from(name.as_str()),
                        };
                        by_path.insert(format!("/{name}"), method);
                    }
                }
            }
        }
        Ok(Self { by_path })
    }

    fn get(&self, path: &str) -> Method {
        self.by_path
            .get(path)
            .cloned()
            .unwrap_or_else(Method::unknown)
    }
}

/// The outermost layer: tells the others which method is called.
pub(super) async fn find(
    State(methods): State<Arc<Methods>>,
    mut request: Request,
    next: Next,
) -> Response {
    let method = methods.get(request.uri().path());
    request.extensions_mut().insert(method);
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known_by_path() {
        let methods = Methods::new(&[], &["grpc.health.v1.Health/Check".to_owned()]).unwrap();
        let check = methods.get("/grpc.health.v1.Health/Check");
        assert!(check.open && check.long_lived);
        assert!(methods.get("/grpc.health.v1.Health/Watch").long_lived);
        let reflection =
            methods.get("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo");
        assert!(reflection.open && reflection.long_lived);
        assert_eq!(
            methods.get("/grpc.health.v1.Health/Nothing"),
            Method::unknown()
        );
        assert!(Methods::new(&[0xff], &[]).is_err());
    }
}
