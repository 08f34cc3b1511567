use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;
use windlass_domain::{
    OpId,
    conditions::{ContainerEvidence, ContainerState, FailedJob, JobEvidence, VolumeEvidence},
};

use super::*;

fn id(n: u128) -> WorkspaceId {
    WorkspaceId(Uuid::from_u128(n))
}

fn op(n: u128) -> OpId {
    OpId(Uuid::from_u128(n))
}

fn container(version: u32) -> Arc<ContainerEvidence> {
    Arc::new(ContainerEvidence {
        id: "c".into(),
        image: "i".into(),
        state: ContainerState::Running,
        health: None,
        started_at: None,
        finished_at: None,
        exit_code: None,
        oom_killed: false,
        op_id: None,
        attempt: version,
    })
}

fn volume() -> Arc<VolumeEvidence> {
    Arc::new(VolumeEvidence {
        name: "v".into(),
        volume_id: None,
        owned: true,
    })
}

fn at_work(n: u128, stage: &str) -> JobNews {
    JobNews::AtWork(JobEvidence {
        op_id: op(n),
        stage: stage.into(),
        done_bytes: 0,
        total_bytes: 0,
        updated_at: None,
    })
}

fn failed(n: u128, attempt: u32) -> JobNews {
    JobNews::Failed(FailedJob {
        operation: "ARCHIVING".into(),
        op_id: op(n),
        attempt,
        reason: "ActionFailed".into(),
        message: String::new(),
        at: chrono::DateTime::UNIX_EPOCH,
    })
}

fn at(position: &str, number: u64) -> HostNews {
    HostNews {
        position: position.into(),
        list: Some(List {
            number,
            age: chrono::TimeDelta::zero(),
        }),
        ..HostNews::default()
    }
}

#[test]
fn a_change_touches_what_it_names() {
    let mut mirror = Mirror::default();
    let first = HostNews {
        whole: true,
        containers: vec![(id(1), container(0)), (id(2), container(0))],
        volumes: vec![(id(1), volume())],
        ..at("p1", 1)
    };
    let applied = mirror.apply(first);
    assert_eq!(applied.touched, [id(1), id(2)].into());
    assert_eq!(applied.list.unwrap().number, 1);
    assert_eq!((mirror.position(), mirror.counts()), ("p1", (2, 1)));

    let applied = mirror.apply(HostNews {
        gone_containers: vec![id(2), id(3)],
        ..at("p2", 1)
    });
    assert_eq!(applied.touched, [id(2), id(3)].into());
    assert_eq!(applied.list, None, "the same list proves nothing new");
    assert_eq!(mirror.counts(), (1, 1));
    assert_eq!(mirror.seen(id(2)), HostSeen::default());
    assert!(mirror.apply(at("p3", 2)).touched.is_empty());

    // The whole touches only what differs.
    let whole = || HostNews {
        whole: true,
        containers: vec![(id(1), container(1))],
        volumes: vec![(id(1), volume())],
        ..at("p4", 3)
    };
    assert_eq!(mirror.apply(whole()).touched, [id(1)].into());
    assert!(mirror.apply(whole()).touched.is_empty());
    assert_eq!(mirror.seen(id(1)).container, Some(container(1)));
}

#[test]
fn a_job_at_work_is_told_in_any_order_with_the_one_before_it() {
    for orders in [[0, 1], [1, 0]] {
        let mut mirror = Mirror::default();
        let news = [failed(1, 0), at_work(1, "upload")];
        let jobs = orders.map(|n: usize| (id(1), news[n].clone())).to_vec();
        mirror.apply(HostNews { jobs, ..at("p", 1) });
        let seen = mirror.seen(id(1));
        assert_eq!(seen.job.unwrap().stage, "upload");
        assert_eq!(seen.failed_job.unwrap().attempt, 0);
    }
}

#[test]
fn the_last_job_that_ended_stands() {
    let mut mirror = Mirror::default();
    let mut tell = |job| {
        mirror.apply(HostNews {
            jobs: vec![(id(1), job)],
            ..at("p", 1)
        });
        let seen = mirror.seen(id(1));
        (seen.job.map(|j| j.op_id), seen.failed_job.map(|j| j.op_id))
    };
    assert_eq!(tell(at_work(1, "a")), (Some(op(1)), None));
    assert_eq!(tell(failed(1, 0)), (None, Some(op(1))));
    assert_eq!(tell(at_work(2, "a")), (Some(op(2)), Some(op(1))));
    assert_eq!(tell(JobNews::Succeeded(op(2))), (None, None));
    mirror.apply(HostNews {
        gone_jobs: vec![id(1)],
        ..at("p", 1)
    });
    assert!(mirror.seen.is_empty());
}

proptest! {
    /// Changes applied one by one, some of them twice, end where the whole does.
    #[test]
    fn changes_add_up_to_the_whole(steps in prop::collection::vec((0..5_u128, 0..3_u32, any::<bool>()), 0..60)) {
        let mut truth = HashMap::new();
        let mut mirror = Mirror::default();
        for (n, version, twice) in steps {
            let change = || {
                let mut news = at("p", 1);
                match version {
                    0 => news.gone_containers.push(id(n)),
                    v => news.containers.push((id(n), container(v))),
                }
                news
            };
            match version {
                0 => drop(truth.remove(&id(n))),
                v => drop(truth.insert(id(n), container(v))),
            }
            mirror.apply(change());
            if twice {
                mirror.apply(change());
            }
        }
        prop_assert_eq!(mirror.counts(), (truth.len(), 0));
        let whole = HostNews { whole: true, containers: truth.into_iter().collect(), ..at("q", 2) };
        prop_assert!(mirror.apply(whole).touched.is_empty());
    }
}
