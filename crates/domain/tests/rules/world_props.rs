//! What must hold in every world: no step removes the only copy of a home or gives a container another
//! one (asserted inside the world), and once faults stop, everything arrives.

use proptest::{collection::vec, prelude::*};
use windlass_domain::{DesiredState, Operation, Phase};

use crate::world::{Dice, World};

/// Steps without faults that suffice for everything: several backoffs of 5 min.
const BOUND: usize = 4_000;

fn calm(world: &mut World, arrived: impl Fn(&World) -> bool) -> bool {
    (0..BOUND).any(|_| {
        world.step([0; 8]);
        arrived(world)
    })
}

fn arrives(world: &mut World) {
    if world.ws.spec.deleted {
        let gone = |w: &World| {
            let c = &w.ws.control;
            let at_rest = c.operation == Operation::None;
            at_rest && w.is_empty() && matches!(c.phase, Phase::Deleting | Phase::Deleted)
        };
        assert!(calm(world, gone), "not deleted: {:?}", world.ws);
        assert!(world.home_is_kept() || world.ws.spec.discard_home);
        return;
    }
    let desired = world.ws.spec.desired.phase();
    let at_rest = |w: &World| {
        let c = &w.ws.control;
        let arrived = c.phase == desired && w.ws.open_restore().is_none();
        c.operation == Operation::None && (arrived || c.phase == Phase::Error)
    };
    assert!(calm(world, at_rest), "stuck: {:?}", world.ws);
}

fn live(world: &mut World, steps: Vec<Dice>) {
    for dice in steps {
        world.step(dice);
    }
}

fn run(steps: Vec<Dice>) -> World {
    let mut world = World::new();
    live(&mut world, steps);
    arrives_recovered(&mut world, 0);
    world
}

/// Whatever an ERROR was about is over by now, but for a lost home: recovered, it arrives as well.
fn arrives_recovered(world: &mut World, which: usize) {
    arrives(world);
    for _ in 0..5 {
        if world.ws.control.phase == Phase::Error && !world.ws.spec.deleted {
            world.recover(which);
            world.ws.control.clear_error();
            world.step([0; 8]);
            arrives(world);
        }
    }
    if !world.ws.spec.deleted {
        assert_ne!(world.ws.control.phase, Phase::Error, "{:?}", world.ws);
        assert!(world.home_is_kept());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_home_is_lost_and_everything_arrives(steps in vec(any::<Dice>(), 0..400)) {
        run(steps);
    }

    #[test]
    fn deletion_arrives_from_anywhere(
        steps in vec(any::<Dice>(), 0..60),
        discard in any::<bool>(),
        after in vec(any::<Dice>(), 0..30),
    ) {
        let mut world = World::new();
        live(&mut world, steps);
        world.delete(discard);
        live(&mut world, after);
        arrives(&mut world);
    }
}

const WRITE: Dice = [0, 140, 0, 0, 0, 0, 0, 0];

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// The disk of a home is lost, another home is accepted for it, and then the disk is back.
    #[test]
    fn a_lost_home_that_comes_back_is_not_removed(
        before in vec(any::<Dice>(), 0..60),
        lost in vec(any::<Dice>(), 0..40),
        which in any::<usize>(),
        accepted in vec(any::<Dice>(), 0..8),
        after in vec(any::<Dice>(), 0..60),
    ) {
        let mut world = World::new();
        arrives(&mut world);
        world.step(WRITE);
        live(&mut world, before);
        world.lose_home();
        live(&mut world, lost);
        world.recover(which);
        live(&mut world, accepted);
        world.home_comes_back();
        live(&mut world, after);
        arrives_recovered(&mut world, which);
    }
}

/// A running home with content 2, and its archive with content 1.
fn archived_and_written_since() -> World {
    let mut world = World::new();
    for desired in [DesiredState::Archived, DesiredState::Running] {
        arrives(&mut world);
        world.step(WRITE);
        world.desire(desired);
    }
    arrives(&mut world);
    world.step(WRITE);
    assert_eq!((world.content(), world.archived()), (Some(2), vec![1]));
    world
}

