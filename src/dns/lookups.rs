//! The state of all lookups: their callers, their permits, and the two queues.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{LookupResult, Priority};

/// The number of lookups of one priority that hold a permit at a time.
pub(super) const PERMITS: usize = 32;

/// The number of lookups of one priority that may block a thread without a permit. At this number, a permit is
/// returned only when its thread ends.
pub(super) const HUNG: usize = 256;

/// The maximum number of threads that the lookups of one resolver block.
pub(crate) const MAX_THREADS: usize = 2 * (PERMITS + HUNG);

/// A lookup that runs longer returns its permit. Each [`PERMITS`] lookups without a permit add the same time again,
/// so that steady calls to names without an answer do not use up the threads.
pub(super) const LONG: Duration = Duration::from_secs(1);

/// The progress of a lookup.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Queued,
    Running {
        since: Instant,
        permit_until: Instant,
    },
    Done(LookupResult),
}

/// A lookup to run in a thread.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) name: Arc<str>,
    pub(super) id: u64,
}

/// All lookups, at most one for each name.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    last_id: u64,
    names: HashMap<Arc<str>, Lookup>,
    normal: Lane,
    high: Lane,
}

#[derive(Debug)]
struct Lookup {
    id: u64,
    priority: Priority,
    callers: usize,
    permit: bool,
    phase: watch::Sender<Phase>,
}

/// The lookups of one priority.
#[derive(Debug, Default)]
struct Lane {
    /// Ordered by age.
    queue: BTreeMap<u64, Arc<str>>,
    permits: usize,
    /// The threads of lookups with and without a permit.
    threads: usize,
}

// === impl Phase ===

impl Phase {
    /// Returns whether the lookup runs for at least `time`, without an outcome.
    pub(super) fn has_run_for(&self, time: Duration) -> bool {
        matches!(self, Self::Running { since, .. } if since.elapsed() >= time)
    }
}

// === impl Lookups ===

impl Lookups {
    /// Adds a caller to the lookup of `name`. Queues the lookup if there is none. Joins a hanging lookup too.
    pub(super) fn join(
        &mut self,
        name: &Arc<str>,
        priority: Priority,
    ) -> (u64, watch::Receiver<Phase>) {
        if let Some(lookup) = self.names.get_mut(name) {
            lookup.callers += 1;
            let joined = (lookup.id, lookup.phase.subscribe());
            if priority == Priority::High {
                self.promote(name);
            }
            return joined;
        }
        self.last_id += 1;
        let id = self.last_id;
        let (phase, joined) = watch::channel(Phase::Queued);
        self.lane(priority).queue.insert(id, Arc::clone(name));
        self.names.insert(
            Arc::clone(name),
            Lookup {
                id,
                priority,
                callers: 1,
                permit: false,
                phase,
            },
        );
        (id, joined)
    }

    /// Moves a queued lookup to the queue of [`Priority::High`].
    pub(super) fn promote(&mut self, name: &str) {
        let Some(lookup) = self.names.get_mut(name) else {
            return;
        };
        if let Some(name) = self.normal.queue.remove(&lookup.id) {
            lookup.priority = Priority::High;
            self.high.queue.insert(lookup.id, name);
        }
    }

    /// Removes a caller. Without callers, a queued lookup is removed, and a running one returns its permit.
    pub(super) fn leave(&mut self, name: &str, id: u64) {
        let Some(lookup) = self.names.get_mut(name).filter(|lookup| lookup.id == id) else {
            return;
        };
        lookup.callers -= 1;
        if lookup.callers > 0 {
            return;
        }
        let priority = lookup.priority;
        if self.lane(priority).queue.remove(&id).is_some() {
            self.names.remove(name);
        } else {
            self.release(name, id);
        }
    }

    /// Takes the permit from a slow lookup, unless too many threads hang already.
    pub(super) fn release(&mut self, name: &str, id: u64) {
        let Some(lookup) = self.names.get_mut(name).filter(|lookup| lookup.id == id) else {
            return;
        };
        let lane = match lookup.priority {
            Priority::Normal => &mut self.normal,
            Priority::High => &mut self.high,
        };
        if lookup.permit && lane.hung() < HUNG {
            lookup.permit = false;
            lane.permits -= 1;
        }
    }

    /// Publishes the outcome of a lookup and removes it.
    pub(super) fn finish(&mut self, name: &str, id: u64, outcome: LookupResult) {
        if self.names.get(name).is_none_or(|lookup| lookup.id != id) {
            return;
        }
        let Some(lookup) = self.names.remove(name) else {
            return;
        };
        let lane = self.lane(lookup.priority);
        lane.threads -= 1;
        lane.permits -= usize::from(lookup.permit);
        lookup.phase.send_replace(Phase::Done(outcome));
    }

    /// Removes the lookups from the queues that may start, the newest first: most callers of old ones have given up.
    pub(super) fn start(&mut self, now: Instant) -> Vec<Started> {
        let mut started = Vec::new();
        for lane in [&mut self.high, &mut self.normal] {
            while lane.permits < PERMITS
                && let Some((id, name)) = lane.queue.pop_last()
            {
                let Some(lookup) = self.names.get_mut(&name) else {
                    continue;
                };
                lookup.permit = true;
                lookup.phase.send_replace(Phase::Running {
                    since: now,
                    permit_until: now + lane.permit_time(),
                });
                lane.permits += 1;
                lane.threads += 1;
                started.push(Started { name, id });
            }
        }
        started
    }

    /// Returns the number of names that are looked up or queued.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    fn lane(&mut self, priority: Priority) -> &mut Lane {
        match priority {
            Priority::Normal => &mut self.normal,
            Priority::High => &mut self.high,
        }
    }
}

// === impl Lane ===

impl Lane {
    /// Returns the number of threads without a permit.
    fn hung(&self) -> usize {
        self.threads - self.permits
    }

    fn permit_time(&self) -> Duration {
        LONG + LONG.mul_f64(self.hung() as f64 / PERMITS as f64)
    }
}
