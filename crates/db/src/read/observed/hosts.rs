//! The hosts as the observer needs them, and the store.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;
use windlass_domain::HostId;

use crate::{error::Result, pool::Pool, prepared::Prepare};

/// A host as the observer needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedHost {
    /// Its id.
    pub id: HostId,
    /// Its name.
    pub name: String,
    /// URL of its agent.
    pub address: String,
    /// When it was registered.
    pub created_at: DateTime<Utc>,
    /// When the last full list began.
    pub observed_at: Option<DateTime<Utc>>,
    /// Why it could not be observed last; empty if it could.
    pub error: String,
}

/// The hosts and the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedHosts {
    /// All hosts, by id.
    pub hosts: Vec<ObservedHost>,
    /// When the store was last listed anew.
    pub store_observed_at: Option<DateTime<Utc>>,
    /// Why it could not be observed last; empty if it could.
    pub store_error: String,
}

impl Pool {
    /// Every host by id, and the store.
    pub async fn observed_hosts(&self) -> Result<ObservedHosts> {
        #[derive(QueryableByName)]
        struct HostLine {
            #[diesel(sql_type = Nullable<Timestamptz>)]
            store_observed_at: Option<DateTime<Utc>>,
            #[diesel(sql_type = Text)]
            store_error: String,
            #[diesel(sql_type = Nullable<SqlUuid>)]
            id: Option<Uuid>,
            #[diesel(sql_type = Nullable<Text>)]
            name: Option<String>,
            #[diesel(sql_type = Nullable<Text>)]
            address: Option<String>,
            #[diesel(sql_type = Nullable<Timestamptz>)]
            created_at: Option<DateTime<Utc>>,
            #[diesel(sql_type = Nullable<Timestamptz>)]
            observed_at: Option<DateTime<Utc>>,
            #[diesel(sql_type = Nullable<Text>)]
            error: Option<String>,
        }
        let mut conn = self.get().await?;
        let lines: Vec<HostLine> = diesel::sql_query(
            "SELECT s.last_observed_at AS store_observed_at, s.observe_error AS store_error, h.id, h.name,
                    h.address, h.created_at,
                    h.last_observed_at AS observed_at, h.observe_error AS error
             FROM archive_store AS s LEFT JOIN hosts AS h ON true ORDER BY h.id",
        )
        .prepared()
        .load(&mut conn)
        .await?;
        let store = lines.as_slice().first();
        Ok(ObservedHosts {
            store_observed_at: store.and_then(|s| s.store_observed_at),
            store_error: store.map(|s| s.store_error.clone()).unwrap_or_default(),
            hosts: lines
                .into_iter()
                .filter_map(|line| {
                    Some(ObservedHost {
                        id: HostId(line.id?),
                        name: line.name?,
                        address: line.address?,
                        created_at: line.created_at?,
                        observed_at: line.observed_at,
                        error: line.error?,
                    })
                })
                .collect(),
        })
    }
}
