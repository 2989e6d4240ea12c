//! What is wrong with which link, for how long; several faults may strike one.
//!
//! Invariant: a link is as bad as the worst of the changes that last, and healthy without any.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Director;
use crate::network::{HostId, Link};

/// What a fault does to a link.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Cut,
    Loss(u64),
    Reorder(u64),
    Duplicate(u64),
    Delay(u64),
    Trickle(u64),
}

impl Director {
    pub(super) fn both(&self, a: u64, b: u64) -> Vec<(HostId, HostId)> {
        let (a, b) = (self.host(a), self.host(b));
        vec![(a, b), (b, a)]
    }

    /// Every link between these nodes and everyone else, with clients or without, both ways or one way.
    pub(super) fn around(&self, inside: &[u64], choice: u64) -> Vec<(HostId, HostId)> {
        let inner: Vec<HostId> = inside.iter().map(|n| self.host(*n)).collect();
        let mut outer: Vec<HostId> = self.world.machines().values().map(|m| m.host).collect();
        if choice.is_multiple_of(2) {
            outer.extend(self.state().clients.iter().copied());
        }
        let mut links = Vec::new();
        for a in &inner {
            for b in outer.iter().filter(|b| !inner.contains(b)) {
                if choice % 10 != 3 {
                    links.push((*a, *b));
                }
                if choice % 10 != 4 {
                    links.push((*b, *a));
                }
            }
        }
        links
    }

    pub(super) fn change_links(&self, links: &[(HostId, HostId)], change: Change, for_ms: u64) -> bool {
        let id = self.begin_change(links, change);
        let links = links.to_vec();
        self.after(for_ms, move |d| d.end_change(id, &links));
        true
    }

    /// Until it is ended, by the number that this gives.
    pub(super) fn begin_change(&self, links: &[(HostId, HostId)], change: Change) -> u64 {
        let id = {
            let mut state = self.state();
            state.next_change += 1;
            let id = state.next_change;
            for link in links {
                state.links.entry(*link).or_default().push((id, change));
            }
            id
        };
        self.set_links(links);
        id
    }

    pub(super) fn end_change(&self, id: u64, links: &[(HostId, HostId)]) {
        for link in links {
            if let Some(changes) = self.state().links.get_mut(link) {
                changes.retain(|(nth, _)| *nth != id);
            }
        }
        self.set_links(links);
    }

    pub(super) fn mend_links(&self) {
        let mut hosts: Vec<HostId> = self.world.machines().values().map(|m| m.host).collect();
        hosts.extend(self.state().clients.iter().copied());
        let mut links = Vec::new();
        for a in &hosts {
            links.extend(hosts.iter().filter(|b| *b != a).map(|b| (*a, *b)));
        }
        self.set_links(&links);
    }

    pub(super) fn set_links(&self, links: &[(HostId, HostId)]) {
        let zones: BTreeMap<HostId, usize> = self.world.machines().values().map(|m| (m.host, m.zone)).collect();
        for (from, to) in links {
            let near = zones.get(from) == zones.get(to);
            let delay = if near { self.plan.delay_us.0 } else { self.plan.delay_us.1 };
            let mut link = Link::healthy(Duration::from_micros(delay));
            for (_, change) in self.state().links.get(&(*from, *to)).into_iter().flatten() {
                match *change {
                    Change::Cut => link.cut = true,
                    Change::Loss(per_mille) => link.loss_per_mille = link.loss_per_mille.max(per_mille),
                    Change::Reorder(per_mille) => link.reorder_per_mille = link.reorder_per_mille.max(per_mille),
                    Change::Duplicate(per_mille) => link.duplicate_per_mille = link.duplicate_per_mille.max(per_mille),
                    Change::Delay(ms) => {
                        link.delay += Duration::from_millis(ms);
                        link.jitter = link.delay / 2;
                    }
                    Change::Trickle(bytes) => {
                        link.bandwidth = if link.bandwidth == 0 { bytes } else { link.bandwidth.min(bytes) };
                    }
                }
            }
            self.world.network.set_link(*from, *to, link);
        }
    }
}
