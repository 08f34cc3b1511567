//! What a call is answered that was made before, and what is told of one that failed.

use super::*;

#[tokio::test]
async fn the_same_call_joins_and_another_is_busy() {
    let f = fixture(2, 2);
    let probe = waiting();
    let job = f.submit(1, 1, Starting(probe.clone())).await.unwrap();
    assert_ne!(job.state(), v1::JobState::Failed);
    until("running", || probe.runs() == 1).await;
    let again = f
        .jobs
        .submit(context(1, 1, 1), Starting(probe.clone()))
        .await
        .unwrap();
    assert_eq!((again.attempt, again.state()), (1, v1::JobState::Running));

    let other = f.submit(1, 2, Starting(probe.clone())).await.unwrap_err();
    assert_eq!(other.reason, Reason::Busy);
    let other = f.submit(1, 1, Stopping(probe.clone())).await.unwrap_err();
    assert_eq!(other.reason, Reason::Busy);
    probe.go.notify_one();
    until("ended", || f.jobs.active() == 0).await;
    assert_eq!(probe.runs(), 1);
    let jobs = f.jobs.list(Some(Uuid::from_u128(1)));
    assert_eq!(jobs.len(), 1);
    assert_eq!(
        (jobs[0].state(), jobs[0].attempt),
        (v1::JobState::Succeeded, 1)
    );
}

#[tokio::test]
async fn a_failed_job_runs_again_only_as_a_higher_attempt() {
    let f = fixture(2, 2);
    let probe = Probe {
        fail: true,
        ..Probe::default()
    };
    let submit = |attempt| {
        f.jobs
            .submit(context(1, 1, attempt), Starting(probe.clone()))
    };
    let _ = submit(0).await;
    until("ended", || f.jobs.active() == 0).await;
    for _ in 0..2 {
        assert_eq!(submit(0).await.unwrap_err().reason, Reason::ImagePullFailed);
    }
    assert_eq!(probe.runs(), 1);
    let told = &f.jobs.list(None)[0];
    assert_eq!(told.reason, "ImagePullFailed");
    assert_eq!(
        (told.message.as_str(), told.state()),
        ("no such image", v1::JobState::Failed)
    );
    assert!(told.end_time.is_some());
    let _ = submit(1).await;
    until("ended", || f.jobs.active() == 0).await;
    assert_eq!(probe.runs(), 2);
}

/// Larger than any gRPC message may be.
#[tokio::test]
async fn a_failure_of_many_words_is_still_listed() {
    let f = fixture(1, 1);
    let probe = Probe {
        fail: true,
        words: 8 << 20,
        ..Probe::default()
    };
    let failure = f.submit(1, 1, Provisioning(probe)).await.unwrap_err();
    let told = &f.jobs.list(None)[0];
    assert_eq!(told.message, failure.message);
    assert!(told.message.starts_with("no such image!") && told.message.len() <= 2048);
}

#[tokio::test]
async fn a_job_that_succeeded_may_run_again_and_a_refused_one_is_none() {
    let f = fixture(2, 2);
    let probe = Probe::default();
    for _ in 0..2 {
        let job = f.submit(1, 1, Provisioning(probe.clone())).await.unwrap();
        assert_eq!(job.state(), v1::JobState::Succeeded);
    }
    assert_eq!(probe.runs(), 2);
    let refused = Probe {
        refuse: true,
        ..Probe::default()
    };
    let failure = f.submit(2, 2, Starting(refused)).await.unwrap_err();
    assert_eq!(failure.reason, Reason::VolumeNotFound);
    assert!(f.jobs.list(Some(Uuid::from_u128(2))).is_empty());
}

#[tokio::test]
async fn a_panic_fails_the_job_and_frees_the_workspace() {
    let f = fixture(1, 1);
    let probe = Probe {
        panic: true,
        ..Probe::default()
    };
    let failure = f.submit(1, 1, Provisioning(probe)).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ActionFailed);
    assert_eq!(f.jobs.active(), 0);
    f.submit(1, 2, Provisioning(Probe::default()))
        .await
        .unwrap();
}
