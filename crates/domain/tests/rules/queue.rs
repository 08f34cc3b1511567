//! Who begins next: a model of owners that take turns, and the sentences of the design about it.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::{collection::vec, prelude::*};
use uuid::Uuid;
use windlass_domain::{
    HostId, Operation, Workspace, WorkspaceId,
    queue::{Depth, Position, Queue},
};

use crate::support::*;

const STARTING: Operation = Operation::Starting;

fn id(n: u128) -> WorkspaceId {
    WorkspaceId(Uuid::from_u128(n))
}

/// A workspace of `owner` that waits since `since` to be started.
fn waits(n: u128, owner: &str, since: i64) -> Workspace {
    ws().standby().edit(|w| {
        w.id = id(n);
        w.spec.owner = owner.into();
        w.control.op_started_at = Some(t(since));
    })
}

fn starts(n: u128, owner: &str) -> Workspace {
    waits(n, owner, 0).doing(STARTING)
}

fn queue(all: &[Workspace]) -> Queue<'_> {
    let mut queue = Queue::default();
    for w in all {
        queue.add(w, &plan(w));
    }
    queue
}

/// The order in which they would begin, one place after the other becoming free.
fn order(all: &[Workspace]) -> Vec<u128> {
    let queue = queue(all);
    let mut order: Vec<_> = all
        .iter()
        .filter_map(|w| Some((queue.position(w.id)?.position, w.id.0.as_u128())))
        .collect();
    order.sort_unstable();
    let positions: Vec<_> = order.iter().map(|(position, _)| *position).collect();
    assert_eq!(
        positions,
        Vec::from_iter(1..=order.len()),
        "each position once"
    );
    order.into_iter().map(|(_, id)| id).collect()
}

#[test]
fn one_start_does_not_wait_for_ninety_of_another_owner() {
    let mut all: Vec<_> = (0..90).map(|n| waits(n, "ann", 1_000)).collect();
    all.push(waits(500, "bob", 1_299));
    assert_eq!(order(&all)[..3], [500, 0, 1]);
    // Ann has had her turns: what she has at work counts.
    all.extend((600..616).map(|n| starts(n, "ann")));
    assert_eq!(order(&all)[..3], [500, 0, 1]);
    let left = queue(&all).left_waiting(|_| 17);
    assert_eq!(left.len(), 90);
    assert!(
        !left.contains(&id(500)),
        "the one place that is free is his"
    );
    let (at_work, waiting) = (17, 90);
    let depth = HashMap::from([(STARTING, Depth { at_work, waiting })]);
    assert_eq!(queue(&all).depths(|_| 17), depth);
}

/// One place, and another owner comes for it with a single start every 20 s.
#[test]
fn nobody_waits_behind_all_who_come_one_by_one() {
    for (many, ahead) in [(1, 0), (2, 0), (4, 1), (90, 14)] {
        let mut all: Vec<_> = (0..many).map(|n| waits(n, "ann", 1_000)).collect();
        let single = |n: i64| waits(500 + n as u128, &format!("bob{n}"), 1_000 + 20 * n);
        all.extend((1..=30).map(single));
        let place = order(&all).iter().position(|n| *n == 0);
        assert_eq!(place, Some(ahead), "the first of {many}");
    }
}

#[test]
fn kinds_have_places_of_their_own() {
    let stopping = |n| waits(n, "ann", 0).running().doing(Operation::Stopping);
    let mut all: Vec<_> = (0..3).map(stopping).collect();
    all.push(waits(100, "ann", 9_000));
    let wants_stop = |w: Workspace| w.desired(windlass_domain::DesiredState::Standby);
    all.push(wants_stop(waits(101, "ann", 9_001).running()));
    let places = |operation| match operation {
        Operation::Stopping => 3,
        _ => 1,
    };
    assert_eq!(queue(&all).left_waiting(places), HashSet::from([id(101)]));
}

