//! The model against a world that tells it of changes late, twice, in another order, or never.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;
use windlass_proto::v1;

use super::ledger::MAX_REMOVED;
use super::*;

type World = BTreeMap<HostKey, Arc<HostEntry>>;

fn container(name: u8, state: i32) -> (HostKey, Arc<HostEntry>) {
    let name = name.to_string();
    let entry = v1::Container {
        name: name.clone(),
        state,
        ..v1::Container::default()
    };
    (
        HostKey::Container(name),
        Arc::new(HostEntry::Container(entry)),
    )
}

fn volume(name: u8, id: u8) -> (HostKey, Arc<HostEntry>) {
    let name = name.to_string();
    let entry = v1::Volume {
        name: name.clone(),
        volume_id: id.to_string(),
        ..v1::Volume::default()
    };
    (HostKey::Volume(name), Arc::new(HostEntry::Volume(entry)))
}

fn jobs(name: u8, count: u8) -> (HostKey, Arc<HostEntry>) {
    let jobs = vec![v1::Job::default(); usize::from(count)];
    let key = HostKey::Jobs(Uuid::from_u128(name.into()));
    (key, Arc::new(HostEntry::Jobs(jobs)))
}

/// A follower that has only what it was told.
#[derive(Debug, Clone, Default)]
struct Follower {
    known: World,
    position: Option<Position>,
}

impl Follower {
    fn follow(&mut self, model: &HostModel) -> bool {
        let delta = model.since(self.position);
        if delta.whole {
            self.known.clear();
        }
        for (key, entry) in delta.changes {
            match entry {
                Some(entry) => self.known.insert(key, entry),
                None => self.known.remove(&key),
            };
        }
        self.position = Some(delta.position);
        delta.whole
    }
}

fn all(model: &HostModel) -> World {
    model.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// What happens, and what becomes of its event.
#[derive(Debug, Clone)]
enum Step {
    Set((HostKey, Arc<HostEntry>), Event),
    Remove(HostKey, Event),
    /// An event that was held back arrives: this one of those that are.
    Deliver(usize),
    /// The feed takes what is marked and begins to read it.
    BeginRead,
    /// The model learns what was read.
    EndRead,
    /// A full list, begun and ended.
    List,
    /// A follower asks.
    Follow(usize),
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Now,
    Lost,
    Late,
    Twice,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Now),
        Just(Event::Lost),
        Just(Event::Late),
        Just(Event::Twice),
    ]
}

