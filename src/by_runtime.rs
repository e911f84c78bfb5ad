//! One of a thing for each runtime of the process: a connection is driven by the runtime that opened it, and whoever uses
//! another runtime's wakes another thread for every message.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::runtime::{Handle, Id};

/// As many as there are runtimes that asked, each made when its runtime first does.
pub(crate) struct ByRuntime<T> {
    made: RwLock<Vec<(Id, T)>>,
    make: Box<dyn Fn() -> T + Send + Sync>,
}

impl<T: Clone> ByRuntime<T> {
    /// Each is made by `make`, inside its runtime.
    pub(crate) fn new(make: impl Fn() -> T + Send + Sync + 'static) -> Self {
        ByRuntime { made: RwLock::default(), make: Box::new(make) }
    }

    /// That of the runtime this is called in.
    pub(crate) fn here(&self) -> T {
        let here = Handle::current().id();
        let find = |made: &[(Id, T)]| made.iter().find(|(id, _)| *id == here).map(|(_, thing)| thing.clone());
        if let Some(thing) = find(&self.made.read()) {
            return thing;
        }
        let mut made = self.made.write();
        // Another thread of a runtime that has several may have been quicker.
        find(&made).unwrap_or_else(|| {
            let thing = (self.make)();
            made.push((here, thing.clone()));
            thing
        })
    }
}

impl<T> ByRuntime<Arc<T>> {
    /// Lets go of `thing`, so that its runtime makes a new one when it next asks. Of one that was let go of before it takes no
    /// notice: that of its runtime is new by then.
    pub(crate) fn forget(&self, thing: &Arc<T>) {
        self.made.write().retain(|(_, other)| !Arc::ptr_eq(other, thing));
    }
}

impl<T> fmt::Debug for ByRuntime<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByRuntime").field("made", &self.made.read().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn each_runtime_has_its_own_and_keeps_it() {
        let count = AtomicU32::new(0);
        let numbers = ByRuntime::new(move || count.fetch_add(1, Ordering::Relaxed));
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (first, second) = (runtime(), runtime());
        assert_eq!(first.block_on(async { numbers.here() }), 0);
        assert_eq!(second.block_on(async { numbers.here() }), 1);
        assert_eq!(
            first.block_on(async { tokio::spawn(async {}).await.map(|()| numbers.here()) }).ok(),
            Some(0)
        );
    }
    #[tokio::test]
    async fn what_is_forgotten_is_made_anew_once() {
        let count = AtomicU32::new(0);
        let numbers = ByRuntime::new(move || Arc::new(count.fetch_add(1, Ordering::Relaxed)));
        let first = numbers.here();
        numbers.forget(&first);
        assert_eq!(*numbers.here(), 1);
        numbers.forget(&first);
        assert_eq!(*numbers.here(), 1);
    }
}
