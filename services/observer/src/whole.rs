//! The whole told anew, such as by an agent that was started again: most of it is known already.

use std::collections::{HashMap, HashSet};

use windlass_domain::WorkspaceId;

/// Workspaces of which something else is told than was known. Of the others `known` stays, which their rows share.
pub fn differing<T: PartialEq>(
    known: HashMap<WorkspaceId, T>,
    told: &mut HashMap<WorkspaceId, T>,
) -> HashSet<WorkspaceId> {
    let mut differing: HashSet<WorkspaceId> = told.keys().copied().collect();
    for (id, known) in known {
        match told.get_mut(&id) {
            Some(told) if *told == known => {
                *told = known;
                differing.remove(&id);
            }
            Some(_) | None => {
                differing.insert(id);
            }
        }
    }
    differing
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_told_again_is_held_once() {
        let id = |n| WorkspaceId(Uuid::from_u128(n));
        let [same, once, other] = [1, 2, 3].map(Arc::new);
        let known = [(id(1), &same), (id(2), &once), (id(3), &once)];
        let known: HashMap<_, _> = known.map(|(id, value)| (id, Arc::clone(value))).into();
        let mut told: HashMap<_, _> = [
            (id(1), Arc::new(1)),
            (id(3), Arc::clone(&other)),
            (id(4), Arc::clone(&other)),
        ]
        .into();
        let differing = differing(known, &mut told);
        assert_eq!(differing, [id(2), id(3), id(4)].into());
        assert!(Arc::ptr_eq(&told[&id(1)], &same));
        assert_eq!((told.len(), *told[&id(3)]), (3, 3));
    }
}
