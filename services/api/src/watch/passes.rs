//! What watchers were let in with. Another call shows its token each time; a stream would outlive one that
//! is revoked. So the tokens of all watchers are looked up together, once per [`FRESH`], however many they
//! are.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio_util::sync::CancellationToken;
use windlass_db::{DbError, Pool};

use crate::{
    access::Caller,
    auth::{Digest256, FRESH},
};

/// What one watcher was let in with.
#[derive(Debug)]
pub struct Pass {
    caller: Caller,
    token: Digest256,
    void: CancellationToken,
}

impl Pass {
    /// Completes when the token opens no longer what it opened.
    pub async fn void(&self) {
        self.void.cancelled().await;
    }
}

/// Those of all watchers that are left.
#[derive(Clone, Debug, Default)]
pub struct Passes(Arc<Mutex<Vec<Weak<Pass>>>>);

impl Passes {
    /// Holds as long as it is kept.
    pub fn issue(&self, caller: Caller, token: Digest256) -> Arc<Pass> {
        let pass = Arc::new(Pass {
            caller,
            token,
            void: CancellationToken::new(),
        });
        let mut passes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        passes.push(Arc::downgrade(&pass));
        pass
    }

    fn kept(&self) -> Vec<Arc<Pass>> {
        let mut passes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        passes.retain(|pass| pass.strong_count() > 0);
        passes.iter().filter_map(Weak::upgrade).collect()
    }

    /// Looks all of them up for ever. While the database is away nobody is sent away.
    pub async fn follow(&self, pool: &Pool) {
        loop {
            tokio::time::sleep(FRESH).await;
            if let Err(error) = self.check(pool).await {
                tracing::debug!("watchers stay: {error}");
            }
        }
    }

    async fn check(&self, pool: &Pool) -> Result<(), DbError> {
        let passes = self.kept();
        if passes.is_empty() {
            return Ok(());
        }
        let tokens: BTreeSet<Digest256> = passes.iter().map(|pass| pass.token).collect();
        let tokens: Vec<Digest256> = tokens.into_iter().collect();
        let users = pool.users_of_tokens(&tokens).await?;
        for pass in passes {
            let Caller { id, admin, .. } = pass.caller;
            let user = users.get(&pass.token);
            let valid = user.is_some_and(|user| user.id == id && (user.admin || !admin));
            if !valid {
                pass.void.cancel();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use windlass_domain::UserId;

    use super::*;

    #[tokio::test]
    async fn while_the_database_is_away_nobody_is_sent_away() {
        let pool = Pool::new("postgres://nobody@127.0.0.1:1/none", 1).unwrap();
        let passes = Passes::default();
        passes.check(&pool).await.unwrap();
        let caller = Caller {
            id: UserId(uuid::Uuid::nil()),
            name: "ann".to_owned(),
            admin: false,
        };
        let pass = passes.issue(caller, [0; 32]);
        passes.check(&pool).await.unwrap_err();
        assert!(!pass.void.is_cancelled());
        // One whose watcher has ended costs nothing.
        drop(pass);
        passes.check(&pool).await.unwrap();
        assert!(passes.0.lock().unwrap().is_empty());
    }
}
