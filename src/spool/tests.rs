use std::path::Path;
use std::time::Duration;

use super::clock::SpoolClock;
use super::*;

pub(super) fn settings(directory: &Path, keep_s: u64) -> SpoolSettings {
    SpoolSettings { path: directory.to_owned(), max_bytes: 1 << 20, keep_s }
}

fn message(payload: &str) -> Message {
    Message::new("t".to_owned(), payload.to_owned())
}

/// The service's last command, sent by a clone of the sender, was not counted, so that the spool
/// appeared settled before it was processed.
#[tokio::test]
async fn the_spool_is_not_settled_before_the_commands_of_every_sender_are_processed() {
    let directory = tempfile::tempdir().unwrap();
    let (client, mut received) = mpsc::channel(1);
    let (spool, _) = Spool::open(settings(directory.path(), 0), client.clone()).unwrap();
    assert!(spool.is_settled());
    // The writer blocks, because the client's channel is full.
    client.send(ClientCommand::CancelFetch(String::new())).await.unwrap();
    spool.sender().send(SpoolCommand::Forward(message("offline"))).await.unwrap();
    assert!(!spool.is_settled());
    assert!(matches!(received.recv().await, Some(ClientCommand::CancelFetch(_))));
    assert!(matches!(received.recv().await, Some(ClientCommand::Send { number: None, .. })));
    let settled = async {
        while !spool.is_settled() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), settled).await.unwrap();
    assert_eq!(spool.processed(), 1);
    spool.close().await;
}

#[tokio::test]
async fn a_sender_reports_that_the_spool_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let (client, _received) = mpsc::channel(1);
    let (spool, _) = Spool::open(settings(directory.path(), 0), client).unwrap();
    let (commands, receiver) = mpsc::channel(1);
    drop(receiver);
    let sender = SpoolSender { commands, ..spool.sender() };
    assert_eq!(sender.send(SpoolCommand::Forward(message("late"))).await, Err(SpoolClosed));
    assert!(spool.is_settled());
    spool.close().await;
}

#[test]
fn a_job_is_completed_when_its_change_is_committed_and_after_the_file_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), 60);
    let completed_jobs = CompletedJobs::default();
    let mut store = Store::open(&settings, &completed_jobs).unwrap();
    let job = |id: &str| AcceptedJob {
        id: id.to_owned(),
        digest: format!("digest of {id}"),
        request: serde_json::Value::Null,
        reply: None,
    };
    store.write(&[Change::Accept(job("a")), Change::Accept(job("b"))]).unwrap();
    assert_eq!(completed_jobs.get("a"), None);
    store.write(&[Change::Finish { id: "a".to_owned() }, Change::Forget("b".to_owned())]).unwrap();
    assert_eq!(completed_jobs.get("b"), None);
    let completed = completed_jobs.get("a").unwrap();
    assert!(completed.has_digest("digest of a") && !completed.has_digest("digest of b"));
    drop(store);
    let reopened = CompletedJobs::default();
    reopened.insert("evicted before a crash", "d");
    Store::open(&settings, &reopened).unwrap();
    assert_eq!(reopened.get("a"), Some(completed));
    assert_eq!(reopened.get("evicted before a crash"), None);
}

/// Completes a job, and returns whether the jobs with these ids are still known.
fn complete(store: &mut Store, completed_jobs: &CompletedJobs, id: &str, known: &[&str]) -> Vec<bool> {
    let job = AcceptedJob {
        id: id.to_owned(),
        digest: "d".to_owned(),
        request: serde_json::Value::Null,
        reply: None,
    };
    store.write(&[Change::Accept(job), Change::Finish { id: id.to_owned() }]).unwrap();
    known.iter().map(|id| completed_jobs.get(id).is_some()).collect()
}

