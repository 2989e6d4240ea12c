//! Disks that fail, fill up and lie; and what is promised about order, waiting and fsyncs when they don't.

mod support;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use braid_env::disk::sim::Survive;
use braid_log::{Identity, Log, LogId, LogOptions, OpenError, ReadError, SegmentSeq, Vote};
use support::{Crash, NEVER, Step, Trial, entry};

fn append(count: usize, len: usize) -> Step {
    Step::Append { count, len, new_term: false, wait: true }
}

fn vote(term: u64) -> Vote {
    Vote { term, node: 1, committed: false }
}

async fn refuses_everything(log: &Log) {
    let id = LogId { term: 99, index: log.last_id().map_or(0, |id| id.index + 1) };
    let why = log.failed().expect("a failed log says why");
    assert!(!why.is_empty());
    assert!(log.append(vec![entry(id, 1)], Box::new(|_| panic!("not enqueued, not called"))).is_err());
    assert!(log.save_vote(vote(99)).await.unwrap_err().to_string().contains(&why));
    assert!(log.save_committed(id).is_err());
    assert!(log.truncate_after(None).await.is_err());
    assert!(log.purge(id).await.is_err());
    assert!(log.wait_durable(id.index).await.is_err());
    assert!(matches!(log.read(0..1, 10).await, Err(ReadError::Stopped(_))));
    assert!(log.close().await.is_err());
}

#[test]
fn a_failed_fsync_ends_the_log_and_whoever_waits_learns_it_in_order() {
    let mut trial = Trial::new(1);
    trial.process(async |trial| {
        let (log, _) = trial.open().await.unwrap();
        trial.step(&log, &append(2, 100)).await.unwrap();
        trial.disk.fail_next_fsync();
        let told = Arc::new(Mutex::new(Vec::new()));
        for i in 2..5 {
            let told = told.clone();
            let done = move |r: io::Result<()>| told.lock().unwrap().push((i, r.is_err()));
            log.append(vec![entry(LogId { term: 1, index: i }, 50)], Box::new(done)).unwrap();
        }
        assert!(log.save_vote(vote(2)).await.is_err());
        assert_eq!(*told.lock().unwrap(), [(2, true), (3, true), (4, true)]);
        assert_eq!(log.durable_index(), Some(1));
        refuses_everything(&log).await;
    });
    for i in 2..5 {
        let mut state = trial.now().clone();
        state.entries.insert(i, (1, 50));
        trial.states.push(state);
    }
    let mut state = trial.now().clone();
    state.vote = Some(vote(2));
    trial.states.push(state);
    trial.disk.restart(Survive::Random);
    assert!(trial.run_until(&[append(1, 10)], NEVER, Crash::Kill));
}

// 1. write, 2. fsync fails, the page cache keeps the bytes and calls them clean, 3. the process is started again and
// finds them: it must not build on them before it has written them itself.
#[test]
fn what_only_the_page_cache_holds_is_made_durable_before_it_is_believed() {
    let mut trial = Trial::new(2);
    trial.process(async |trial| {
        let (log, _) = trial.open().await.unwrap();
        trial.step(&log, &append(1, 100)).await.unwrap();
        trial.disk.fail_next_fsync();
        trial.step(&log, &append(3, 1500)).await.unwrap_err();
    });
    trial.disk.kill_process();
    trial.process(async |trial| {
        let (log, _) = trial.open().await.unwrap();
        trial.verify(&log).await;
        assert_eq!(log.last_id().map(|id| id.index), Some(3), "the page cache has them");
        trial.acked.store(trial.states.len() - 1, Ordering::SeqCst);
    });
    trial.disk.restart(Survive::Nothing);
    assert!(trial.run_until(&[], NEVER, Crash::Kill));
}

