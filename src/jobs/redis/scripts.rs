//! The scripts, in the folder of this name.

use redis::Script;

pub(super) struct Scripts {
    pub(super) claim: Script,
    pub(super) append: Script,
    pub(super) restore: Script,
    pub(super) journal: Script,
    pub(super) forget: Script,
    pub(super) renew: Script,
    pub(super) take_over: Script,
    pub(super) put: Script,
    pub(super) range: Script,
    pub(super) count: Script,
    pub(super) draw: Script,
    pub(super) drawn: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Scripts {
            claim: Script::new(include_str!("scripts/claim.lua")),
            append: Script::new(include_str!("scripts/append.lua")),
            restore: Script::new(include_str!("scripts/restore.lua")),
            journal: Script::new(include_str!("scripts/journal.lua")),
            forget: Script::new(include_str!("scripts/forget.lua")),
            renew: Script::new(include_str!("scripts/renew.lua")),
            take_over: Script::new(include_str!("scripts/take_over.lua")),
            put: Script::new(include_str!("scripts/put.lua")),
            range: Script::new(include_str!("scripts/range.lua")),
            count: Script::new(include_str!("scripts/count.lua")),
            draw: Script::new(include_str!("scripts/draw.lua")),
            drawn: Script::new(include_str!("scripts/drawn.lua")),
        }
    }
}
