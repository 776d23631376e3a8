use std::path::Path;
use std::time::Duration;

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
