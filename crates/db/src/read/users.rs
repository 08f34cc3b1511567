//! Users and their tokens.

use std::collections::HashMap;

use diesel::{
    BoolExpressionMethods, ExpressionMethods, IntoSql, QueryDsl,
    dsl::now,
    sql_types::{Nullable, Timestamptz},
};
use diesel_async::RunQueryDsl;
use windlass_domain::UserId;

use crate::{
    error::Result,
    pool::Pool,
    rows::UserRecord,
    schema::{tokens, users},
};

impl Pool {
    /// The user of a token, by its SHA-256; `None` if it is unknown, expired or revoked.
    pub async fn user_of_token(&self, sha256: &[u8; 32]) -> Result<Option<UserRecord>> {
        Ok(self.users_of_tokens(&[*sha256]).await?.remove(sha256))
    }

    /// The users of many tokens at once; those that are unknown, expired or revoked are missing.
    pub async fn users_of_tokens(
        &self,
        sha256s: &[[u8; 32]],
    ) -> Result<HashMap<[u8; 32], UserRecord>> {
        let mut conn = self.get().await?;
        let asked: Vec<&[u8]> = sha256s.iter().map(<[u8; 32]>::as_slice).collect();
        let rows: Vec<(Vec<u8>, uuid::Uuid, String, String)> = tokens::table
            .inner_join(users::table)
            .filter(tokens::sha256.eq_any(asked))
            .filter(tokens::revoked_at.is_null())
            .filter(
                tokens::expires_at
                    .is_null()
                    .or(tokens::expires_at.gt(now.into_sql::<Nullable<Timestamptz>>())),
            )
            .select((tokens::sha256, users::id, users::name, users::role))
            .load(&mut conn)
            .await?;
        let users = rows.into_iter().filter_map(|(sha256, id, name, role)| {
            let sha256: [u8; 32] = sha256.try_into().ok()?;
            let user = UserRecord {
                id: UserId(id),
                name,
                admin: role == "admin",
            };
            Some((sha256, user))
        });
        Ok(users.collect())
    }
}
