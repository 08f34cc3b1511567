//! Tokens to users. PostgreSQL holds only the SHA-256 of a token, and so does the cache here, which is
//! small and short-lived: a revoked token opens nothing after [`FRESH`].

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tonic::{Request, Status};
use windlass_db::Pool;
use windlass_service::{
    Authenticator, Identity,
    auth::{bearer, invalid_token, missing_token},
};

use crate::errors;

/// How long a token that was looked up is not looked up again.
pub const FRESH: Duration = Duration::from_secs(10);
/// Tokens remembered at most.
const CAPACITY: usize = 4096;

/// What is kept of a token.
pub type Digest256 = [u8; 32];

/// The token that a request came with.
pub fn token_of<T>(request: &Request<T>) -> Result<Digest256, Status> {
    let token = bearer(request.metadata().as_ref()).ok_or_else(missing_token)?;
    Ok(digest(token))
}

fn digest(token: &str) -> Digest256 {
    Sha256::digest(token.as_bytes()).into()
}

#[derive(Debug)]
pub struct TokenAuthenticator {
    pool: Pool,
    cache: Mutex<Cache>,
}

impl TokenAuthenticator {
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            cache: Mutex::default(),
        }
    }

    // A panic while holding the lock leaves at worst an entry too few.
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl Authenticator for TokenAuthenticator {
    async fn authenticate(&self, bearer: Option<&str>) -> Result<Identity, Status> {
        let token = bearer.ok_or_else(missing_token)?;
        let sha256 = digest(token);
        if let Some(identity) = self.cache().get(&sha256, Instant::now()) {
            return Ok(identity);
        }
        let asked = Instant::now();
        let found = self.pool.user_of_token(&sha256).await;
        let user = found.map_err(errors::database)?.ok_or_else(invalid_token)?;
        let identity = Identity {
            user_id: Some(user.id.0),
            name: user.name,
            admin: user.admin,
            service: false,
        };
        self.cache().put(sha256, identity.clone(), asked);
        Ok(identity)
    }
}

#[derive(Debug, Default)]
struct Cache(HashMap<Digest256, (Identity, Instant)>);

impl Cache {
    fn get(&self, sha256: &Digest256, now: Instant) -> Option<Identity> {
        let (identity, asked) = self.0.get(sha256)?;
        (now.saturating_duration_since(*asked) < FRESH).then(|| identity.clone())
    }

    fn put(&mut self, sha256: Digest256, identity: Identity, asked: Instant) {
        if self.0.len() >= CAPACITY {
            self.0
                .retain(|_, (_, at)| asked.saturating_duration_since(*at) < FRESH);
        }
        // More valid tokens at once than there is room for: start over.
        if self.0.len() >= CAPACITY {
            self.0.clear();
        }
        self.0.insert(sha256, (identity, asked));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(n: usize) -> Identity {
        Identity {
            user_id: None,
            name: n.to_string(),
            admin: false,
            service: false,
        }
    }

    fn key(n: usize) -> Digest256 {
        Sha256::digest(n.to_be_bytes()).into()
    }

    #[test]
    fn an_entry_is_short_lived() {
        let mut cache = Cache::default();
        let now = Instant::now();
        cache.put(key(1), identity(1), now);
        assert_eq!(cache.get(&key(1), now), Some(identity(1)));
        assert_eq!(cache.get(&key(2), now), None);
        assert_eq!(cache.get(&key(1), now + FRESH), None);
    }

    #[test]
    fn the_cache_is_bounded_and_drops_old_entries_first() {
        let mut cache = Cache::default();
        let old = Instant::now();
        let now = old + FRESH;
        for n in 0..CAPACITY - 1 {
            cache.put(key(n), identity(n), old);
        }
        cache.put(key(CAPACITY), identity(0), now);
        cache.put(key(CAPACITY + 1), identity(1), now);
        assert_eq!(cache.0.len(), 2);
        for n in 0..3 * CAPACITY {
            cache.put(key(n), identity(n), now);
            assert!(cache.0.len() <= CAPACITY);
        }
    }
}
