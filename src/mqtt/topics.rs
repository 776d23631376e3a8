//! The topics under a daemon's root.

/// The topics of one daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    root: String,
    /// The filter of a queue shared with others, and its topic.
    shared: Option<(String, String)>,
}

/// What arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A job.
    Request,
    /// The id of a job to be dropped.
    Cancel,
}

impl Topics {
    /// Under this root.
    pub fn new(root: impl Into<String>) -> Self {
        Self { root: root.into(), shared: None }
    }

    /// The same, with a queue that is shared with other daemons.
    pub fn sharing(self, queue: Option<(&str, &str)>) -> Self {
        let shared = queue.map(|(filter, topic)| (filter.to_owned(), topic.to_owned()));
        Self { shared, ..self }
    }

    /// What is subscribed to.
    pub fn subscriptions(&self) -> Vec<String> {
        let shared = self.shared.iter().map(|(filter, _)| filter.clone());
        [self.request(), self.cancel()].into_iter().chain(shared).collect()
    }

    /// Whether a topic is one of the daemon's own, and no requester's.
    pub fn owns(&self, topic: &str) -> bool {
        topic.strip_prefix(&self.root).is_some_and(|rest| rest.starts_with('/'))
    }

    fn under(&self, name: &str) -> String {
        format!("{}/{name}", self.root)
    }

    /// `online` or `offline`.
    pub fn status(&self) -> String {
        self.under("status")
    }

    /// What the daemon is doing.
    pub fn state(&self) -> String {
        self.under("state")
    }

    /// The last image.
    pub fn image(&self) -> String {
        self.under("image")
    }

    /// A job's receipts.
    pub fn result(&self, id: &str) -> String {
        self.under(&format!("result/{id}"))
    }

    /// Why a job is not done.
    pub fn error(&self, id: &str) -> String {
        self.under(&format!("error/{id}"))
    }

    /// How far a job is.
    pub fn progress(&self, id: &str) -> String {
        self.under(&format!("progress/{id}"))
    }

    /// What a job's image looks like so far.
    pub fn preview(&self, id: &str) -> String {
        self.under(&format!("preview/{id}"))
    }

    /// Jobs.
    pub fn request(&self) -> String {
        self.under("request")
    }

    /// Jobs to be dropped.
    pub fn cancel(&self) -> String {
        self.under("cancel")
    }

    /// What a message on this topic means.
    pub fn input(&self, topic: &str) -> Option<Input> {
        if self.shared.as_ref().is_some_and(|(_, shared)| shared == topic) {
            return Some(Input::Request);
        }
        match topic.strip_prefix(&self.root)? {
            "/request" => Some(Input::Request),
            "/cancel" => Some(Input::Cancel),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_known_by_their_whole_topic() {
        let topics = Topics::new("denoised/a");
        assert_eq!(topics.input("denoised/a/request"), Some(Input::Request));
        assert_eq!(topics.input(&topics.cancel()), Some(Input::Cancel));
        for other in ["denoised/ab/request", "denoised/a/request/x", "request", "denoised/a"] {
            assert_eq!(topics.input(other), None, "{other}");
        }
    }
}