#[test]
fn kinds_and_hosts_do_not_wait_for_each_other() {
    let stopping = |n| waits(n, "ann", 0).running().doing(Operation::Stopping);
    let mut all: Vec<_> = (0..50).map(stopping).collect();
    all.push(waits(100, "ann", 9_000));
    all.push(waits(101, "ann", 9_001).edit(|w| w.host_id = HostId(Uuid::from_u128(77))));
    all.push(waits(102, "ann", 9_002));
    assert_eq!(queue(&all).left_waiting(|_| 1), HashSet::from([id(102)]));
    let at = |operation, position, length| {
        Some(Position {
            operation,
            position,
            length,
        })
    };
    assert_eq!(queue(&all).position(id(102)), at(STARTING, 2, 2));
    assert_eq!(queue(&all).position(id(101)), at(STARTING, 1, 1));
    assert_eq!(queue(&all).position(id(7)), None, "it is at work");
}

#[test]
fn what_waits_out_its_backoff_holds_no_place_and_comes_back_for_one() {
    let failed = |retry: i64| {
        starts(1, "ann")
            .error(windlass_domain::ErrorReason::ActionFailed, 1)
            .edit(|w| {
                w.control.retry_at = Some(t(retry));
            })
    };
    let next = || waits(2, "bob", 9_000);
    let backing_off = [failed(10_050), next()];
    assert_eq!(queue(&backing_off).left_waiting(|_| 1), HashSet::new());
    let due = [failed(8_000), next()];
    assert_eq!(
        queue(&due).left_waiting(|_| 1),
        HashSet::from([id(2)]),
        "it waits longer"
    );
    let due = [failed(9_500), next()];
    assert_eq!(queue(&due).left_waiting(|_| 1), HashSet::from([id(1)]));
}

/// The same by hand: owners sit in a circle, each with a line of their own.
fn model(all: &[Workspace]) -> Vec<u128> {
    let mut turns: BTreeMap<&str, usize> = BTreeMap::new();
    let mut lines: BTreeMap<&str, Vec<(i64, u128)>> = BTreeMap::new();
    for w in all {
        let owner = w.spec.owner.as_str();
        if w.control.operation == STARTING {
            *turns.entry(owner).or_default() += 1;
        } else if let Some(since) = w.control.op_started_at {
            let line = lines.entry(owner).or_default();
            line.push((since.timestamp(), w.id.0.as_u128()));
            line.sort_unstable();
        }
    }
    let later: HashMap<&str, i64> = lines
        .iter()
        .map(|(owner, line)| (*owner, 10 * (line.len() as i64 - 1).min(30)))
        .collect();
    let mut order = Vec::new();
    while let Some((owner, _)) = lines
        .iter()
        .map(|(owner, line)| {
            let turn = turns.get(owner).copied().unwrap_or(0);
            let (since, id) = line[0];
            (*owner, (turn, since + later[owner], id))
        })
        .min_by_key(|(_, key)| *key)
    {
        *turns.entry(owner).or_default() += 1;
        let line = lines.get_mut(owner).unwrap();
        order.push(line.remove(0).1);
        if line.is_empty() {
            lines.remove(owner);
        }
    }
    order
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn owners_take_turns(
        waiting in vec((0..4_usize, 0..50_i64), 0..40),
        working in vec(0..4_usize, 0..12),
        places in 1..20_usize,
    ) {
        const OWNERS: [&str; 4] = ["ann", "bob", "cat", "dan"];
        let first = waiting.iter().zip(0..).map(|((o, since), n)| waits(n, OWNERS[*o], *since));
        let second = working.iter().zip(1_000..).map(|(o, n)| starts(n, OWNERS[*o]));
        let all: Vec<_> = first.chain(second).collect();
        let order = order(&all);
        prop_assert_eq!(&order, &model(&all));
        // Who is left waiting are the last ones.
        let left = queue(&all).left_waiting(|_| places);
        let free = places.saturating_sub(working.len()).min(order.len());
        let last: HashSet<_> = order[free..].iter().map(|n| id(*n)).collect();
        prop_assert_eq!(left, last);
        // Whoever has nothing at work and waits longest is among the first of as many as there are owners.
        let longest = waiting.iter().zip(0_u128..).min_by_key(|((_, since), n)| (*since, *n));
        if let Some(((owner, _), n)) = longest
            && !working.contains(owner)
        {
            prop_assert!(order.iter().position(|other| *other == n).unwrap() < OWNERS.len());
        }
    }
}