#[test]
fn every_fsync_of_a_run_may_fail() {
    let steps =
        || [append(3, 2000), Step::Vote, append(6, 2500), Step::Checkpoint, Step::Purge { keep: 2 }, append(4, 900)];
    let mut failed = 0;
    for n in 0..40 {
        for how in [Crash::Kill, Crash::Power(Survive::Nothing), Crash::Power(Survive::Random)] {
            let mut trial = Trial::new(n);
            trial.disk.fail_nth_fsync(n);
            let hit = trial.process(async |trial| {
                let Ok((log, _)) = trial.open().await else { return true };
                for step in steps() {
                    if trial.step(&log, &step).await.is_err() {
                        return true;
                    }
                }
                false
            });
            if !hit {
                continue; // The run has fewer fsyncs.
            }
            failed += 1;
            match how {
                Crash::Kill => trial.disk.kill_process(),
                Crash::Power(how) => trial.disk.restart(how),
            }
            assert!(trial.run_until(&[append(1, 5), Step::Vote], NEVER, Crash::Kill));
            trial.disk.restart(Survive::Nothing);
            assert!(trial.run_until(&[], NEVER, Crash::Kill));
        }
    }
    assert!(failed > 30, "{failed} runs failed");
}

#[test]
fn a_full_disk_ends_the_log_and_loses_nothing() {
    for room in (20_000..120_000).step_by(1700) {
        let mut trial = Trial::new(room);
        trial.process(async |trial| {
            trial.disk.set_capacity(Some(room));
            let (log, _) = trial.open().await.unwrap();
            let error = loop {
                if let Err(e) = trial.step(&log, &append(2, 1800)).await {
                    break e;
                }
            };
            assert!(log.failed().is_some(), "{error}");
            refuses_everything(&log).await;
        });
        trial.disk.set_capacity(None);
        trial.disk.restart(Survive::Random);
        assert!(trial.run_until(&[append(9, 3000)], NEVER, Crash::Kill));
        assert!(trial.run_until(&[], NEVER, Crash::Kill));
    }
}

// 1. torn: a bad frame A, a whole frame B behind it; 2. cut at A; 3. a frame as long as A is written in its place;
// 4. power cut: B must not follow it as if it belonged there.
#[test]
fn a_cut_tail_never_shows_again() {
    let segment = PathBuf::from(support::DIR).join("segment-000000000001");
    for survive in [Survive::Everything, Survive::Nothing, Survive::Random] {
        let mut trial = Trial::new(4);
        trial.process(async |trial| {
            let (log, _) = trial.open().await.unwrap();
            trial.step(&log, &append(1, 64)).await.unwrap();
            for len in [512, 700, 800] {
                let more = Step::Append { count: 1, len, new_term: false, wait: false };
                trial.step(&log, &more).await.unwrap();
            }
            log.wait_durable(3).await.unwrap();
        });
        // The second batch: a Mark, then the entries of 512, 700 and 800 bytes. As if its fsync had never returned.
        let bad = 4096 + (48 + 96) + 48 + 40;
        trial.disk.flip_bit(&segment, bad, 1);
        trial.disk.restart(Survive::Nothing);
        trial.acked.store(1, Ordering::SeqCst);
        trial.process(async |trial| {
            let (log, recovered) = trial.open().await.unwrap();
            let cut = recovered.cut.expect("the tail is torn");
            assert_eq!((cut.at, cut.survivors), (bad - 40, 2));
            trial.verify(&log).await;
            assert_eq!(trial.now().entries.len(), 1);
            // A Mark goes first now, so that this frame ends exactly where the bad one did.
            trial.step(&log, &append(1, 512 - 48)).await.unwrap();
        });
        trial.disk.restart(survive);
        trial.process(async |trial| {
            let (log, recovered) = trial.open().await.unwrap();
            assert_eq!(recovered.cut, None);
            trial.verify(&log).await;
            assert_eq!(trial.now().entries.len(), 2);
        });
    }
}

#[test]
fn appends_share_a_batch_and_a_vote_waits_for_them() {
    let mut trial = Trial::new(5);
    trial.process(async |trial| {
        let (log, _) = trial.open().await.unwrap();
        for index in 0..100 {
            log.append(vec![entry(LogId { term: 1, index }, 10)], Box::new(|r| r.unwrap())).unwrap();
        }
        assert_eq!(log.durable_index(), None);
        assert!(log.queued_bytes() >= 100 * 42 && log.has_room());
        assert_eq!(log.read(0..100, usize::MAX).await.unwrap().len(), 100, "readable before it is written");
        log.save_vote(vote(1)).await.unwrap();
        assert_eq!(log.durable_index(), Some(99));
        assert_eq!(log.queued_bytes(), 0);
        let stats = log.stats();
        assert_eq!((stats.entries, stats.batches, stats.fsyncs), (100, 1, 1));
    });
}