/// A stream has any number of pictures, and their messages must not stay until it ends.
#[test]
fn the_messages_of_a_streams_pictures_leave_the_disk_with_their_delivery() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(&settings(directory.path(), 60), &CompletedJobs::default()).unwrap();
    let (id, digest) = ("live".to_owned(), "d".to_owned());
    let job = AcceptedJob { id: id.clone(), digest, request: serde_json::Value::Null, reply: None };
    store.write(&[Change::Accept(job)]).unwrap();
    let result = |payload: &str, topic: Option<&str>| {
        let mut message = message(payload);
        message.user_properties = vec![("type".into(), "result".to_owned()), ("id".into(), id.clone())];
        message.user_properties.extend(topic.map(|topic| (STREAM.into(), topic.to_owned())));
        message
    };
    for picture in ["first", "second"] {
        store.write(&[Change::Send(result(picture, Some("camera")))]).unwrap();
        let [number] = store.pending_after(0, 9).unwrap()[..] else { panic!("one message is pending") };
        store.write(&[Change::Delivered(number)]).unwrap();
        assert_eq!((store.message(number).unwrap(), store.delivered_bytes), (None, 0));
    }
    store.write(&[Change::Send(result("end", None)), Change::Finish { id: id.clone() }]).unwrap();
    let end = store.pending_after(0, 9).unwrap();
    store.write(&[Change::Delivered(end[0])]).unwrap();
    assert_eq!(store.write(&[Change::Redeliver { id: id.clone(), reply: None }]).unwrap(), end);
}

/// A board boots in 1970 and sets its clock later. A jump forward evicted all answers, and after a jump back the newest
/// were evicted first. The spool's own clock continues where the last commit left it.
#[test]
fn answers_aged_by_a_wall_clock_that_jumps() {
    let directory = tempfile::tempdir().unwrap();
    let (settings, completed_jobs) = (settings(directory.path(), 60), CompletedJobs::default());
    let mut store = Store::open(&settings, &completed_jobs).unwrap();
    assert!(store.clock.now() < 60, "the clock of a new spool starts at 0");
    assert_eq!(complete(&mut store, &completed_jobs, "a", &["a"]), [true]);
    store.clock = SpoolClock::resume(50);
    assert_eq!(complete(&mut store, &completed_jobs, "b", &["a", "b"]), [true, true]);
    drop(store);
    // The time continues after a restart, and `a` is past its retention period before `b`.
    let mut store = Store::open(&settings, &completed_jobs).unwrap();
    assert!((50..60).contains(&store.clock.now()));
    store.clock = SpoolClock::resume(100);
    assert_eq!(complete(&mut store, &completed_jobs, "c", &["a", "b", "c"]), [false, true, true]);
    store.clock = SpoolClock::resume(1000);
    store.write(&[]).unwrap();
    assert!(["a", "b", "c"].iter().all(|id| completed_jobs.get(id).is_none()));
    drop(store);
    // Also without a job whose time it could continue from.
    assert!(Store::open(&settings, &completed_jobs).unwrap().clock.now() >= 1000);
}

#[test]
fn an_invalid_spool_never_replaces_an_earlier_one() {
    let directory = tempfile::tempdir().unwrap();
    for number in 1..=3 {
        std::fs::write(directory.path().join("spool.redb"), format!("invalid {number}")).unwrap();
        drop(Store::open(&settings(directory.path(), 60), &CompletedJobs::default()).unwrap());
    }
    for number in 1..=3 {
        let renamed = directory.path().join(format!("spool.redb.set-aside-{number}"));
        assert_eq!(std::fs::read_to_string(renamed).unwrap(), format!("invalid {number}"));
    }
}

