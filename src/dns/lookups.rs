//! Which look-ups there are, who waits for them, and which may start.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Outcome, Priority};

/// Look-ups of one priority that hold a permit at the same time.
pub(super) const PERMITS: usize = 32;

/// Look-ups of one priority that hang in a thread without a permit. While there are so many, no permit is given back
/// before its thread ends.
pub(super) const HUNG: usize = 256;

/// Threads that all look-ups of one resolver block at most.
pub const MAX_THREADS: usize = 2 * (PERMITS + HUNG);

/// A look-up that takes longer gives its permit back. Every [`PERMITS`] that hang add as much, so that steady calls to
/// names without an answer do not use up the threads.
pub(super) const LONG: Duration = Duration::from_secs(1);

/// How far a look-up has come.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Queued,
    Running {
        since: Instant,
        permit_until: Instant,
    },
    Done(Outcome),
}

/// A look-up to run in a thread.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) name: Arc<str>,
    pub(super) id: u64,
}

/// Every look-up, one a name.
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

/// The look-ups of one priority.
#[derive(Debug, Default)]
struct Lane {
    /// By age.
    queue: BTreeMap<u64, Arc<str>>,
    permits: usize,
    /// With a permit or without.
    threads: usize,
}

// === impl Phase ===

impl Phase {
    /// It was started so long ago and has no outcome.
    pub(super) fn has_run_for(&self, time: Duration) -> bool {
        matches!(self, Self::Running { since, .. } if since.elapsed() >= time)
    }
}

// === impl Lookups ===

impl Lookups {
    /// Adds a caller to the look-up of `name`, which is queued if there is none. One that hangs is joined too.
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

    /// Moves a queued look-up to the other queue.
    pub(super) fn promote(&mut self, name: &str) {
        let Some(lookup) = self.names.get_mut(name) else {
            return;
        };
        if let Some(name) = self.normal.queue.remove(&lookup.id) {
            lookup.priority = Priority::High;
            self.high.queue.insert(lookup.id, name);
        }
    }

    /// Takes a caller away. Without any, a queued look-up is forgotten, and a running one gives its permit back.
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

    /// Takes the permit of a look-up that takes long, unless too many hang already.
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

    /// Ends a look-up.
    pub(super) fn finish(&mut self, name: &str, id: u64, outcome: Outcome) {
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

    /// Takes from the queues what may start, the newest first: of names that wait for long, most callers have given up.
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

    /// How many names are looked up or queued.
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
    /// Threads without a permit.
    fn hung(&self) -> usize {
        self.threads - self.permits
    }

    fn permit_time(&self) -> Duration {
        LONG + LONG.mul_f64(self.hung() as f64 / PERMITS as f64)
    }
}
