//! Users and their tokens.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, IntoSql, OptionalExtension, QueryDsl,
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
        let mut conn = self.get().await?;
        let row: Option<(uuid::Uuid, String, String)> = tokens::table
            .inner_join(users::table)
            .filter(tokens::sha256.eq(sha256.as_slice()))
            .filter(tokens::revoked_at.is_null())
            .filter(
                tokens::expires_at
                    .is_null()
                    .or(tokens::expires_at.gt(now.into_sql::<Nullable<Timestamptz>>())),
            )
            .select((users::id, users::name, users::role))
            .first(&mut conn)
            .await
            .optional()?;
        Ok(row.map(|(id, name, role)| UserRecord {
            id: UserId(id),
            name,
            admin: role == "admin",
        }))
    }
}