#[test]
fn committed_costs_no_fsync_and_is_clamped() {
    let mut trial = Trial::new(6);
    trial.process(async |trial| {
        let (log, _) = trial.open().await.unwrap();
        trial.step(&log, &append(2, 10)).await.unwrap();
        let before = log.stats();
        log.save_committed(LogId { term: 1, index: 1 }).unwrap();
        while log.stats().batches == before.batches {
            tokio::task::yield_now().await;
        }
        assert_eq!(log.stats().fsyncs, before.fsyncs);
        // Ahead of the log, as a follower's may be: with the next batch.
        log.save_committed(LogId { term: 1, index: 50 }).unwrap();
        trial.step(&log, &Step::Vote).await.unwrap();
    });
    trial.disk.restart(Survive::Nothing);
    trial.process(async |trial| {
        let (log, _) = trial.open().await.unwrap();
        assert_eq!(log.committed(), Some(LogId { term: 1, index: 1 }));
    });
}

#[test]
fn a_truncation_lowers_what_is_durable_even_with_a_batch_in_flight() {
    let mut trial = Trial::new(7);
    trial.process(async |trial| {
        let (log, _) = trial.open().await.unwrap();
        trial.step(&log, &append(10, 100)).await.unwrap();
        let more: Vec<_> = (10..20).map(|index| entry(LogId { term: 1, index }, 100)).collect();
        log.append(more, Box::new(|r| r.unwrap())).unwrap();
        tokio::task::yield_now().await; // The writer has taken the batch.
        let truncated = log.truncate_after(Some(4));
        let mut truncated = std::pin::pin!(truncated);
        tokio::select! { biased; _ = &mut truncated => {}, () = std::future::ready(()) => {} }
        assert_eq!(log.last_id(), Some(LogId { term: 1, index: 4 }));
        let mut seen = log.durable_index();
        log.append(vec![entry(LogId { term: 2, index: 5 }, 7)], Box::new(|_| ())).unwrap();
        while log.durable_index() != Some(5) {
            assert_eq!(log.durable_index(), Some(4), "after {seen:?}");
            seen = log.durable_index();
            tokio::task::yield_now().await;
        }
        truncated.await.unwrap();
        let left = log.read(0..100, usize::MAX).await.unwrap();
        assert_eq!(left.iter().map(|e| e.id().term).collect::<Vec<_>>(), [1, 1, 1, 1, 1, 2]);
    });
}

