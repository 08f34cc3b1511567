//! Asks a service's small HTTP server.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The body that `GET path` is answered with.
pub async fn get(address: SocketAddr, path: &str) -> String {
    send(address, "GET", path, "").await
}

/// The body of the answer.
pub async fn send(address: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    assert!(!head.contains("chunked"), "{head}");
    body.to_owned()
}
