//! Listing over HTTP: pages, folders, both versions, and a large bucket.

use crate::common::*;
use futures::StreamExt as _;
use http::Method;

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_folders() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await.unwrap();
    let keys = ["a", "b/1", "b/2", "b/c/3", "d", "é"];
    for key in keys {
        call(&server, Method::PUT, key).body("x").send().await.ok();
    }
    let list = |query: &[(&str, &str)]| {
        let mut list = call(&server, Method::GET, "");
        for (name, value) in query {
            list = list.query(name, value);
        }
        list.send()
    };
    let (mut token, mut seen) = (None::<String>, Vec::new());
    loop {
        let mut query = vec![("list-type", "2"), ("max-keys", "2"), ("delimiter", "/")];
        if let Some(token) = &token {
            query.push(("continuation-token", token));
        }
        let page = list(&query).await.ok();
        assert_eq!(page.tag("KeyCount"), if seen.len() < 4 { "2" } else { "0" });
        seen.extend(page.tags("Key"));
        seen.extend(page.tags("CommonPrefixes").iter().map(|_| "b/".to_owned()));
        if page.tag("IsTruncated") == "false" {
            break;
        }
        token = Some(page.tag("NextContinuationToken"));
    }
    assert_eq!(seen, ["a", "b/", "d", "é"]);
    let page = list(&[("list-type", "2"), ("start-after", "b/1"), ("prefix", "b/")]).await;
    assert_eq!(page.ok().tags("Key"), ["b/2", "b/c/3"]);

    let (mut marker, mut seen) = (String::new(), Vec::new());
    loop {
        let page = list(&[("max-keys", "1"), ("marker", &marker)]).await.ok();
        seen.extend(page.tags("Key"));
        if page.tag("IsTruncated") == "false" {
            break;
        }
        marker = page.tag("NextMarker");
    }
    assert_eq!(seen, keys);
    list(&[("list-type", "2"), ("continuation-token", "junk")])
        .await
        .refused(400, "InvalidArgument");
    let delete = "<Delete><Object><Key>a</Key></Object><Object><Key>none</Key></Object></Delete>";
    call(&server, Method::POST, "")
        .query("delete", "")
        .header("x-amz-checksum-algorithm", "CRC32")
        .body(delete)
        .send()
        .await
        .ok();
    assert_eq!(list(&[]).await.ok().tag("Key"), "b/1");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_bucket_is_listed_by_its_prefixes_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await.unwrap();
    call(&server, Method::PUT, "seed")
        .body("x")
        .send()
        .await
        .ok();
    // The common prefixes here stand for two thousand objects.
    let copies = futures::stream::iter(0..2_000)
        .map(|i| {
            call(
                &server,
                Method::PUT,
                &format!("w{:03}/{i:05}/home", i % 100),
            )
            .header("x-amz-copy-source", "/bucket/seed")
            .send()
        })
        .buffer_unordered(16)
        .collect::<Vec<_>>()
        .await;
    for copy in copies {
        copy.ok();
    }
    let mut server = server;
    for _ in 0..2 {
        let page = call(&server, Method::GET, "")
            .query("list-type", "2")
            .query("prefix", "w")
            .query("delimiter", "/")
            .send()
            .await
            .ok();
        assert_eq!(page.tags("CommonPrefixes").len(), 100);
        server.shutdown().await;
        server = start(dir.path()).await.unwrap();
    }
    server.shutdown().await;
}
