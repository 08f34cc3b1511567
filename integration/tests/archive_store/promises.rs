//! What the store promises, over both servers.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use windlass_archive::inventory::fingerprint;
use windlass_archive::store::{ChecksumMode, ServerSideEncryption};
use windlass_archive::{
    CancellationToken, Progress, RestoreSpec, Store, StoreConfig, StoreErrorKind, download,
    empty_archive, layout, restore, verify,
};
use windlass_integration::proxy::{Fault, Gate, Proxy, Rule};
use windlass_integration::{home, wait};

use crate::server::{BUCKET, Server, get, key_of, large_home, made, put, spec};
use crate::{everything, tree};

async fn a_home_with_everything_comes_back(server: Server) {
    tree::require_root();
    let source = TempDir::new().unwrap();
    everything::home_with_everything(source.path());
    let before = tree::list(source.path());
    let store = server.store().await;
    let marker = put(&store, source.path(), &spec()).await;
    assert_eq!(marker.entry_count, before.tree.len() as u64);
    assert_eq!(
        verify(&store, &key_of(&store, &marker)).await.unwrap(),
        marker
    );
    let target = get(&store, &marker).await;
    tree::assert_same(&before.tree, &tree::list(target.path()).tree);
    let restored = fingerprint(target.path()).unwrap();
    assert_eq!(restored.fingerprint, marker.fingerprint);
    tree::assert_same(&before.tree, &tree::list(source.path()).tree);
}

async fn many_parts_make_one_object(server: Server) {
    let source = large_home();
    let (store, proxy) = server.watched().await;
    let marker = put(&store, source.path(), &spec()).await;
    assert!(marker.size > 45 << 20);
    let parts = proxy.count("PUT", "partNumber=");
    assert_eq!(parts as u64, marker.size.div_ceil(5 << 20));
    let target = get(&store, &marker).await;
    assert_eq!(home::picture(source.path()), home::picture(target.path()));
    let mut bytes = Vec::new();
    let key = key_of(&store, &marker);
    assert_eq!(download(&store, &key, &mut bytes).await.unwrap(), marker);
    assert_eq!(bytes.len() as u64, marker.size);
    assert_eq!(
        store.list_stale_uploads("", Duration::ZERO).await.unwrap(),
        []
    );
}

async fn ranges_are_fetched_side_by_side(server: Server) {
    let source = large_home();
    let (store, proxy) = server.watched().await;
    let marker = put(&store, source.path(), &spec()).await;
    proxy.clear();
    // While the first range is held back, the next ones come.
    let gate = Gate::default();
    proxy.add(
        Rule::new(Fault::Hold(gate.clone()))
            .method("GET")
            .with("range: bytes=0-"),
    );
    let restoring = get(&store, &marker);
    let opening = async {
        let count = async || proxy.count("GET", "range: bytes=");
        wait::until("four ranges at a time", count, |n| *n >= 4).await;
        gate.open();
    };
    let (target, ()) = tokio::join!(restoring, opening);
    assert_eq!(home::picture(source.path()), home::picture(target.path()));
}

async fn an_empty_home_is_an_archive(server: Server) {
    let store = server.store().await;
    let mut spec = spec();
    spec.volume_id = None;
    spec.empty_owner = (1000, 1001);
    let marker = empty_archive(&store, spec.clone()).await.unwrap();
    assert!(marker.empty);
    assert_eq!(empty_archive(&store, spec).await.unwrap(), marker);
    let target = get(&store, &marker).await;
    assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0);
    assert_eq!(
        fingerprint(target.path()).unwrap().fingerprint,
        marker.fingerprint
    );
}

