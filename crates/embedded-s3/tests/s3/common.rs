//! A tiny S3 client: hyper and SigV4, so that requests can be as wrong as a test wants them.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use windlass_embedded_s3::{Config, EmbeddedS3, Error, Running};

pub const KEY: &str = "test-key";
pub const SECRET: &str = "test-secret";
pub const BUCKET: &str = "bucket";

pub fn config(root: &Path) -> Config {
    Config {
        root: root.to_owned(),
        addr: "127.0.0.1:0".parse().unwrap(),
        access_key: KEY.into(),
        secret_key: SECRET.into(),
        buckets: vec![BUCKET.into()],
    }
}

pub async fn start(root: &Path) -> Result<Running, Error> {
    EmbeddedS3::start(config(root)).await
}

pub fn sha256_hex(data: &[u8]) -> String {
    hex::encode(Sha256::digest(data))
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut block = [0u8; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new()
        .chain_update(block.map(|b| b ^ 0x36))
        .chain_update(data)
        .finalize();
    Sha256::new()
        .chain_update(block.map(|b| b ^ 0x5c))
        .chain_update(inner)
        .finalize()
        .to_vec()
}

pub fn encode(text: &str, keep_slash: bool) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(b).to_string()
            }
            b'/' if keep_slash => "/".into(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

/// `YYYYMMDDTHHMMSSZ` of now.
fn amz_date() -> String {
    let secs = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let (days, rest) = ((secs / 86_400) as i64, secs % 86_400);
    // Days to a civil date (Howard Hinnant's formula).
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z - era * 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}{month:02}{day:02}T{h:02}{m:02}{s:02}Z")
}

pub struct Call {
    addr: SocketAddr,
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    payload: Option<String>,
    secret: String,
}

pub fn call(server: &Running, method: Method, key: &str) -> Call {
    let path = if key.is_empty() {
        format!("/{BUCKET}")
    } else {
        format!("/{BUCKET}/{key}")
    };
    Call {
        addr: server.addr,
        method,
        path,
        query: Vec::new(),
        headers: Vec::new(),
        body: Vec::new(),
        payload: None,
        secret: SECRET.into(),
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The texts of all elements of this name.
    pub fn tags(&self, name: &str) -> Vec<String> {
        let text = self.text();
        text.split(&format!("<{name}>"))
            .skip(1)
            .map(|rest| rest.split("</").next().unwrap().to_owned())
            .collect()
    }

    pub fn tag(&self, name: &str) -> String {
        self.tags(name).into_iter().next().unwrap_or_default()
    }

    pub fn ok(self) -> Self {
        assert!(
            (200..300).contains(&self.status),
            "{} {}",
            self.status,
            self.text()
        );
        self
    }

    pub fn refused(self, status: u16, code: &str) -> Self {
        assert_eq!(
            (self.status, self.tag("Code").as_str()),
            (status, code),
            "{}",
            self.text()
        );
        self
    }
}

impl Call {
    pub fn bucket(mut self, path: &str) -> Self {
        self.path = path.into();
        self
    }

    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The value of x-amz-content-sha256, instead of the true one.
    pub fn payload(mut self, payload: &str) -> Self {
        self.payload = Some(payload.into());
        self
    }

    pub fn secret(mut self, secret: &str) -> Self {
        self.secret = secret.into();
        self
    }

    /// The signed request.
    pub fn request(mut self) -> Request<Full<Bytes>> {
        let date = amz_date();
        let payload = self
            .payload
            .take()
            .unwrap_or_else(|| sha256_hex(&self.body));
        self.headers.push(("host".into(), self.addr.to_string()));
        self.headers.push(("x-amz-date".into(), date.clone()));
        self.headers
            .push(("x-amz-content-sha256".into(), payload.clone()));
        self.headers.sort();
        let path = encode(&self.path, true);
        let mut query: Vec<String> = self
            .query
            .iter()
            .map(|(k, v)| format!("{}={}", encode(k, false), encode(v, false)))
            .collect();
        query.sort();
        let query = query.join("&");
        let names: Vec<&str> = self.headers.iter().map(|(k, _)| k.as_str()).collect();
        let names = names.join(";");
        let lines: String = self
            .headers
            .iter()
            .map(|(k, v)| format!("{k}:{v}\n"))
            .collect();
        let canonical = format!(
            "{}\n{path}\n{query}\n{lines}\n{names}\n{payload}",
            self.method
        );
        let day = &date[..8];
        let scope = format!("{day}/us-east-1/s3/aws4_request");
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
            sha256_hex(canonical.as_bytes())
        );
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in [day, "us-east-1", "s3", "aws4_request"] {
            key = hmac(&key, part.as_bytes());
        }
        let signature = hex::encode(hmac(&key, to_sign.as_bytes()));
        let uri = if query.is_empty() {
            path
        } else {
            format!("{path}?{query}")
        };
        let mut request = Request::builder().method(self.method).uri(uri).header(
            "authorization",
            format!(
                "AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
            ),
        );
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(self.body.into())).unwrap()
    }

    pub async fn send(self) -> Answer {
        let addr = self.addr;
        send(addr, self.request()).await
    }
}

pub async fn send(addr: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let socket = tokio::net::TcpStream::connect(addr).await.unwrap();
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let response: Response<_> = client.send_request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    connection.abort();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
    }
}

/// AWS's trailer form of a body: one chunk, then trailers.
pub fn chunked(data: &[u8], trailers: &[(&str, &str)]) -> Vec<u8> {
    let mut body = format!("{:x}\r\n", data.len()).into_bytes();
    body.extend_from_slice(data);
    body.extend_from_slice(b"\r\n0\r\n");
    for (name, value) in trailers {
        body.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
    }
    body.extend_from_slice(b"\r\n");
    body
}
