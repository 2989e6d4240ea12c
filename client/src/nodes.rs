//! Which node to ask: the endpoints given, the leaders learned, the nodes to avoid for a while.
//!
//! Owns the map group → leader's address, a hint and never a truth: any node serves any request,
//! so a wrong hint costs a hop. It opens no connection and keeps no clock; `now` is handed in.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use braid_env::time::Instant;

/// A node that could not be reached is passed over for this long: long enough that each request
/// doesn't pay a connect timeout, short enough that a restarted node is used again soon.
const AVOID_FOR: Duration = Duration::from_millis(1_000);

/// Addresses remembered at most: far above any cluster's size, so only a broken server meets it.
const ADDRESSES_MAX: usize = 256;

/// Leaders remembered at most, for the same reason.
const GROUPS_MAX: usize = 65_536;

pub(crate) struct Nodes {
    state: Mutex<State>,
}

struct State {
    /// Every address worth asking: the endpoints first, then leaders learned.
    known: Vec<String>,
    /// Where in `known` requests without a leader go, until that one fails.
    current: usize,
    leaders: BTreeMap<u32, String>,
    avoided: BTreeMap<String, Instant>,
}

impl Nodes {
    /// `endpoints` must not be empty. `start` picks the first one asked, so that many clients
    /// with one configuration don't all ask the same node.
    pub fn new(endpoints: Vec<String>, start: usize) -> Nodes {
        assert!(!endpoints.is_empty(), "a client needs an endpoint");
        let current = start % endpoints.len();
        Nodes {
            state: Mutex::new(State { known: endpoints, current, leaders: BTreeMap::new(), avoided: BTreeMap::new() }),
        }
    }

    /// Every address worth asking.
    pub fn addresses(&self) -> Vec<String> {
        self.lock().known.clone()
    }

    /// The group's leader as far as known; else, or without a group, any node (the same one until
    /// it fails).
    pub fn address_for(&self, group: Option<u32>, now: Instant) -> String {
        let mut state = self.lock();
        match group.and_then(|group| state.leaders.get(&group)) {
            Some(address) if !state.is_avoided(address, now) => address.clone(),
            _ => state.any(now),
        }
    }

    /// Believes that `address` leads `group`. An empty address says nothing.
    pub fn learn_leader(&self, group: u32, address: &str) {
        if address.is_empty() {
            return;
        }
        let mut state = self.lock();
        if !state.known.iter().any(|known| known == address) && state.known.len() < ADDRESSES_MAX {
            state.known.push(address.to_owned());
        }
        if state.leaders.len() < GROUPS_MAX || state.leaders.contains_key(&group) {
            state.leaders.insert(group, address.to_owned());
        }
    }

    /// Stops believing that `address` leads `group`; a newer belief stays.
    pub fn forget_leader(&self, group: u32, address: &str) {
        let mut state = self.lock();
        if state.leaders.get(&group).is_some_and(|a| a == address) {
            state.leaders.remove(&group);
        }
    }

    /// `address` did not answer: others are asked for a while.
    pub fn avoid(&self, address: &str, now: Instant) {
        let mut state = self.lock();
        if state.avoided.len() < ADDRESSES_MAX {
            state.avoided.insert(address.to_owned(), now + AVOID_FOR);
        }
    }

    /// `address` could not serve a request that needs no certain node: the next one goes elsewhere.
    pub fn pass_over(&self, address: &str) {
        let mut state = self.lock();
        if state.known[state.current] == address {
            state.current = (state.current + 1) % state.known.len();
        }
    }

    /// `address` answered.
    pub fn trust(&self, address: &str) {
        self.lock().avoided.remove(address);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code below can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_avoided(&self, address: &str, now: Instant) -> bool {
        self.avoided.get(address).is_some_and(|until| now < *until)
    }

    fn any(&mut self, now: Instant) -> String {
        let n = self.known.len();
        let next = (0..n)
            .map(|step| (self.current + step) % n)
            .find(|&i| !self.is_avoided(&self.known[i], now))
            // All are avoided: the one that has been for longest may be back.
            .or_else(|| (0..n).min_by_key(|&i| self.avoided.get(&self.known[i]).copied()))
            .expect("there is at least one node");
        self.current = next;
        self.known[next].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Nodes {
        Nodes::new(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], 0)
    }

    #[test]
    fn stays_with_a_node_until_it_fails_then_returns_when_all_have() {
        let (nodes, now) = (nodes(), Instant::now());
        assert_eq!((nodes.address_for(None, now), nodes.address_for(None, now)), ("a".into(), "a".into()));
        nodes.avoid("a", now);
        assert_eq!(nodes.address_for(None, now), "b");
        nodes.avoid("b", now + Duration::from_millis(1));
        nodes.avoid("c", now + Duration::from_millis(2));
        assert_eq!(nodes.address_for(None, now), "a", "the one avoided for longest is tried first");
        assert_eq!(nodes.address_for(None, now + AVOID_FOR * 2), "a");
    }

    #[test]
    fn a_leader_is_a_hint() {
        let (nodes, now) = (nodes(), Instant::now());
        nodes.learn_leader(7, "z");
        assert_eq!(nodes.address_for(Some(7), now), "z");
        nodes.avoid("z", now);
        assert_eq!(nodes.address_for(Some(7), now), "a");
        nodes.trust("z");
        nodes.forget_leader(7, "b");
        assert_eq!(nodes.address_for(Some(7), now), "z", "a newer belief stays");
        nodes.forget_leader(7, "z");
        assert_eq!(nodes.address_for(Some(7), now), "a");
    }
}
