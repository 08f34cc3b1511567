//! Connections are refused, reset, cut off, hang or are slow.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use windlass_archive::{StoreConfig, StoreErrorKind};
use windlass_integration::home;
use windlass_integration::proxy::{Fault, Rule};
use windlass_local::ports::free_port;

use crate::row::{Row, SOON, says, store};

#[tokio::test(flavor = "multi_thread")]
async fn the_store_refuses_connections() {
    // A port nobody listens on.
    let endpoint = format!("http://127.0.0.1:{}", free_port().unwrap());
    let row = Row::with(|config| config.endpoint = Some(endpoint)).await;
    let begun = Instant::now();
    let error = row.archive().await.unwrap_err();
    says(&error, store(StoreErrorKind::Unreachable), &["refused"]);
    assert!(begun.elapsed() < SOON);
    row.failed_archive().await;
    let target = TempDir::new().unwrap();
    let error = row.restore(target.path()).await.unwrap_err();
    says(&error, store(StoreErrorKind::Unreachable), &["refused"]);
    row.failed_restore(target.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_resets_connections() {
    let row = Row::new().await;
    row.proxy.add(Rule::new(Fault::Reset).with("partNumber=3"));
    let error = row.archive().await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Unreachable),
        &["upload part 3"],
    );
    row.failed_archive().await;
    row.proxy.clear();
    row.proxy.add(Rule::new(Fault::Reset).with("range: bytes="));
    let target = TempDir::new().unwrap();
    let error = row.restore(target.path()).await.unwrap_err();
    says(&error, store(StoreErrorKind::Unreachable), &[&row.key()]);
    row.failed_restore(target.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_reset_now_and_then_does_no_harm() {
    let row = Row::new().await;
    for part in [
        "partNumber=2",
        "partNumber=5",
        "home.tar.zst.meta",
        "range: bytes=",
    ] {
        row.proxy.add(Rule::new(Fault::Reset).with(part).times(1));
    }
    row.archive().await.unwrap();
    row.archived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_away_for_a_moment_costs_no_work() {
    // More resets than the SDK's two attempts take: what was done already is not thrown away for them.
    let row = Row::new().await;
    for (method, part) in [
        ("POST", "?uploads"),
        ("PUT", "partNumber=2&"),
        ("PUT", "partNumber=5&"),
        ("POST", "uploadId="),
        ("GET", "range: bytes=0-"),
        ("PUT", "home.tar.zst.meta"),
    ] {
        let reset = Rule::new(Fault::Reset).method(method).with(part);
        row.proxy.add(reset.times(3));
    }
    row.archive().await.unwrap();
    assert_eq!(row.proxy.count("PUT", "partNumber=5&"), 4);
    row.archived().await;

    row.proxy.clear();
    let reset = || Rule::new(Fault::Reset).times(3);
    row.proxy.add(reset().with("range: bytes=8388608-"));
    row.proxy.add(reset().method("PUT"));
    let target = TempDir::new().unwrap();
    row.restore(target.path()).await.unwrap();
    assert_eq!(home::picture(row.home.path()), home::picture(target.path()));
}

fn impatient(config: &mut StoreConfig) {
    config.read_timeout = Duration::from_secs(3);
    config.stall_timeout = Duration::from_secs(1);
    config.min_rate = 1 << 20;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_hangs_before_it_answers() {
    let row = Row::with(impatient).await;
    row.proxy.add(Rule::new(Fault::Hang).with("partNumber="));
    let begun = Instant::now();
    let error = row.archive().await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Unreachable),
        &["upload part", "timeout"],
    );
    assert!(begun.elapsed() < SOON);
    row.failed_archive().await;

    row.proxy.add(Rule::new(Fault::Hang).method("GET"));
    let target = TempDir::new().unwrap();
    let begun = Instant::now();
    let error = row.restore(target.path()).await.unwrap_err();
    says(&error, store(StoreErrorKind::Unreachable), &["timeout"]);
    assert!(begun.elapsed() < SOON);
    row.failed_restore(target.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_hangs_half_way_through_an_answer() {
    let row = Row::with(impatient).await;
    row.proxy
        .add(Rule::new(Fault::StallDown(100_000)).with("range: bytes="));
    let begun = Instant::now();
    let error = row.archive().await.unwrap_err();
    // Read-back is where the data comes down again.
    says(
        &error,
        store(StoreErrorKind::Unreachable),
        &["read", "throughput"],
    );
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    row.failed_archive().await;

    row.proxy
        .add(Rule::new(Fault::StallDown(100_000)).with("range: bytes="));
    let target = TempDir::new().unwrap();
    let error = row.restore(target.path()).await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Unreachable),
        &["read", "throughput"],
    );
    row.failed_restore(target.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_trickles() {
    let row = Row::with(impatient).await;
    row.archive_with(&row.direct).await.unwrap();
    // At this rate a range takes more than a minute, and never stands still.
    row.proxy
        .add(Rule::new(Fault::SlowDown(50_000)).with("range: bytes=0-"));
    let target = TempDir::new().unwrap();
    let begun = Instant::now();
    let error = row.restore(target.path()).await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Unreachable),
        &["read", "only part of 4194304 bytes"],
    );
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    row.failed_restore(target.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upload_that_lives_is_not_given_up() {
    // A part takes 5 s, far longer than a request may take to be answered once it was sent.
    let row = Row::with(|config| {
        impatient(config);
        config.min_rate = 256 << 10;
    })
    .await;
    row.proxy
        .add(Rule::new(Fault::SlowUp(1 << 20)).with("partNumber=2&"));
    row.archive().await.unwrap();
    assert_eq!(row.proxy.count("PUT", "partNumber=2&"), 1);
    row.archived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_cuts_uploads_off() {
    let row = Row::new().await;
    row.proxy
        .add(Rule::new(Fault::CutUp(1_000_000)).with("partNumber=4"));
    let error = row.archive().await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Unreachable),
        &["upload part 4"],
    );
    row.failed_archive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_cuts_the_read_back_off() {
    let row = Row::new().await;
    row.proxy
        .add(Rule::new(Fault::CutDown(1_000_000)).with("range: bytes=8388608-"));
    let error = row.archive().await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Unreachable),
        &["read", &row.key()],
    );
    row.failed_archive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_cuts_downloads_off() {
    let row = Row::new().await;
    row.archive().await.unwrap();
    row.proxy
        .add(Rule::new(Fault::CutDown(1_000_000)).with("range: bytes=8388608-"));
    let target = TempDir::new().unwrap();
    let error = row.restore(target.path()).await.unwrap_err();
    says(
        &error,
        store(StoreErrorKind::Unreachable),
        &["read", &row.key()],
    );
    row.failed_restore(target.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_cut_off_once_is_repeated() {
    let row = Row::new().await;
    row.proxy.add(
        Rule::new(Fault::CutUp(1_000_000))
            .with("partNumber=4")
            .times(1),
    );
    row.proxy.add(
        Rule::new(Fault::CutDown(1_000_000))
            .with("range: bytes=0-")
            .times(1),
    );
    row.archive().await.unwrap();
    row.archived().await;
    row.proxy.add(
        Rule::new(Fault::CutDown(3_000_000))
            .with("range: bytes=8388608-")
            .times(2),
    );
    let target = TempDir::new().unwrap();
    row.restore(target.path()).await.unwrap();
    assert_eq!(home::picture(row.home.path()), home::picture(target.path()));
}
