//! The store refuses, or gives and takes wrong bytes.

use std::fs;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use windlass_archive::{ArchiveErrorKind, StoreErrorKind};
use windlass_integration::home;
use windlass_integration::proxy::{Fault, Rule};
use windlass_integration::wait;

use crate::row::{Row, SOON, says, store};

#[tokio::test(flavor = "multi_thread")]
async fn bytes_altered_on_the_way_up_are_refused() {
    let row = Row::new().await;
    row.proxy
        .add(Rule::new(Fault::CorruptUp(1_000_000)).with("partNumber=2"));
    let error = row.archive().await.unwrap_err();
    says(&error, store(StoreErrorKind::Corrupt), &["upload part 2"]);
    row.failed_archive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_the_store_altered_fail_the_read_back() {
    let row = Row::new().await;
    row.proxy
        .add(Rule::new(Fault::CorruptDown(1_000_000)).with("range: bytes=0-"));
    let error = row.archive().await.unwrap_err();
    says(
        &error,
        ArchiveErrorKind::Corrupted,
        &[&row.key(), "SHA-256"],
    );
    // What cannot be trusted is not kept either.
    assert_eq!(row.direct.list("").await.unwrap(), []);
    row.failed_archive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_archive_is_known_within_seconds() {
    let row = Row::new().await;
    row.archive().await.unwrap();
    for at in [20, 1_000_000] {
        row.proxy.clear();
        row.proxy
            .add(Rule::new(Fault::CorruptDown(at)).with("range: bytes=0-"));
        let target = TempDir::new().unwrap();
        let begun = Instant::now();
        let error = row.restore(target.path()).await.unwrap_err();
        says(&error, ArchiveErrorKind::Corrupted, &["archive corrupted"]);
        assert!(begun.elapsed() < SOON);
        row.failed_restore(target.path()).await;
    }
    // Lost altogether, and cut short, as the store itself has it.
    for short in [false, true] {
        row.direct.delete(&[row.key()]).await.remove(0).1.unwrap();
        if short {
            row.direct.put_small(&row.key(), "short").await.unwrap();
        }
        let target = TempDir::new().unwrap();
        let error = row.restore(target.path()).await.unwrap_err();
        says(&error, ArchiveErrorKind::Corrupted, &[&row.key()]);
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
    }
}

/// A proxy on the way that knows no such path: nothing is concluded of the archive that is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_404_that_is_not_of_the_key_is_no_absence() {
    let row = Row::new().await;
    let marker = row.archive().await.unwrap();
    row.proxy.clear();
    row.proxy
        .add(Rule::new(Fault::Answer(404, "NotFound")).method("GET"));
    let error = row.archive().await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Unreachable),
        &["NotFound (404)"],
    );
    assert_eq!(row.proxy.count("PUT", ""), 0);
    row.proxy.clear();
    row.proxy
        .add(Rule::new(Fault::Answer(404, "NotFound")).with("range: bytes="));
    let target = TempDir::new().unwrap();
    let error = row.restore(target.path()).await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Unreachable),
        &["NotFound (404)"],
    );
    row.failed_restore(target.path()).await;
    assert_eq!(row.archive().await.unwrap(), marker);
}

/// An error of a deletion that does not say which key it is of.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_fails_namelessly_deletes_nothing() {
    let row = Row::new().await;
    let answer = "<DeleteResult><Error><Code>InternalError</Code></Error></DeleteResult>";
    row.proxy.add(Rule::new(Fault::Say(answer)).method("POST"));
    let keys = ["a".to_owned(), "b".to_owned()];
    for (_, result) in row.store.delete(&keys).await {
        assert_eq!(result.unwrap_err().kind(), StoreErrorKind::Unreachable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_finds_a_part_too_large() {
    let row = Row::new().await;
    row.proxy
        .add(Rule::new(Fault::Answer(413, "EntityTooLarge")).with("partNumber="));
    let error = row.archive().await.unwrap_err();
    let words = ["upload part", "EntityTooLarge (413)"];
    says(&error, store(StoreErrorKind::Invalid), &words);
    // Asking again would not make it smaller.
    assert_eq!(row.proxy.count("PUT", "partNumber=1&"), 1);
    row.failed_archive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_503_that_ends_is_weathered() {
    let row = Row::new().await;
    let storm = || Rule::new(Fault::Answer(503, "SlowDown"));
    row.proxy.add(storm().with("partNumber=").times(5));
    row.proxy.add(storm().with("range: bytes=").times(3));
    row.archive().await.unwrap();
    row.archived().await;
    row.proxy.clear();
    row.proxy.add(storm().method("GET").times(3));
    let target = TempDir::new().unwrap();
    row.restore(target.path()).await.unwrap();
    assert_eq!(home::picture(row.home.path()), home::picture(target.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_503_that_does_not_end_is_the_reason() {
    let row = Row::new().await;
    let storm = || Rule::new(Fault::Answer(503, "SlowDown"));
    row.proxy.add(storm().with("partNumber="));
    let begun = Instant::now();
    let error = row.archive().await.unwrap_err();
    let words = ["upload part", "SlowDown (503)"];
    says(&error, store(StoreErrorKind::Throttled), &words);
    assert!(begun.elapsed() < 2 * SOON);
    row.failed_archive().await;
    row.proxy.add(storm().method("GET"));
    let target = TempDir::new().unwrap();
    let error = row.restore(target.path()).await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Throttled),
        &["SlowDown (503)"],
    );
    row.failed_restore(target.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_expire_half_way() {
    let row = Row::new().await;
    row.proxy
        .add(Rule::new(Fault::Answer(403, "ExpiredToken")).with("partNumber=3"));
    // From then on nothing is allowed any more, aborting included.
    row.proxy
        .add(Rule::new(Fault::Answer(403, "ExpiredToken")).method("DELETE"));
    let error = row.archive().await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Denied),
        &["ExpiredToken (403)"],
    );
    let stale = async || {
        let uploads = row.direct.list_stale_uploads("", Duration::ZERO).await;
        (row.proxy.count("DELETE", ""), uploads.unwrap())
    };
    let (_, uploads) = wait::until("an attempt to abort", stale, |s| s.0 > 0).await;
    assert_eq!(uploads.len(), 1);
    row.failed_archive().await;
    row.proxy
        .add(Rule::new(Fault::Answer(403, "ExpiredToken")).with("range: bytes="));
    let target = TempDir::new().unwrap();
    let error = row.restore(target.path()).await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Denied),
        &["ExpiredToken (403)"],
    );
    row.failed_restore(target.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_marker_cannot_be_written() {
    let row = Row::new().await;
    row.proxy.add(
        Rule::new(Fault::Answer(403, "AccessDenied"))
            .method("PUT")
            .with(".meta"),
    );
    let error = row.archive().await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Denied),
        &["home.tar.zst.meta", "AccessDenied"],
    );
    row.failed_archive().await;
}