fn thing() -> impl Strategy<Value = (HostKey, Arc<HostEntry>)> {
    prop_oneof![
        (0..6_u8, 0..4_i32).prop_map(|(name, state)| container(name, state)),
        (0..6_u8, 0..3_u8).prop_map(|(name, id)| volume(name, id)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (thing(), event()).prop_map(|(thing, event)| Step::Set(thing, event)),
        2 => (thing(), event()).prop_map(|((key, _), event)| Step::Remove(key, event)),
        2 => (0..8_usize).prop_map(Step::Deliver),
        3 => Just(Step::BeginRead),
        3 => Just(Step::EndRead),
        1 => Just(Step::List),
        2 => (0..3_usize).prop_map(Step::Follow),
    ]
}

fn as_found(world: &World) -> Found {
    let entry = |(key, entry): (&HostKey, &Arc<HostEntry>)| (key.clone(), Some(entry.clone()));
    world.iter().map(entry).collect()
}

proptest! {
    #[test]
    fn one_list_shows_reality_and_every_follower_has_it(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        let mut model = HostModel::new(Uuid::new_v4());
        let mut marked: Vec<HostKey> = Vec::new();
        let mut late: Vec<HostKey> = Vec::new();
        let mut read: Option<Found> = None;
        let mut followers = vec![Follower::default(); 3];
        let happen = |key: &HostKey, event, marked: &mut Vec<_>, late: &mut Vec<_>| match event {
            Event::Now => marked.push(key.clone()),
            Event::Lost => {}
            Event::Late => late.push(key.clone()),
            Event::Twice => {
                marked.push(key.clone());
                late.push(key.clone());
            }
        };
        for step in steps {
            match step {
                Step::Set((key, entry), event) => {
                    happen(&key, event, &mut marked, &mut late);
                    world.insert(key, entry);
                }
                Step::Remove(key, event) => {
                    happen(&key, event, &mut marked, &mut late);
                    world.remove(&key);
                }
                Step::Deliver(which) if !late.is_empty() => {
                    let which = which % late.len();
                    marked.push(late.swap_remove(which));
                }
                // One read at a time.
                Step::BeginRead if read.is_none() => {
                    let found = marked.drain(..).map(|key| {
                        let entry = world.get(&key).cloned();
                        (key, entry)
                    });
                    read = Some(found.collect());
                }
                Step::EndRead => {
                    if let Some(found) = read.take() {
                        model.looked_at(found);
                    }
                }
                Step::List if read.is_none() => {
                    marked.clear();
                    model.listed(as_found(&world));
                    prop_assert_eq!(&all(&model), &world);
                }
                Step::Follow(which) => {
                    followers[which].follow(&model);
                    prop_assert_eq!(&followers[which].known, &all(&model));
                }
                Step::Deliver(_) | Step::BeginRead | Step::List => {}
            }
        }
        if let Some(found) = read.take() {
            model.looked_at(found);
        }

        model.listed(as_found(&world));
        prop_assert_eq!(&all(&model), &world);
        let position = model.since(None).position;
        for follower in &mut followers {
            let had_asked = follower.position.is_some();
            let whole = follower.follow(&model);
            prop_assert_eq!(whole, !had_asked);
            prop_assert_eq!(&follower.known, &world);
        }
        // Nothing changed: no revision, no answer.
        prop_assert!(model.listed(as_found(&world)).is_empty());
        let delta = model.since(Some(position));
        prop_assert!(!delta.whole && delta.changes.is_empty());
        prop_assert_eq!(delta.position, position);
    }

    #[test]
    fn with_every_event_no_list_is_needed(
        steps in prop::collection::vec((thing(), any::<bool>()), 1..60),
        reads in prop::collection::vec(any::<bool>(), 60),
    ) {
        let mut world = World::new();
        let mut model = HostModel::new(Uuid::new_v4());
        let mut marked: Vec<HostKey> = Vec::new();
        let mut follower = Follower::default();
        let read = |model: &mut HostModel, world: &World, marked: &mut Vec<HostKey>| {
            let found = marked.drain(..).map(|key| {
                let entry = world.get(&key).cloned();
                (key, entry)
            });
            model.looked_at(found.collect());
        };
        for ((thing, there), now) in steps.into_iter().zip(reads) {
            let (key, entry) = thing;
            marked.push(key.clone());
            match there {
                true => world.insert(key, entry),
                false => world.remove(&key),
            };
            if now {
                read(&mut model, &world, &mut marked);
                follower.follow(&model);
            }
        }
        read(&mut model, &world, &mut marked);
        follower.follow(&model);
        prop_assert_eq!(&all(&model), &world);
        prop_assert_eq!(&follower.known, &world);
    }
}

#[test]
fn positions_of_others_are_answered_with_the_whole() {
    let mut model = HostModel::new(Uuid::new_v4());
    model.listed(
        [container(1, 2)]
            .into_iter()
            .map(|(k, e)| (k, Some(e)))
            .collect(),
    );
    let now = model.since(None).position;
    assert!(!model.since(Some(now)).whole);
    let future = Position {
        revision: now.revision + 1,
        ..now
    };
    let another = Position {
        incarnation: Uuid::new_v4(),
        ..now
    };
    for unknown in [None, Some(future), Some(another)] {
        let delta = model.since(unknown);
        assert!(delta.whole && delta.changes.len() == 1, "{unknown:?}");
    }
    assert_eq!(now.to_string().parse(), Ok(now));
    for text in ["", "x", ":", "1:2", "00000000000000000000000000000000:-1"] {
        assert!(text.parse::<Position>().is_err(), "{text}");
    }
}

#[test]
fn a_position_older_than_what_is_remembered_gets_the_whole() {
    let mut ledger: Ledger<usize, usize> = Ledger::new(Uuid::new_v4(), MAX_REMOVED);
    ledger.set(usize::MAX, Arc::new(0));
    let old = ledger.position();
    for n in 0..MAX_REMOVED {
        ledger.set(n, Arc::new(n));
    }
    for n in 0..MAX_REMOVED {
        ledger.remove(&n);
    }
    // Nothing forgotten: exactly what is gone.
    let delta = ledger.since(Some(old));
    assert_eq!((delta.whole, delta.changes.len()), (false, MAX_REMOVED));
    ledger.set(0, Arc::new(0));
    ledger.remove(&0);
    ledger.set(usize::MAX - 1, Arc::new(0));
    ledger.remove(&(usize::MAX - 1));
    let recent = ledger.position();
    assert!(ledger.since(Some(old)).whole);
    ledger.remove(&usize::MAX);
    let delta = ledger.since(Some(recent));
    assert_eq!((delta.whole, delta.changes.len()), (false, 1));
}

#[test]
fn jobs_are_apart_from_lists_of_the_engine() {
    let mut model = HostModel::new(Uuid::new_v4());
    let (key, entry) = jobs(1, 2);
    model.looked_at([(key.clone(), Some(entry))].into());
    model.listed(
        [container(1, 2)]
            .into_iter()
            .map(|(k, e)| (k, Some(e)))
            .collect(),
    );
    assert_eq!(all(&model).len(), 2);
    assert_eq!(model.all_jobs(BTreeMap::new()), [key]);
    assert_eq!(all(&model).len(), 1);
}

#[tokio::test]
async fn proofs_that_are_asked_for_together_are_one_list() {
    let dirty = Dirty::default();
    let model = Model::new(dirty.clone());
    assert!(model.since(None).is_err());
    let ask = || {
        let model = model.clone();
        tokio::spawn(async move { model.prove().await })
    };
    let asked = [ask(), ask(), ask()];
    let taken = loop {
        let asks = dirty.take();
        if asks.asks == 3 {
            break asks;
        }
        tokio::task::yield_now().await;
    };
    // One that comes while the list is under way is not answered by it.
    let late = ask();
    while dirty.take().asks < 4 {
        tokio::task::yield_now().await;
    }
    model.proven(Instant::now(), taken.asks);
    for asked in asked {
        asked.await.unwrap().unwrap();
    }
    assert!(!late.is_finished());
    assert!(model.since(None).is_ok());
    assert_eq!(model.proof().unwrap().number, 1);

    let failure = Failure::new(Reason::EngineUnavailable, "away");
    model.failed(failure.clone(), 4);
    assert_eq!(late.await.unwrap(), Err(failure.clone()));
    assert_eq!(model.since(None).unwrap_err(), failure);
    model.proven(Instant::now(), 4);
    assert!(model.since(None).is_ok());
    assert_eq!(model.proof().unwrap().number, 2);
}

#[tokio::test]
async fn nobody_waits_for_a_list_that_will_not_be_made() {
    let model = Model::new(Dirty::default());
    let (waiting, ()) = tokio::join!(model.prove(), async { model.close() });
    for answer in [waiting, model.prove().await] {
        assert_eq!(answer.unwrap_err().reason, Reason::Stopping);
    }
}

#[test]
fn lists_hold_what_they_are_of() {
    let model = Model::new(Dirty::default());
    assert!(model.containers().is_err() && model.volumes().is_err());
    model.change(|host| {
        let found = [container(1, 2), volume(1, 1), volume(2, 1), jobs(1, 1)];
        host.looked_at(found.into_iter().map(|(k, e)| (k, Some(e))).collect())
    });
    model.proven(Instant::now(), 0);
    assert_eq!(model.containers().unwrap().len(), 1);
    assert_eq!(model.volumes().unwrap().len(), 2);
}