async fn a_repeated_archive_writes_nothing(server: Server) {
    let source = TempDir::new().unwrap();
    home::fill(source.path(), 3);
    let (store, proxy) = server.watched().await;
    let spec = spec();
    let marker = put(&store, source.path(), &spec).await;
    let objects = store.list("").await.unwrap();
    assert_eq!(objects.len(), 2);
    proxy.clear();
    // Even though the home is another by now: this operation is over.
    std::fs::write(source.path().join("later"), "x").unwrap();
    assert_eq!(put(&store, source.path(), &spec).await, marker);
    assert_eq!(proxy.count("PUT", "") + proxy.count("POST", ""), 0);
    assert_eq!(store.list("").await.unwrap(), objects);

    // A restore is repeated as well as an archive, and leaves the volume alone.
    let target = get(&store, &marker).await;
    let restored: Vec<_> = store
        .list(&layout::restore_marker_prefix("x/", spec.workspace_id))
        .await
        .unwrap();
    let op_id = restored[0].key.rsplit_once('/').unwrap().1.parse().unwrap();
    std::fs::write(target.path().join("later"), "x").unwrap();
    let again = RestoreSpec {
        workspace_id: spec.workspace_id,
        op_id,
    };
    let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
    let key = key_of(&store, &marker);
    let report = restore(&store, &key, target.path().into(), again, progress, cancel)
        .await
        .unwrap();
    assert!(report.already_complete);
    assert!(target.path().join("later").exists());
}

async fn lists_have_all_pages_and_deletes_all_keys(server: Server) {
    let store = server.store().await;
    let keys: Vec<String> = (0..1234).map(|i| format!("x/page/{i:04}")).collect();
    for some in keys.chunks(16) {
        let puts = some.iter().map(|key| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move { store.put_small(&key, "x").await })
        });
        for put in puts.collect::<Vec<_>>() {
            put.await.unwrap().unwrap();
        }
    }
    store.put_small("y", "x").await.unwrap();
    let listed = store.list("x/page/").await.unwrap();
    assert_eq!(
        listed.iter().map(|o| &o.key).collect::<Vec<_>>(),
        keys.iter().collect::<Vec<_>>()
    );
    assert!(listed.iter().all(|o| o.size == 1 && !o.etag.is_empty()));
    let age = chrono_age(&listed[0]);
    assert!(age < Duration::from_secs(600), "{age:?}");
    let mut gone = keys.clone();
    gone.push("x/never-there".into());
    let results = store.delete(&gone).await;
    assert_eq!(results.len(), gone.len());
    assert!(results.iter().all(|(_, result)| result.is_ok()));
    let left = store.list("").await.unwrap();
    assert_eq!(
        left.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(),
        ["y"]
    );
    let missing = store.head("x/page/0000").await.unwrap_err();
    assert_eq!(missing.kind(), StoreErrorKind::NotFound);
}

fn chrono_age(object: &windlass_archive::store::ObjectEntry) -> Duration {
    let written = std::time::SystemTime::from(object.last_modified);
    written.elapsed().unwrap_or_default()
}

async fn an_abandoned_upload_is_listed_and_aborted(server: Server) {
    let store = server.store().await;
    let uploads = async || {
        let uploads = store.list_stale_uploads("x/", Duration::ZERO).await;
        uploads.unwrap()
    };
    // Dropped, an upload aborts itself.
    let mut upload = store.upload("x/dropped");
    upload.write(&vec![7; 6 << 20]).await.unwrap();
    assert_eq!(uploads().await.len(), 1);
    drop(upload);
    wait::until("it to be aborted", uploads, Vec::is_empty).await;

    // Where that fails as well, it stays for gc to find.
    let proxy = Proxy::start(server.addr()).await;
    proxy.add(Rule::new(Fault::Reset).method("DELETE"));
    let config = StoreConfig {
        endpoint: Some(proxy.endpoint()),
        max_attempts: 1,
        ..server.config()
    };
    let mut upload = made(config).await.upload("x/abandoned");
    upload.write(&vec![7; 11 << 20]).await.unwrap();
    upload.abort().await;
    assert_eq!(proxy.count("DELETE", "x/abandoned"), 1);
    let stale = uploads().await;
    assert_eq!(stale.len(), 1);
    assert_eq!(stale[0].key, "x/abandoned");
    let others = store.list_stale_uploads("y/", Duration::ZERO).await;
    assert_eq!(others.unwrap(), []);
    if let Server::Embedded(..) = server {
        // moto says of every upload that it began in 2010.
        let hour = Duration::from_secs(3600);
        let old = store.list_stale_uploads("x/", hour).await.unwrap();
        assert_eq!(old, []);
    }
    for _ in 0..2 {
        let (key, id) = (&stale[0].key, &stale[0].upload_id);
        store.abort_upload(key, id).await.unwrap();
    }
    assert_eq!(uploads().await, []);
    assert_eq!(store.list("").await.unwrap(), []);
}