/// Its content is newer than the archive that was accepted, and is the home again.
#[test]
fn a_lost_home_that_comes_back_after_its_recovery_is_the_home_again() {
    let mut world = archived_and_written_since();
    world.lose_home();
    let found = |w: &World| w.ws.control.phase == Phase::Error;
    assert!(calm(&mut world, found), "{:?}", world.ws);
    world.recover(0);
    assert_eq!(world.content(), Some(1), "accepted");
    world.home_comes_back();
    arrives(&mut world);
    assert_eq!(world.ws.control.phase, Phase::Running);
    assert_eq!(world.content(), Some(2), "and what was lost is back");
}

#[test]
fn back_and_forth_without_faults() {
    let mut world = archived_and_written_since();
    world.wish_restore(0);
    arrives(&mut world);
    assert_eq!(world.ws.control.phase, Phase::Running);
    assert_eq!((world.content(), world.archived()), (Some(1), vec![1, 2]));
    world.wish_restore(1);
    arrives(&mut world);
    assert_eq!(
        (world.content(), world.archived()),
        (Some(2), vec![1, 2, 1])
    );
    assert_eq!(world.wishes, 2);
}

/// A running home is archived again and again, without a stop, and each archive can be the home again.
#[test]
fn checkpoints_without_faults() {
    let mut world = World::new();
    world.ws.spec.checkpoint_interval = Some(chrono::TimeDelta::seconds(60));
    arrives(&mut world);
    world.step(WRITE);
    assert!(calm(&mut world, |w| w.checkpoints() == 3));
    arrives(&mut world);
    assert_eq!(world.moves, 2, "it ran all the time");
    assert!(world.archived().contains(&1));
    world.step(WRITE);
    world.wish_restore(2);
    arrives(&mut world);
    assert_eq!(world.content(), Some(1));
    assert!(world.home_is_kept());
}

#[test]
fn what_waits_for_a_place_begins_when_there_is_one() {
    const FULL: Dice = [0, 0, 0, 0, 0, 0, 0, 255];
    let mut world = World::new();
    for _ in 0..2_000 {
        world.step(FULL);
    }
    let c = &world.ws.control;
    assert_eq!((c.operation, c.phase), (Operation::None, Phase::Pending));
    assert_eq!(c.error_reason, None, "waiting has no time limit");
    assert!(c.op_started_at.is_some(), "since when it waits");
    assert!(world.waits > 1_900);
    arrives(&mut world);
}

#[test]
fn a_wish_that_is_taken_back_waits_no_more() {
    const FULL: Dice = [0, 0, 0, 0, 0, 0, 0, 255];
    let mut world = World::new();
    world.desire(DesiredState::Standby);
    arrives(&mut world);
    world.desire(DesiredState::Running);
    world.step(FULL);
    assert!(world.ws.control.op_started_at.is_some());
    world.desire(DesiredState::Standby);
    world.step(FULL);
    assert_eq!(world.ws.control.op_started_at, None);
}

#[test]
fn a_life_without_faults() {
    let mut world = World::new();
    for desired in [
        DesiredState::Running,
        DesiredState::Archived,
        DesiredState::Running,
        DesiredState::Standby,
        DesiredState::Archived,
        DesiredState::Standby,
    ] {
        world.desire(desired);
        world.step([0, 140, 0, 0, 0, 0, 0, 0]);
        arrives(&mut world);
        assert_eq!(world.ws.control.phase, desired.phase());
        world.step([0, 140, 0, 0, 0, 0, 0, 0]); // the user writes
        world.step([0; 8]);
        world.step([0; 8]);
    }
    world.delete(false);
    arrives(&mut world);
    assert_eq!(world.moves, 10, "one for each step of the ladder");
    assert!(world.passed_over > 0, "at rest nobody looks");
    assert!(world.home_is_kept());
}