#[test]
fn misuse_is_refused_and_changes_nothing() {
    let mut trial = Trial::new(8);
    trial.process(async |trial| {
        let (log, _) = trial.open().await.unwrap();
        trial.step(&log, &append(12, 2000)).await.unwrap();
        trial.step(&log, &Step::Checkpoint).await.unwrap();
        let invalid = |r: io::Result<()>| assert_eq!(r.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        invalid(log.append(vec![entry(LogId { term: 1, index: 13 }, 1)], Box::new(|_| panic!())));
        invalid(log.append(vec![entry(LogId { term: 0, index: 12 }, 1)], Box::new(|_| panic!())));
        invalid(log.truncate_after(Some(0)).await);
        invalid(log.purge(LogId { term: 7, index: 3 }).await);
        invalid(
            log.write_checkpoint(
                SegmentSeq(1),
                LogId { term: 1, index: 3 },
                support::checkpoint_state(LogId { term: 1, index: 3 }),
            )
            .await,
        );
        assert!(
            log.install_checkpoint(LogId { term: 1, index: 3 }, support::checkpoint_state(LogId { term: 1, index: 3 }))
                .await
                .is_err()
        );
        trial.verify(&log).await;
        log.purge(LogId { term: 1, index: 9 }).await.unwrap();
        assert!(matches!(log.read(3..5, 10).await, Err(ReadError::Purged { first_index: 10 })));

        assert!(matches!(trial.open().await, Err(OpenError::Locked { .. })));
        log.close().await.unwrap();
        let other = Identity { node: 3, ..support::identity() };
        let wrong = Log::open(Path::new(support::DIR), other, support::options()).await;
        assert!(matches!(wrong, Err(OpenError::WrongIdentity { found, .. }) if found == support::identity()));
    });
}

#[test]
fn a_read_of_rotten_bytes_says_where() {
    let mut trial = Trial::new(9);
    trial.process(async |trial| {
        let (log, _) = trial.open().await.unwrap();
        trial.step(&log, &append(8, 1500)).await.unwrap();
        let path = PathBuf::from(support::DIR).join("segment-000000000001");
        trial.disk.flip_on_next_read(&path, 4096 + 48 + 32 + 1000, 3);
        match log.read(0..1, 100).await {
            Err(ReadError::Damaged { file, byte, .. }) => assert_eq!((file, byte), (path, 4096 + 48)),
            other => panic!("{other:?}"),
        }
        assert_eq!(log.read(0..8, usize::MAX).await.unwrap().len(), 8, "and the next is right again");
    });
}

// A bit misread in the last batch looked like what a power cut tears, and three acknowledged records were cut off for good
// (simulator, seed 86000320 of d8466f5 and what it was before).
#[test]
fn a_bit_misread_at_the_end_cuts_nothing() {
    let mut trial = Trial::new(10);
    trial.process(async |trial| {
        let (log, _) = trial.open().await.unwrap();
        trial.step(&log, &append(1, 1500)).await.unwrap();
    });
    trial.disk.restart(Survive::Nothing);
    let path = PathBuf::from(support::DIR).join("segment-000000000001");
    trial.disk.flip_on_next_read(&path, 4096 + 48 + 32 + 1000, 3);
    trial.process(async |trial| {
        let (log, recovered) = trial.open().await.unwrap();
        assert_eq!(recovered.cut, None);
        trial.verify(&log).await;
    });
}

// The real disk: default options, payloads as the node writes them, over several segments.
#[test]
fn on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("group-7");
    let options = LogOptions { cache_bytes: 4 << 20, ..LogOptions::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let payload = bytes::Bytes::from(vec![7u8; 500 << 10]);
    let make = |index| braid_log::Entry::new(LogId { term: 1, index }, braid_log::EntryKind::Normal, payload.clone());
    runtime.block_on(async {
        let (log, _) = Log::open(&dir, support::identity(), options.clone()).await.unwrap();
        log.save_vote(vote(1)).await.unwrap();
        for index in 0..300 {
            log.append(vec![make(index)], Box::new(|r| r.unwrap())).unwrap();
            if index % 8 == 7 {
                log.wait_durable(index).await.unwrap();
            }
        }
        log.wait_durable(299).await.unwrap();
        println!("{:?}", log.stats());
        let second = log.segments()[1].clone();
        let before = log.id_at(second.first_index - 1).unwrap();
        log.write_checkpoint(second.seq, before, bytes::Bytes::from_static(b"state")).await.unwrap();
        log.purge(before).await.unwrap();
        log.truncate_after(Some(290)).await.unwrap();
        log.close().await.unwrap();
    });
    runtime.block_on(async {
        let (log, recovered) = Log::open(&dir, support::identity(), options).await.unwrap();
        println!("{recovered}");
        assert_eq!((log.vote(), log.last_id()), (Some(vote(1)), Some(LogId { term: 1, index: 290 })));
        let checkpoints = log.checkpoints().await.unwrap();
        assert_eq!(checkpoints.good.len(), 1);
        assert_eq!(log.starts_segment(log.first_index()), Some(checkpoints.good[0].seq));
        let mut next = log.first_index();
        while next <= 290 {
            for e in log.read(next..291, 3 << 20).await.unwrap() {
                assert_eq!(e, make(next));
                next += 1;
            }
        }
        log.close().await.unwrap();
    });
}
