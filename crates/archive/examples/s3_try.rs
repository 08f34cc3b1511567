//! Archives a directory to any S3 server, restores it into another, and says what it took.
//!
//! `s3_try ENDPOINT BUCKET SOURCE TARGET`, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set. TARGET is
//! emptied first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;
use windlass_archive::{
    ArchiveSpec, CancellationToken, Progress, RestoreSpec, Store, StoreConfig, archive, download,
    empty_archive, layout, restore, verify,
};

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, endpoint, bucket, source, target] = &args[..] else {
        panic!("usage: s3_try ENDPOINT BUCKET SOURCE TARGET");
    };
    let store = Store::new(StoreConfig {
        endpoint: Some(endpoint.clone()),
        bucket: bucket.clone(),
        prefix: "try/".into(),
        force_path_style: true,
        ..StoreConfig::default()
    })
    .await
    .unwrap();
    store.ensure_bucket().await.unwrap();
    store.probe().await.unwrap();
    let (workspace_id, op_id) = (Uuid::now_v7(), Uuid::now_v7());
    let mut spec = ArchiveSpec::new(workspace_id, op_id);
    spec.volume_id = Some(Uuid::now_v7());
    spec.workspace.insert("name".into(), "try".into());
    let none = CancellationToken::new;
    let memory = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
        line.to_owned()
    };

    let progress = Arc::new(Progress::default());
    let begun = Instant::now();
    let root = source.into();
    let marker = archive(&store, root, spec.clone(), progress.clone(), none())
        .await
        .unwrap();
    println!("archive  {:?}  {}\n{marker:#?}", begun.elapsed(), memory());
    println!("{progress:?}");
    let again = archive(&store, source.into(), spec, progress, none()).await;
    assert_eq!(again.unwrap(), marker);
    let key = layout::data_key(store.prefix(), workspace_id, op_id);
    let begun = Instant::now();
    assert_eq!(verify(&store, &key).await.unwrap(), marker);
    println!("verify   {:?}", begun.elapsed());
    download(&store, &key, tokio::io::sink()).await.unwrap();

    let progress = Arc::new(Progress::default());
    let begun = Instant::now();
    let spec = RestoreSpec {
        workspace_id,
        op_id: Uuid::now_v7(),
    };
    let report = restore(
        &store,
        &key,
        target.into(),
        spec.clone(),
        progress.clone(),
        none(),
    )
    .await
    .unwrap();
    assert!(!report.already_complete);
    println!("restore  {:?}  {}  {progress:?}", begun.elapsed(), memory());
    let report = restore(&store, &key, target.into(), spec, progress, none()).await;
    assert!(report.unwrap().already_complete);

    let empty = ArchiveSpec::new(workspace_id, Uuid::now_v7());
    let begun = Instant::now();
    empty_archive(&store, empty).await.unwrap();
    println!("empty    {:?}", begun.elapsed());
    for entry in store.list(store.prefix()).await.unwrap() {
        println!("{:>12} {}", entry.size, entry.key);
    }
    let uploads = store.list_stale_uploads("", Duration::ZERO).await.unwrap();
    println!("unfinished uploads: {uploads:?}");
}
