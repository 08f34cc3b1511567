//! Single objects: what is stored comes back, what is wrong never becomes visible.

use crate::common::*;
use http::Method;

#[tokio::test(flavor = "multi_thread")]
async fn put_get_head_range_delete() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await.unwrap();
    let data: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    call(&server, Method::PUT, "a/b")
        .header("content-type", "text/x")
        .header("x-amz-meta-who", "me")
        .body(data.clone())
        .send()
        .await
        .ok();
    let got = call(&server, Method::GET, "a/b").send().await.ok();
    assert_eq!(got.body, data);
    assert_eq!(got.header("content-type"), "text/x");
    assert_eq!(got.header("x-amz-meta-who"), "me");
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=100-", 100, 300_000),
        ("bytes=-7", 299_993, 300_000),
        ("bytes=5-999999999", 5, 300_000),
    ] {
        let got = call(&server, Method::GET, "a/b")
            .header("range", range)
            .send()
            .await;
        assert_eq!(got.status, 206, "{range}");
        assert_eq!(got.body, data[from..to], "{range}");
        let want = format!("bytes {from}-{}/300000", to - 1);
        assert_eq!(got.header("content-range"), want);
    }
    call(&server, Method::GET, "a/b")
        .header("range", "bytes=300000-")
        .send()
        .await
        .refused(416, "InvalidRange");
    let head = call(&server, Method::HEAD, "a/b").send().await.ok();
    assert_eq!(head.header("content-length"), "300000");
    let etag = head.header("etag").to_owned();
    let same = call(&server, Method::GET, "a/b")
        .header("if-none-match", &etag)
        .send()
        .await;
    assert_eq!(same.status, 304);
    call(&server, Method::DELETE, "a/b").send().await.ok();
    call(&server, Method::DELETE, "a/b").send().await.ok();
    call(&server, Method::GET, "a/b")
        .send()
        .await
        .refused(404, "NoSuchKey");
    assert_eq!(call(&server, Method::HEAD, "a/b").send().await.status, 404);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_key_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await.unwrap();
    let long = "x".repeat(1024);
    let keys = [
        "..",
        "../../etc/passwd",
        "a//b",
        "a/./b",
        "/lead",
        "trail/",
        "ü/日本/🦀",
        "sp ace+plus%25",
        "\u{1}control",
        "tmp",
        &long,
    ];
    for key in keys {
        call(&server, Method::PUT, key)
            .body(key.as_bytes())
            .send()
            .await
            .ok();
    }
    call(&server, Method::PUT, &"x".repeat(1025))
        .send()
        .await
        .refused(400, "KeyTooLongError");
    server.shutdown().await;

    let server = start(dir.path()).await.unwrap();
    for key in keys {
        let got = call(&server, Method::GET, key).send().await.ok();
        assert_eq!(got.body, key.as_bytes());
    }
    let list = call(&server, Method::GET, "")
        .query("list-type", "2")
        .query("encoding-type", "url")
        .send()
        .await
        .ok();
    let mut want: Vec<String> = keys.iter().map(|k| (*k).to_owned()).collect();
    want.sort();
    let want: Vec<String> = want.iter().map(|k| encode(k, true)).collect();
    assert_eq!(list.tags("Key"), want);
    // Nothing left the store's own folders.
    let mut top: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    top.sort();
    assert_eq!(top, ["buckets", "format", "lock", "tmp"]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_digests_never_become_visible() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await.unwrap();
    let put = |key: &str| call(&server, Method::PUT, key).body(&b"hello"[..]);
    put("k").body(&b"before"[..]).send().await.ok();

    put("k")
        .header("content-md5", "XrY7u+Ae7tCTyyK7j1rNww==")
        .send()
        .await
        .refused(400, "BadDigest");
    for (name, right) in [
        ("x-amz-checksum-crc32", "NhCmhg=="),
        ("x-amz-checksum-crc32c", "mnG7TA=="),
        (
            "x-amz-checksum-sha256",
            "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
        ),
        ("x-amz-checksum-sha1", "qvTGHdzF6KLavt4PO0gs2a6pQ00="),
    ] {
        put("k")
            .header(name, "AAAAAA==")
            .send()
            .await
            .refused(400, "BadDigest");
        put(name).header(name, right).send().await.ok();
        let got = call(&server, Method::GET, name)
            .header("x-amz-checksum-mode", "ENABLED")
            .send()
            .await
            .ok();
        assert_eq!(got.header(name), right);
    }
    let other = sha256_hex(b"other");
    put("k")
        .payload(&other)
        .send()
        .await
        .refused(400, "XAmzContentSHA256Mismatch");

    let trailer = |key: &str, announced: &str, trailers: &[(&str, &str)]| {
        call(&server, Method::PUT, key)
            .payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER")
            .header("x-amz-decoded-content-length", "5")
            .header("content-encoding", "aws-chunked")
            .header("x-amz-trailer", announced)
            .body(chunked(b"hello", trailers))
    };
    let crc32 = "x-amz-checksum-crc32";
    trailer("k", crc32, &[(crc32, "AAAAAA==")])
        .send()
        .await
        .refused(400, "BadDigest");
    assert!(trailer("k", crc32, &[]).send().await.status >= 400);
    trailer("t", crc32, &[(crc32, "NhCmhg==")])
        .send()
        .await
        .ok();
    let got = call(&server, Method::GET, "t").send().await.ok();
    assert_eq!(got.body, &b"hello"[..]);

    let got = call(&server, Method::GET, "k").send().await.ok();
    assert_eq!(
        got.body,
        &b"before"[..],
        "a refused body replaced an object"
    );
    let left = std::fs::read_dir(dir.path().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "refused bodies left files");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_leaves_nothing() {
    use tokio::io::AsyncWriteExt as _;
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await.unwrap();
    let request = call(&server, Method::PUT, "cut")
        .body(vec![7; 100_000])
        .request();
    let mut head = format!("PUT {} HTTP/1.1\r\n", request.uri());
    for (name, value) in request.headers() {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    head.push_str("content-length: 100000\r\n\r\n");
    let mut socket = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&[7; 50_000]).await.unwrap();
    drop(socket);
    server.shutdown().await;
    let server = start(dir.path()).await.unwrap();
    call(&server, Method::GET, "cut")
        .send()
        .await
        .refused(404, "NoSuchKey");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_and_copy() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await.unwrap();
    let create = |body: &str| {
        call(&server, Method::PUT, "once")
            .header("if-none-match", "*")
            .body(body.as_bytes())
    };
    let etag = create("1").send().await.ok().header("etag").to_owned();
    create("2").send().await.refused(412, "PreconditionFailed");
    call(&server, Method::PUT, "once")
        .header("if-match", &etag)
        .header("x-amz-meta-a", "b")
        .body(&b"3"[..])
        .send()
        .await
        .ok();
    call(&server, Method::PUT, "once")
        .header("if-match", &etag)
        .body(&b"4"[..])
        .send()
        .await
        .refused(412, "PreconditionFailed");
    call(&server, Method::PUT, "copy/é")
        .header("x-amz-copy-source", "/bucket/once")
        .send()
        .await
        .ok();
    let got = call(&server, Method::GET, "copy/é").send().await.ok();
    assert_eq!(
        (got.text().as_str(), got.header("x-amz-meta-a")),
        ("3", "b")
    );
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_key_opens() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await.unwrap();
    call(&server, Method::PUT, "k")
        .secret("wrong")
        .body(&b"x"[..])
        .send()
        .await
        .refused(403, "SignatureDoesNotMatch");
    let anonymous = http::Request::get("/bucket/k")
        .header("host", "localhost")
        .body(Default::default())
        .unwrap();
    send(server.addr, anonymous)
        .await
        .refused(403, "AccessDenied");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_one_key_never_mix() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await.unwrap();
    let puts = (0..16u8).map(|i| {
        call(&server, Method::PUT, "hot")
            .header("x-amz-meta-i", &i.to_string())
            .body(vec![i; 50_000])
            .send()
    });
    for answer in futures::future::join_all(puts).await {
        answer.ok();
    }
    let got = call(&server, Method::GET, "hot").send().await.ok();
    let writer: u8 = got.header("x-amz-meta-i").parse().unwrap();
    assert_eq!(got.body, vec![writer; 50_000]);
    let list = call(&server, Method::GET, "").send().await.ok();
    assert_eq!(list.tags("ETag").len(), 1);
    assert_eq!(
        list.tag("ETag").replace("&quot;", "\""),
        got.header("etag"),
        "index and disk differ"
    );
    server.shutdown().await;
}
