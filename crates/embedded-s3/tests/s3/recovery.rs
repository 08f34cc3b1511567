//! What a killed store leaves behind, and what a start makes of it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::*;
use http::Method;
use windlass_embedded_s3::{Config, EmbeddedS3, Error};

fn object_files(root: &Path) -> Vec<PathBuf> {
    let objects = root.join("buckets/bucket/objects");
    fs::read_dir(objects)
        .unwrap()
        .flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_are_cleaned_and_damage_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let server = start(root).await.unwrap();
    for key in ["good", "torn"] {
        let put = call(&server, Method::PUT, key).body(key.repeat(1000));
        put.send().await.ok();
    }
    server.shutdown().await;

    let torn = object_files(root)
        .into_iter()
        .find(|file| fs::read(file).unwrap().starts_with(b"torn"))
        .unwrap();
    let whole = fs::read(&torn).unwrap();
    fs::write(&torn, &whole[..whole.len() - 30]).unwrap();
    // A whole object under another key's name is not that key's object.
    let good = object_files(root).into_iter().find(|f| *f != torn).unwrap();
    let shard = root.join("buckets/bucket/objects/00");
    fs::create_dir_all(&shard).unwrap();
    fs::copy(&good, shard.join(format!("00{}", "ab".repeat(31)))).unwrap();
    fs::write(root.join("tmp/.tmpabc"), "half a body").unwrap();
    fs::create_dir(root.join("tmp/gone-1")).unwrap();
    fs::write(root.join("tmp/gone-1/00001"), "part").unwrap();
    fs::create_dir(root.join("buckets/bucket/uploads/half")).unwrap();
    fs::write(root.join("buckets/bucket/uploads/half/00001"), "part").unwrap();

    let server = start(root).await.unwrap();
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    assert!(!root.join("buckets/bucket/uploads/half").exists());
    let list = call(&server, Method::GET, "").send().await.ok();
    assert_eq!(list.tags("Key"), ["good"]);
    call(&server, Method::GET, "torn")
        .send()
        .await
        .refused(500, "InternalError");
    call(&server, Method::PUT, "torn")
        .body("new")
        .send()
        .await
        .ok();
    let got = call(&server, Method::GET, "torn").send().await.ok();
    assert_eq!(got.text(), "new");
    server.shutdown().await;
}

/// The kill between the rename of a completed object and the removal of its parts.
#[tokio::test(flavor = "multi_thread")]
async fn a_completed_upload_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let server = start(root).await.unwrap();
    let created = call(&server, Method::POST, "k").query("uploads", "");
    let id = created.send().await.ok().tag("UploadId");
    let put = call(&server, Method::PUT, "k")
        .query("uploadId", &id)
        .query("partNumber", "1")
        .body("data");
    let etag = put.send().await.ok().header("etag").to_owned();
    let uploads = root.join("buckets/bucket/uploads");
    let saved = root.join("saved");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(uploads.join(&id))
        .arg(&saved)
        .status();
    assert!(copied.unwrap().success());
    call(&server, Method::POST, "k")
        .query("uploadId", &id)
        .body(format!(
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
        ))
        .send()
        .await
        .ok();
    server.shutdown().await;
    fs::rename(&saved, uploads.join(&id)).unwrap();

    let server = start(root).await.unwrap();
    assert_eq!(fs::read_dir(&uploads).unwrap().count(), 0);
    let got = call(&server, Method::GET, "k").send().await.ok();
    assert_eq!(got.text(), "data");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&dir.path().join("one")).await.unwrap();
    let with = |change: &dyn Fn(&mut Config)| {
        let mut config = config(&dir.path().join("two"));
        change(&mut config);
        EmbeddedS3::start(config)
    };
    let taken = with(&|c| c.addr = server.addr).await.unwrap_err();
    assert!(matches!(taken, Error::PortTaken(_)), "{taken}");
    let open = with(&|c| c.addr = "0.0.0.0:0".parse().unwrap()).await;
    assert!(matches!(open.unwrap_err(), Error::NotLoopback(_)));
    let name = with(&|c| c.buckets = vec!["../x".into()]).await;
    assert!(matches!(name.unwrap_err(), Error::BucketName(_)));
    let used = start(&dir.path().join("one")).await.unwrap_err();
    assert!(matches!(used, Error::InUse(_)), "{used}");
    let foreign = dir.path().join("foreign");
    fs::create_dir_all(foreign.join("tmp")).unwrap();
    fs::write(foreign.join("tmp/precious"), "x").unwrap();
    let refused = start(&foreign).await.unwrap_err();
    assert!(matches!(refused, Error::Format { .. }), "{refused}");
    assert!(foreign.join("tmp/precious").exists());
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await.unwrap();
    let on = |method: Method| call(&server, method, "").bucket("/second");
    assert_eq!(on(Method::HEAD).send().await.status, 404);
    on(Method::PUT).send().await.ok();
    on(Method::PUT)
        .send()
        .await
        .refused(409, "BucketAlreadyOwnedByYou");
    let all = call(&server, Method::GET, "").bucket("/").send().await.ok();
    assert_eq!(all.tags("Name"), ["bucket", "second"]);
    let object = |method: Method| call(&server, method, "").bucket("/second/k");
    object(Method::PUT).body("x").send().await.ok();
    on(Method::DELETE)
        .send()
        .await
        .refused(409, "BucketNotEmpty");
    object(Method::DELETE).send().await.ok();
    on(Method::DELETE).send().await.ok();
    object(Method::PUT)
        .body("x")
        .send()
        .await
        .refused(404, "NoSuchBucket");
    server.shutdown().await;
}