async fn both_checksum_modes_work(server: Server) {
    let source = large_home();
    for checksum in [ChecksumMode::WhenRequired, ChecksumMode::WhenSupported] {
        let proxy = Proxy::start(server.addr()).await;
        let config = StoreConfig {
            endpoint: Some(proxy.endpoint()),
            checksum,
            ..server.config()
        };
        let store = made(config).await;
        let marker = put(&store, source.path(), &spec()).await;
        let target = get(&store, &marker).await;
        assert_eq!(home::picture(source.path()), home::picture(target.path()));
        let sent = proxy
            .requests()
            .iter()
            .any(|head| head.contains("partNumber=") && head.contains("x-amz-checksum-crc32"));
        let trailers = proxy.requests().iter().any(|head| {
            head.contains("partNumber=") && head.contains("x-amz-trailer: x-amz-checksum-crc32")
        });
        assert_eq!(sent || trailers, checksum == ChecksumMode::WhenSupported);
        // AWS refuses such parts of an upload that did not say so; so does the embedded store.
        let named = proxy.requests().iter().any(|head| {
            head.contains("?uploads") && head.contains("x-amz-checksum-algorithm: CRC32")
        });
        assert_eq!(named, checksum == ChecksumMode::WhenSupported);
    }
}

async fn encryption_is_asked_for(server: Server) {
    let source = large_home();
    let proxy = Proxy::start(server.addr()).await;
    let config = StoreConfig {
        endpoint: Some(proxy.endpoint()),
        sse: Some(ServerSideEncryption {
            algorithm: "aws:kms".into(),
            kms_key_id: Some("a-key".into()),
        }),
        ..server.config()
    };
    let store = made(config).await;
    let marker = put(&store, source.path(), &spec()).await;
    // Where an object begins: the marker's PUT, and the data's multipart upload.
    for (method, part) in [("PUT", "home.tar.zst.meta"), ("POST", "?uploads")] {
        let heads = proxy.requests();
        let begins = |head: &&String| head.starts_with(method) && head.contains(part);
        let head = heads.iter().find(begins).expect("a request");
        assert!(
            head.contains("x-amz-server-side-encryption: aws:kms"),
            "{head}"
        );
        assert!(
            head.contains("x-amz-server-side-encryption-aws-kms-key-id: a-key"),
            "{head}"
        );
    }
    get(&store, &marker).await;
    if let Server::Moto(moto) = &server {
        for key in [
            key_of(&store, &marker),
            layout::marker_key(&key_of(&store, &marker)),
        ] {
            let head = moto.head(BUCKET, &key).await;
            assert!(
                head.contains("x-amz-server-side-encryption: aws:kms"),
                "{head}"
            );
            assert!(head.contains("a-key"), "{head}");
        }
    }
}

async fn a_missing_bucket_is_not_a_missing_archive(server: Server) {
    let config = StoreConfig {
        bucket: "nowhere".into(),
        ..server.config()
    };
    let store = Store::new(config).await.unwrap();
    for error in [
        store.probe().await.unwrap_err(),
        store.get_small("x", 10).await.unwrap_err(),
        store.list("").await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::Other, "{error}");
        assert!(error.to_string().contains("NoSuchBucket"), "{error}");
    }
    let store = server.store().await;
    store.probe().await.unwrap();
    let error = store.get_small("x", 10).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotFound, "{error}");
    store.put_small("x", "12345678901").await.unwrap();
    let error = store.get_small("x", 10).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Invalid, "{error}");
}

macro_rules! over {
    ($server:ident: $($test:ident),+ $(,)?) => {
        mod $server {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(super::Server::$server().await).await;
                }
            )+
        }
    };
}

macro_rules! suite {
    ($($test:ident),+ $(,)?) => {
        over!(embedded: $($test),+);
        over!(moto: $($test),+);
        #[cfg(feature = "garage")]
        over!(garage: $($test),+);
    };
}

suite!(
    a_home_with_everything_comes_back,
    many_parts_make_one_object,
    ranges_are_fetched_side_by_side,
    an_empty_home_is_an_archive,
    a_repeated_archive_writes_nothing,
    lists_have_all_pages_and_deletes_all_keys,
    an_abandoned_upload_is_listed_and_aborted,
    both_checksum_modes_work,
    encryption_is_asked_for,
    a_missing_bucket_is_not_a_missing_archive,
);
