//! Finished jobs until the spool has written them.
//!
//! The spool owns the record of completed jobs. Between the last image and the spool's commit, a repeated
//! request must still be recognised; this is the registry's memory of that time.

use std::collections::{BTreeMap, VecDeque};

#[derive(Debug, Default)]
pub(super) struct CommittingJobs {
    /// The digest of each job's request, by job id.
    digests: BTreeMap<String, String>,
    /// The ids by the sequence number of the spool command that finishes the job.
    commands: VecDeque<(u64, String)>,
}

impl CommittingJobs {
    pub(super) fn insert(&mut self, id: String, digest: String) {
        self.digests.insert(id, digest);
    }

    /// Returns the digest of the request of a job that is not yet written.
    pub(super) fn digest(&self, id: &str) -> Option<&str> {
        self.digests.get(id).map(String::as_str)
    }

    /// Sets the sequence number of the spool command that finishes the job. Numbers only increase.
    pub(super) fn set_command(&mut self, id: String, number: u64) {
        self.commands.push_back((number, id));
    }

    /// Forgets the jobs whose spool commands are written.
    pub(super) fn on_written(&mut self, written_commands: u64) {
        while let Some((_, id)) = self.commands.pop_front_if(|(number, _)| *number <= written_commands) {
            self.digests.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_known_until_its_command_is_written() {
        let mut jobs = CommittingJobs::default();
        for (id, number) in [("a", 3), ("b", 7)] {
            jobs.insert(id.to_owned(), format!("digest of {id}"));
            jobs.set_command(id.to_owned(), number);
        }
        jobs.on_written(2);
        assert_eq!((jobs.digest("a"), jobs.digest("b")), (Some("digest of a"), Some("digest of b")));
        jobs.on_written(6);
        assert_eq!((jobs.digest("a"), jobs.digest("b")), (None, Some("digest of b")));
        jobs.on_written(7);
        assert_eq!(jobs.digest("b"), None);
    }
}
