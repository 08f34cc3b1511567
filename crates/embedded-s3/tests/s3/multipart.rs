//! Multipart uploads: parts stay until the object is there, and come together in one step.

use std::time::Duration;

use crate::common::*;
use http::Method;
use windlass_embedded_s3::Running;

const MIB: usize = 1 << 20;

async fn create(server: &Running, key: &str) -> String {
    call(server, Method::POST, key)
        .query("uploads", "")
        .header("x-amz-meta-a", "b")
        .send()
        .await
        .ok()
        .tag("UploadId")
}

async fn part(server: &Running, key: &str, id: &str, number: u32, data: &[u8]) -> String {
    call(server, Method::PUT, key)
        .query("uploadId", id)
        .query("partNumber", &number.to_string())
        .body(data)
        .send()
        .await
        .ok()
        .header("etag")
        .to_owned()
}

async fn complete(server: &Running, key: &str, id: &str, parts: &[(u32, &str)]) -> Answer {
    let parts: String = parts
        .iter()
        .map(|(n, e)| format!("<Part><PartNumber>{n}</PartNumber><ETag>{e}</ETag></Part>"))
        .collect();
    call(server, Method::POST, key)
        .query("uploadId", id)
        .body(format!(
            "<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"
        ))
        .send()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_become_one_object_even_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await.unwrap();
    let id = create(&server, "big").await;
    let (one, two) = (vec![1u8; 5 * MIB], vec![2u8; 10]);
    let first = part(&server, "big", &id, 1, &vec![9; 5 * MIB]).await;
    let second = part(&server, "big", &id, 7, &two).await;
    server.shutdown().await;

    let server = start(dir.path()).await.unwrap();
    let again = part(&server, "big", &id, 1, &one).await;
    assert_ne!(first, again);
    call(&server, Method::GET, "big")
        .send()
        .await
        .refused(404, "NoSuchKey");
    let parts = call(&server, Method::GET, "big")
        .query("uploadId", &id)
        .send()
        .await
        .ok();
    assert_eq!(parts.tags("PartNumber"), ["1", "7"]);
    assert_eq!(parts.tags("Size"), ["5242880", "10"]);

    let bad = complete(&server, "big", &id, &[(1, &first), (7, &second)]).await;
    bad.refused(400, "InvalidPart");
    let bad = complete(&server, "big", &id, &[(7, &second), (1, &again)]).await;
    bad.refused(400, "InvalidPartOrder");
    let bad = complete(&server, "big", &id, &[(1, &again), (2, &second)]).await;
    bad.refused(400, "InvalidPart");

    let done = complete(&server, "big", &id, &[(1, &again), (7, &second)]).await;
    let etag = done.ok().tag("ETag");
    assert!(etag.contains("-2"), "{etag}");
    let got = call(&server, Method::GET, "big").send().await.ok();
    assert_eq!(got.body, [one, two].concat());
    assert_eq!(got.header("x-amz-meta-a"), "b");
    let repeated = complete(&server, "big", &id, &[(1, &again), (7, &second)]).await;
    assert_eq!(repeated.ok().tag("ETag"), etag);
    call(&server, Method::GET, "big")
        .query("uploadId", &id)
        .send()
        .await
        .refused(404, "NoSuchUpload");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_has_the_checksum_that_its_upload_named() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await.unwrap();
    let crc32 = call(&server, Method::POST, "k")
        .query("uploads", "")
        .header("x-amz-checksum-algorithm", "CRC32")
        .send()
        .await
        .ok()
        .tag("UploadId");
    let none = create(&server, "k").await;
    let put = |id: &str, name: &str, value: &str| {
        let part = call(&server, Method::PUT, "k")
            .query("uploadId", id)
            .query("partNumber", "1");
        part.header(name, value).body(&b"hello"[..]).send()
    };
    let of_hello = ("x-amz-checksum-crc32", "NhCmhg==");
    put(&crc32, of_hello.0, of_hello.1).await.ok();
    put(
        &crc32,
        "x-amz-checksum-sha1",
        "qvTGHdzF6KLavt4PO0gs2a6pQ00=",
    )
    .await
    .refused(400, "InvalidRequest");
    put(&none, of_hello.0, of_hello.1)
        .await
        .refused(400, "InvalidRequest");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_parts_abort_and_listing() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await.unwrap();
    let id = create(&server, "a/1").await;
    let one = part(&server, "a/1", &id, 1, b"x").await;
    let two = part(&server, "a/1", &id, 2, b"y").await;
    complete(&server, "a/1", &id, &[(1, &one), (2, &two)])
        .await
        .refused(400, "EntityTooSmall");
    let others = [
        create(&server, "a/1").await,
        create(&server, "a/2").await,
        create(&server, "b").await,
    ];
    let list = |query: &[(&str, &str)]| {
        let mut list = call(&server, Method::GET, "").query("uploads", "");
        for (name, value) in query {
            list = list.query(name, value);
        }
        list.send()
    };
    let all = list(&[]).await.ok();
    assert_eq!(all.tags("Key"), ["a/1", "a/1", "a/2", "b"]);
    let folded = list(&[("delimiter", "/")]).await.ok();
    assert_eq!(folded.tags("Key"), ["b"]);
    assert!(folded.text().contains("<Prefix>a/</Prefix>"));
    let (mut key, mut upload, mut seen) = (String::new(), String::new(), Vec::new());
    loop {
        let page = list(&[
            ("max-uploads", "1"),
            ("key-marker", &key),
            ("upload-id-marker", &upload),
        ])
        .await
        .ok();
        seen.extend(page.tags("UploadId"));
        if page.tag("IsTruncated") == "false" {
            break;
        }
        (key, upload) = (page.tag("NextKeyMarker"), page.tag("NextUploadIdMarker"));
    }
    assert_eq!(seen, all.tags("UploadId"));
    for (key, id) in ["a/1", "a/2", "b", "a/1"]
        .iter()
        .zip(others.iter().chain([&id]))
    {
        call(&server, Method::DELETE, key)
            .query("uploadId", id)
            .send()
            .await
            .ok();
    }
    assert!(list(&[]).await.ok().tags("UploadId").is_empty());
    let left = std::fs::read_dir(dir.path().join("buckets/bucket/uploads"));
    assert_eq!(left.unwrap().count(), 0);
    server.shutdown().await;
}

/// A completion, an abort of the same upload and a deletion of the bucket at a time: all are answered.
#[tokio::test(flavor = "multi_thread")]
async fn completing_and_deleting_never_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await.unwrap();
    // So that the bucket stays.
    call(&server, Method::PUT, "kept")
        .body("x")
        .send()
        .await
        .ok();
    let data = vec![7; 16 * MIB];
    for _ in 0..8 {
        let id = create(&server, "k").await;
        let one = part(&server, "k", &id, 1, &data).await;
        let two = part(&server, "k", &id, 2, &data).await;
        let parts = [(1, &one[..]), (2, &two[..])];
        let later = async |call: Call| {
            // While the parts are being copied.
            tokio::time::sleep(Duration::from_millis(5)).await;
            call.send().await
        };
        let (completed, aborted, deleted) = tokio::join!(
            complete(&server, "k", &id, &parts),
            later(call(&server, Method::DELETE, "k").query("uploadId", &id)),
            later(call(&server, Method::DELETE, "")),
        );
        assert!(completed.status == 200 || completed.tag("Code") == "NoSuchUpload");
        assert!(aborted.status == 204 || aborted.tag("Code") == "NoSuchUpload");
        deleted.refused(409, "BucketNotEmpty");
    }
    server.shutdown().await;
}
