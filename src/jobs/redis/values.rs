//! Small values, counters and shared limits in Redis.

use std::time::Duration;

use async_trait::async_trait;
use redis::Cmd;

use super::calls::Again;
use super::said::Said;
use super::{Redis, millis};
use crate::jobs::store::{Draw, StoreError, ValueStore};

impl Redis {
    async fn put_value(
        &self,
        (space, key): (&str, &str),
        value: &[u8],
        ttl: Option<Duration>,
        new: bool,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        // Redis takes no expiry of 0 from now, and a value that short-lived is never seen.
        let ttl = ttl.map_or_else(String::new, |ttl| millis(ttl).max(1).to_string());
        let mut script = self.scripts.put.key(self.keys.value(space, key));
        script.key(self.keys.space(space)).arg(key).arg(value).arg(ttl).arg(if new { "new" } else { "" });
        self.run(&script, if new { Again::Never } else { Again::Harmless }).await
    }

    /// A value that was written is remembered for a while.
    async fn say(
        &self,
        place: (&str, &str),
        value: &[u8],
        ttl: Option<Duration>,
        new: bool,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let before = self.put_value(place, value, ttl, new).await?;
        if before.is_none() {
            self.holds.values.said(place, value, ttl);
        }
        Ok(before)
    }

    /// The same again, unless there is one. A value that is there may be older, and may be newer.
    pub(super) async fn put_again(&self, said: &Said) -> Result<(), StoreError> {
        let Some(ttl) = said.left() else { return Ok(()) };
        self.put_value((&said.space, &said.key), &said.value, ttl, true).await.map(drop)
    }
}

#[async_trait]
impl ValueStore for Redis {
    async fn put(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.say((space, key), value, ttl, false).await.map(drop)
    }

    async fn put_new(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.say((space, key), value, ttl, true).await
    }

    async fn get(&self, space: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.query(&Cmd::get(self.keys.value(space, key)), Again::Harmless).await
    }

    async fn list(&self, space: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut script = self.scripts.range.key(self.keys.space(space));
        script.arg("future").arg(-1);
        let keys: Vec<String> = self.run(&script, Again::Harmless).await?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = keys.iter().map(|key| self.keys.value(space, key)).collect();
        let values: Vec<Option<Vec<u8>>> = self.query(&Cmd::mget(names), Again::Harmless).await?;
        // What has expired in between has no value any more.
        Ok(keys.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect())
    }

    async fn add(&self, space: &str, key: &str, delta: i64) -> Result<i64, StoreError> {
        self.query(&Cmd::incr(self.keys.counter(space, key), delta), Again::Never).await
    }

    async fn draw(&self, space: &str, key: &str, slice: &str, draw: Draw) -> Result<Option<u64>, StoreError> {
        let mut script = self.scripts.draw.key(self.keys.slices(space, key));
        let most = |size: u64| size.min(Draw::MOST);
        script.arg(slice).arg(most(draw.wanted)).arg(draw.least.min(Draw::MOST + 1)).arg(most(draw.limit));
        // Redis takes no expiry of 0 from now.
        script.arg(millis(draw.ttl).max(1));
        let granted: i64 = self.run(&script, Again::Harmless).await?;
        Ok(u64::try_from(granted).ok())
    }

    async fn drawn(&self, space: &str, key: &str) -> Result<u64, StoreError> {
        let script = self.scripts.drawn.key(self.keys.slices(space, key));
        self.run(&script, Again::Harmless).await
    }
}
