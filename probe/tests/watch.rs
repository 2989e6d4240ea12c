//! With the feature: calls go to the watcher of this thread, and to nobody outside of its guard.
#![cfg(feature = "sim")]

use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;

use braid_probe::watch::{Watcher, enter};
use braid_probe::{AppliedEntry, Bug, Mark, always, planted, reachable, sometimes};

#[derive(Default)]
struct Heard(RefCell<Vec<String>>);

impl Watcher for Heard {
    fn reached(&self, mark: Mark) {
        self.0.borrow_mut().push(mark.name().to_string());
    }

    fn sometimes(&self, mark: Mark, holds: bool) {
        self.0.borrow_mut().push(format!("{} {holds}", mark.name()));
    }

    fn held(&self, mark: Mark, holds: bool, why: &dyn Display) {
        self.0.borrow_mut().push(format!("{} {holds}: {why}", mark.name()));
    }

    fn planted(&self, bug: Bug) -> bool {
        bug == Bug::AckBeforeFsync
    }

    fn applied(&self, entry: AppliedEntry<'_>, state: &dyn Fn() -> Vec<u8>) {
        let AppliedEntry { group, index, .. } = entry;
        self.0.borrow_mut().push(format!("{group} {index} {:?}", state()));
    }

    fn acknowledged(&self, group: u32, index: u64) {
        self.0.borrow_mut().push(format!("{group} {index}"));
    }
}

fn pass_everything() -> (bool, bool) {
    reachable!(Mark::SegmentRolled);
    sometimes!(1 > 2, Mark::GroupCommit);
    always!(2 > 1, Mark::StateSound, "no: {}", 3);
    braid_probe::applied(AppliedEntry { group: 1, index: 2, term: 1, payload: b"x" }, || vec![7]);
    braid_probe::acknowledged(1, 2);
    (planted(Bug::AckBeforeFsync), planted(Bug::VoteForgotten))
}

#[test]
fn only_within_the_guard() {
    assert_eq!(pass_everything(), (false, false));
    let heard = Rc::new(Heard::default());
    {
        let _outer = enter(heard.clone());
        assert_eq!(pass_everything(), (true, false));
        let other = Rc::new(Heard::default());
        drop(enter(other.clone()));
        assert!(planted(Bug::AckBeforeFsync), "the outer watcher is back");
        assert!(other.0.borrow().is_empty());
    }
    assert_eq!(pass_everything(), (false, false));
    let expected = ["log.segment_rolled", "log.group_commit false", "apply.state_sound true: no: 3", "1 2 [7]", "1 2"];
    assert_eq!(*heard.0.borrow(), expected);
}