/// A file without a byte was taken for a new spool, so that its jobs were lost without a word.
#[test]
fn an_empty_file_where_a_spool_was_is_set_aside() {
    for (name, is_set_aside) in [("client-ids", true), ("topic-root", true), ("notes", false)] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(name), "denoised/board\n").unwrap();
        std::fs::write(directory.path().join("spool.redb"), "").unwrap();
        let settings = settings(directory.path(), 60);
        let renamed = directory.path().join("spool.redb.set-aside-1");
        drop(Store::open(&settings, &CompletedJobs::default()).unwrap());
        assert_eq!(renamed.exists(), is_set_aside, "{name}");
        // The new one is kept.
        drop(Store::open(&settings, &CompletedJobs::default()).unwrap());
        assert!(!directory.path().join("spool.redb.set-aside-2").exists());
    }
}

/// One damaged page ended the daemon at every start: redb panics on most of them.
#[test]
fn a_damaged_page_ended_the_daemon_at_every_start() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), 60);
    let path = directory.path().join("spool.redb");
    let mut store = Store::open(&settings, &CompletedJobs::default()).unwrap();
    let job = |id: String| AcceptedJob {
        id,
        digest: "d".to_owned(),
        request: serde_json::Value::String("x".repeat(500)),
        reply: None,
    };
    for number in 0..40_u64 {
        let id = number.to_string();
        let answer = Message::new("t".to_owned(), vec![7; 3000]);
        store
            .write(&[Change::Accept(job(id.clone())), Change::Send(answer), Change::Handled(number)])
            .unwrap();
        if number % 2 == 0 {
            store.write(&[Change::Finish { id }, Change::Delivered(number)]).unwrap();
        }
    }
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    let used: Vec<_> = (0..whole.len() / 4096)
        .filter(|page| whole[page * 4096..(page + 1) * 4096].iter().any(|byte| *byte != 0))
        .collect();
    assert!(used.len() > 30, "{}", used.len());
    let mut random = fastrand::Rng::with_seed(1);
    let mut set_aside = 0;
    for page in used {
        let noise: Vec<u8> = (0..4096).map(|_| random.u8(..)).collect();
        for damage in [vec![0; 4096], noise] {
            let mut bytes = whole.clone();
            bytes[page * 4096..(page + 1) * 4096].copy_from_slice(&damage);
            std::fs::write(&path, bytes).unwrap();
            let mut store = Store::open(&settings, &CompletedJobs::default()).unwrap();
            // Whatever is kept can be read and written.
            for number in store.pending_after(0, 1000).unwrap() {
                assert_eq!(store.message(number).unwrap().unwrap().payload, vec![7; 3000]);
            }
            store.jobs().unwrap();
            store.write(&[Change::Accept(job("new".to_owned()))]).unwrap();
            drop(store);
            let renamed = directory.path().join("spool.redb.set-aside-1");
            set_aside += usize::from(std::fs::remove_file(renamed).is_ok());
        }
    }
    assert!(set_aside > 20, "{set_aside}");
}

#[tokio::test]
async fn a_panic_of_the_thread_left_a_daemon_that_did_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (client, _received) = mpsc::channel(1);
    let (mut spool, _) = Spool::open(settings(directory.path(), 0), client).unwrap();
    let (commands, mut receiver) = mpsc::channel(1);
    spool.sender = SpoolSender { commands, ..spool.sender() };
    let thread = std::thread::spawn(move || {
        receiver.blocking_recv();
        panic!("a damaged page");
    });
    spool.thread = Some(thread);
    let sender = spool.sender();
    sender.send(SpoolCommand::Forward(message("last"))).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), sender.closed()).await.unwrap();
    assert_eq!(spool.panic_message(), "a damaged page");
    drop(sender);
    spool.close().await;
}

#[test]
fn a_value_is_replaced_and_is_there_after_the_file_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), 60);
    let open = || Store::open(&settings, &CompletedJobs::default()).unwrap();
    assert!(open().values().unwrap().is_empty());
    for value in ["old", "new"] {
        open().write(&[Change::SetValue { name: "settings", value: value.into() }]).unwrap();
    }
    let expected = BTreeMap::from([("settings".to_owned(), b"new".to_vec())]);
    assert_eq!(open().values().unwrap(), expected);
}
