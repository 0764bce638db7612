//! Follows the registry: a new champion, and a new challenger, are swapped in while the server runs; what the server took
//! back itself (`rollout`) is not.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, bail};
use lately_rank::ModelSlot;
use lately_store::{Registry, Version};
use lately_train::publish::{CHALLENGER, CHAMPION};

/// Makes the slots hold what the registry's aliases name.
pub(crate) struct Follower {
    registry: Registry,
    pub(crate) slot: Arc<ModelSlot>,
    /// Where a share of the rankings is shadowed.
    challenger: Option<Arc<ModelSlot>>,
    /// From the look at the alias to the swap: whoever looked first must not swap an older champion back in.
    turn: Mutex<()>,
    /// Versions that were taken back, and why: this server does not swap them in again.
    condemned: Mutex<BTreeMap<String, String>>,
}

impl Follower {
    pub(crate) fn new(registry: Registry, slot: Arc<ModelSlot>, challenger: Option<Arc<ModelSlot>>) -> Self {
        Self { registry, slot, challenger, turn: Mutex::new(()), condemned: Mutex::default() }
    }

    /// Swaps the champion in, if it is not the one that serves; returns whether it did.
    pub(crate) fn follow(&self) -> Result<bool> {
        self.swap(CHAMPION, &self.slot)
    }

    /// The same for the challenger, but that it goes where the alias is taken away. A champion would stay: to serve the
    /// last good one is better than none.
    pub(crate) fn follow_challenger(&self) -> Result<bool> {
        let Some(slot) = &self.challenger else { return Ok(false) };
        if self.registry.alias(CHALLENGER)?.is_none() && slot.clear() {
            tracing::info!("there is no challenger any more");
        }
        self.swap(CHALLENGER, slot)
    }

    /// Never swaps a version in again, until the server is started anew. Returns whether that is new.
    pub(crate) fn condemn(&self, version: &str, reason: &str) -> bool {
        let mut condemned = self.condemned.lock().unwrap_or_else(PoisonError::into_inner);
        condemned.insert(version.to_owned(), reason.to_owned()).is_none()
    }

    /// Lets go of the challenger now, whatever the registry says.
    pub(crate) fn drop_challenger(&self) {
        if let Some(slot) = &self.challenger {
            slot.clear();
        }
    }

    pub(crate) fn challenger(&self) -> Option<String> {
        Some(self.challenger.as_ref()?.current()?.version().to_owned())
    }

    /// The slot that follows an alias anyhow.
    pub(crate) fn slot_of(&self, alias: &str) -> Option<Arc<ModelSlot>> {
        match alias {
            CHAMPION => Some(Arc::clone(&self.slot)),
            CHALLENGER => self.challenger.clone(),
            _ => None,
        }
    }

    /// Swaps what an alias names into a slot, if it is not there yet; returns whether it did.
    pub(crate) fn swap(&self, alias: &str, slot: &ModelSlot) -> Result<bool> {
        // Guards no data: a turn that panicked leaves nothing half done.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(version) = self.registry.alias(alias)? else {
            return Ok(alias == CHALLENGER && slot.clear());
        };
        let name = version.to_string();
        if slot.current().is_some_and(|m| m.version() == name) {
            return Ok(false);
        }
        if let Some(reason) = self.condemned.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
            bail!("{name:.12} was taken back ({reason}): restart the server to serve it all the same");
        }
        let bytes = self.registry.load(&version)?;
        let generation = slot.swap_bytes(&name, &bytes)?;
        tracing::info!(alias, version = name, generation, "swapped a model in");
        Ok(true)
    }
}

/// Looks at the aliases every `interval` until the sender is dropped.
pub(crate) fn watch(follower: &Arc<Follower>, interval: Duration) -> Result<(Sender<()>, JoinHandle<()>)> {
    let (stop, stopped) = channel();
    let follower = Arc::clone(follower);
    let thread = std::thread::Builder::new().name("model-watch".to_owned()).spawn(move || {
        let (mut champion, mut challenger) = (Refused::default(), Refused::default());
        while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            champion.say(CHAMPION, &follower.registry, follower.follow());
            challenger.say(CHALLENGER, &follower.registry, follower.follow_challenger());
        }
    })?;
    Ok((stop, thread))
}

/// The version that was refused last: it is said once, not every two seconds.
#[derive(Default)]
struct Refused(Option<Version>);

impl Refused {
    fn say(&mut self, alias: &str, registry: &Registry, followed: Result<bool>) {
        let Err(error) = followed else {
            self.0 = None;
            return;
        };
        let name = registry.alias(alias).ok().flatten();
        if self.0 != name {
            tracing::error!(alias, %error, "a model is refused, the last good one stays");
            self.0 = name;
        }
    }
}
